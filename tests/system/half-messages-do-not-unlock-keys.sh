#!/bin/bash
# Who makes csmd keep as much as it keeps for one user, where little memory can be locked, is told of in status, and does not
# get keys into memory that is not locked; when he goes, all is as before.
# bound: 60
[ -n "${CSM_TEST_LIMITED:-}" ] || CSM_TEST_LIMITED=1 exec prlimit --memlock=8388608:8388608 \
    setpriv --bounding-set -sys_resource -- "$0"
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
. "$top/tests/lib/memory.sh"
umask 077
mkdir keep
: >keep/needles

grep -q '^Max locked memory *8388608 ' "/proc/$CSM_PID/limits" || fail "the limit is not what it should be"
told() { csm status | grep -q 'not all memory with secrets is locked'; }
! told || fail "told before there is a cause"

step "a user sends 20 MB of half messages, large ones and small ones"
py - >ready <<'PY' &
import time
from csmwire import Conn, become
become(59102)
conns = []
for size in [700000] * 24 + [70000] * 40:
    conn = Conn()
    conn.call("ping")
    conn.send_raw(b"\x94\x00\x07\xaasecret.set\x91\x82\xa6secret\xa3d/s\xa5pairs\x91\x82\xa4name\xa1k\xa5value\xc6\x00\x0b\x00\x00")
    conn.send_raw(b"x" * size)
    conns.append(conn)
print("ready", flush=True)
time.sleep(7)
PY
hostile=$!
node_await 10 grep -q ready ready || fail "the half messages are not taken"
node_await 10 told || fail "status does not tell"

step "meanwhile keys are made and used"
py - <<'PY'
from csmwire import Conn
conns = [Conn() for _ in range(4)]
for i in range(100):
    conns[0].call("key.create", {"key": "k%d" % i, "alg": "p256" if i < 95 else "rsa2048", "backend": "soft"})
for conn in conns:
    for i in range(100):
        conn.call("key.sign", {"key": "k%d" % i, "message": b"m"})
PY
store_needles "$node/root/key" file
search "keys in memory that is not locked" --locked-ok --pid "$CSM_PID"
grep -q 'held: scalar:k7: reversed' keep/found || fail "the keys are not there at all"
told || fail "the half messages are gone already"

step "and when he is gone all is locked"
wait $hostile
gone() { ! told; }
node_await 15 gone || fail "status still tells"
