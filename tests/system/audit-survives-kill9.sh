#!/bin/bash
# kill -9 of the broker, and of the supervisor with it, under load: the audit log is whole afterwards, and each change that
# was acknowledged has its line.
# bound: 120
# bound-long: 1200
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
log=$node/state/audit

node_csmd_stop "$node"
echo 'audit: {max_size: 16KiB, max_files: 9999}' >>"$node/csmd.yaml"
node_csmd_start "$node" || fail "csmd does not start"
ok csm domain create d
# Sets secrets until the daemon goes, and writes down which were acknowledged; asks for what is forbidden, too.
cat >load.py <<'PY'
import csmwire, os, sys
name, uid = sys.argv[1], int(sys.argv[2])
out = open("done." + name, "w")
if uid:
    os.setresuid(uid, uid, uid)
try:
    with csmwire.Conn() as c:
        for i in range(100000):
            if uid:
                try:
                    c.call("secret.get", {"secret": "uid-0:d/none"})
                except csmwire.Refused as e:
                    if e.name == "denied":
                        continue
                    raise
                raise AssertionError("what is forbidden is given")
            c.call("secret.set", {"secret": "d/%s-%d" % (name, i), "pairs": [{"name": "v", "value": b"x"}]})
            out.write("uid-0:d/%s-%d\n" % (name, i))
            out.flush()
except (csmwire.Closed, OSError):
    pass
except csmwire.Refused as e:
    if e.name != "shutdown":  # the broker's answer when its supervisor is gone
        raise
PY
rounds=$(count 8 100)
for round in $(seq "$rounds"); do
    loads=()
    for k in 1 2 3; do
        py load.py "$round.$k" 0 &
        loads+=($!)
    done
    py load.py "$round.denied" $((58000 + round)) &
    loads+=($!)
    node_await 10 test -s "done.$round.1" || fail "no load"
    sleep "0.$((RANDOM % 40 + 10))"
    kill9_turn "$round"
    wait "${loads[@]}" || fail "a load, round $round"
    csm audit verify >verified 2>&1 || { cat verified >&2 && fail "the log is not whole, round $round"; }
done
cat done.* >wanted
py "$top/tests/lib/auditlog.py" has "$log" wanted
denials=$(cat "$log"/* | grep -c '"event":"denied"')
[ "$denials" -ge "$rounds" ] || fail "denials have no lines"
grep -E '^[0-9]+ lines' verified
