#!/bin/bash
# Any line of the audit log that is changed, dropped, moved, doubled or cut off is told with its file, line and number: at
# the beginning, in the middle and at the end of old files and of the one in use, while csmd runs and when it was down.
# bound: 120
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
log=$node/state/audit

node_csmd_stop "$node"
echo 'audit: {max_size: 16KiB}' >>"$node/csmd.yaml"
node_csmd_start "$node" || fail "csmd does not start"
ok csm domain create d
py - <<'PY'
import csmwire
with csmwire.Conn() as c:
    for i in range(250):
        c.call("secret.set", {"secret": "d/s%d" % i, "pairs": [{"name": "v", "value": b"x"}]})
PY
step "attacks by one who can write the log, while csmd runs"
py "$top/tests/lib/auditlog.py" attack "$log"

step "a copy elsewhere: what the key has not signed is not whole"
key=$(csm audit verify --json | json key)
elsewhere() { csm audit verify --socket /nonexistent --json --key "$key" "$@"; }
mkdir copy
cp "$log"/* copy/
ok csm domain create after
cp "$log/audit.log" running.log
# Files that were filled end in a checkpoint, the one in use does not.
mv copy/audit.log .
ok elsewhere copy/*
expect_equal "whole" "$(json whole <out)" true
expect_exit 1 elsewhere copy/* running.log
expect_equal "whole" "$(json whole <out)" false
expect_equal "problem" "$(json problems.0.problem <out)" unsigned
expect_equal "from" "$(json unsigned_from <out)" "$(($(json signed_to <out) + 2))"
# All of it made anew by one who has not the key.
py "$top/tests/lib/auditlog.py" anew "$log" forged.log
expect_exit 1 elsewhere forged.log
expect_equal "whole" "$(json whole <out)" false
expect_equal "problem" "$(json problems.0.problem <out)" unsigned
expect_equal "from" "$(json unsigned_from <out)" 1
: >empty.log
expect_exit 1 elsewhere empty.log
# Without the key there is nothing to say; it is not called whole.
ok csm audit verify --socket /nonexistent --json forged.log
expect_equal "whole" "$(json whole <out)" false
ok csm audit verify --socket /nonexistent forged.log
grep -q 'forged lines .* are not seen' out || fail "$(cat out)"

step "the end cut off while csmd was down"
node_csmd_stop "$node"
ok elsewhere "$log"/*
expect_equal "whole, after a stop" "$(json whole <out)" true
expect_equal "unsigned" "$(json unsigned_from <out)" null
cp -a "$node/state" "$node/kept"
restore() { rm -rf "$node/state" && cp -a "$node/kept" "$node/state"; }
for lines in 1 3; do
    restore
    whole=$(wc -l <"$log/audit.log")
    head -n -$lines "$log/audit.log" >less
    cat less >"$log/audit.log"
    node_csmd_start "$node" || fail "csmd does not start"
    expect_exit 1 csm audit verify --json
    /usr/bin/python3 - "$work/out" "$whole" $lines <<'PY' || fail "not told"
import json, sys
told, whole, lines = json.load(open(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
place = whole - lines + 1
assert any(p["problem"] == "dropped" and p["line"] == place and p["last"] - p["seq"] + 1 == lines
           for p in told["problems"]), told
assert any(p["problem"] == "changed" and p["line"] == place for p in told["problems"]), told
PY
    status_field warnings | contains "audit log was changed behind csmd" || fail "status does not tell"
    ok csm secret set d/more v=1
    # It does not go away by itself.
    node_csmd_stop "$node"
    node_csmd_start "$node" || fail "csmd does not start"
    expect_exit 1 csm audit verify
    node_csmd_stop "$node"
done
step "another line in the place of the last one"
restore
py - "$log" <<'PY'
import auditlog, sys
lines = auditlog.read(sys.argv[1], "audit.log")
lines[-1] = auditlog.finish(auditlog.body_of(lines[-1]).replace(b"time", b"tima", 1), auditlog.hash_of(lines[-2]))[0]
auditlog.write(sys.argv[1], "audit.log", lines)
PY
node_csmd_start "$node" || fail "csmd does not start"
expect_exit 1 csm audit verify
status_field warnings | contains "audit log was changed behind csmd" || fail "status does not tell"
node_csmd_stop "$node"
step "left alone, it is whole"
restore
node_csmd_start "$node" || fail "csmd does not start"
ok csm audit verify
