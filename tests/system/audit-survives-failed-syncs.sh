#!/bin/bash
# Each other sync of the audit log fails, and what was not synced is forgotten, as the kernel may do: no line of an acknowledged
# change is missing, neither while csmd runs nor when the power goes.
# bound: 120
# bound-long: 600
. "$(dirname "$0")/../lib/system.sh"
backend=soft
in_node --backend $backend
. "$top/tests/lib/powercut.sh"

node_csmd_stop "$node"
echo 'audit: {max_size: 64KiB, max_files: 9999}' >>"$node/csmd.yaml"
must_start
ok csm domain create d
kill_all
rm -f "$log"
rounds=$(count 4 40)
: >wanted
for round in $(seq "$rounds"); do
    eio=2 must_start
    # The power goes under writes, or after the log has been looked at.
    if [ $((round % 2)) -eq 0 ]; then
        load "r$round" $((RANDOM % 300 + 50))
    else
        rm -f writes.*
        timeout 2 env PYTHONPATH="$top/tests/lib" /usr/bin/python3 "$top/tests/lib/writes.py" write "r$round" 4 2>writers.err || true
        [ -s writes.1 ] || fail "the writers do not write"
        as_uid $uid_a csm secret get uid-0:d/none >/dev/null 2>&1 || true
        sleep 1.5
        csm audit verify >verified-log 2>&1 || { cat verified-log >&2 && fail "the log is not whole while csmd runs, round $round"; }
        kill_all
    fi
    replay all >/dev/null
    grep -q 'were written once more' "$node/csmd.log" || fail "no sync has failed"
    sed -nE 's/^done (no)?key /uid-0:/p; s/^done (no)?secret /uid-0:d\//p; s/^done serial .*://p' writes.* >>wanted
    must_start "round $round"
    csm audit verify >verified-log 2>&1 || { cat verified-log >&2 && fail "the log is not whole, round $round"; }
    py "$top/tests/lib/auditlog.py" has "$node/state/audit" wanted || fail "a change without its line, round $round"
    # No change was told as lost. (A denial may be, where just its sync was one that failed.)
    ! grep -h '"event":"gap"' "$node"/state/audit/* | contains -v '"changes":0,' || fail "a gap, round $round"
    kill_all
    rm -f "$log"
done
must_start
