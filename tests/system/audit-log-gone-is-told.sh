#!/bin/bash
# All of audit.log is gone at a start after a crash: what the store has kept of it comes back, csmd's log, its status and `csm
# audit verify` say which lines are missing and where, for good; and who finds the file again has the whole log again.
# bound: 60
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
log=$node/state/audit

ok csm domain create d
sleep 1.5 # what was told until now is synced
cat >burst.py <<'PY'
import csmwire, os, signal, sys
broker, supervisor = int(sys.argv[1]), int(sys.argv[2])
with csmwire.Conn() as c:
    for i in range(50):
        c.call("secret.set", {"secret": "d/s%d" % i, "pairs": [{"name": "v", "value": b"x"}]})
        print("uid-0:d/s%d" % i, flush=True)
os.kill(supervisor, signal.SIGKILL)
os.kill(broker, signal.SIGKILL)
PY
broker=$(node_broker_pid "$node") supervisor=$(node_pid "$node" csmd)
py burst.py "$broker" "$supervisor" >wanted
node_await 10 node_gone "$supervisor" || fail "the supervisor lives"
node_await 10 node_gone "$broker" || fail "the broker lives"
expect_equal "changes" "$(wc -l <wanted)" 50
mv "$log/audit.log" found.log
: >"$node/csmd.log"
node_csmd_start "$node" || fail "csmd does not start"

step "each change that was not synced has its line again"
# A sync may have come in between.
head -n 1 "$log/audit.log" | json event | contains -x missing || fail "$(head -n 1 "$log/audit.log")"
gone=$(head -n 1 "$log/audit.log" | json seq)
total=$(tail -n 1 found.log | json seq)
[ "$gone" -lt "$total" ] || fail "nothing came back: $gone of $total lines are gone"
awk -v gone="$gone" 'NR > gone' found.log >behind
sed -n "2,$((total - gone + 1))p" "$log/audit.log" >back
expect_same "lines" behind back

step "and what is missing is told, with its place"
missing() {
    expect_exit 1 csm audit verify --json
    expect_equal "problems" "$(json problems <out | /usr/bin/python3 -c 'import json, sys; print(len(json.load(sys.stdin)))')" 1
    expect_equal "problem" "$(json problems.0.problem <out)" dropped
    expect_equal "file" "$(json problems.0.file <out)" "$log/audit.log"
    expect_equal "place" "$(json problems.0.line <out) $(json problems.0.seq <out) $(json problems.0.last <out)" "1 1 $gone"
}
missing
grep -q "lines 1 to $gone of the audit log are gone" "$node/csmd.log" || fail "csmd's log does not tell"
status_field warnings | contains "lines 1 to $gone of the audit log are gone" || fail "status does not tell"

step "after another start, too"
ok csm domain create more
node_csmd_stop "$node"
node_csmd_start "$node" || fail "csmd does not start"
missing
! status_field warnings | contains "are gone" || fail "status tells it twice"

step "the file that is found again fills the gap"
install -m 600 -o "$(stat -c %u "$log/audit.log")" found.log "$log/audit-000000000001.log"
head -n "$gone" found.log >"$log/audit-000000000001.log"
ok csm audit verify --json
expect_equal "whole" "$(json whole <out)" true
# Another one does not.
head -n "$gone" found.log | sed 's/"uid":0/"uid":7/' >"$log/audit-000000000001.log"
expect_exit 1 csm audit verify
