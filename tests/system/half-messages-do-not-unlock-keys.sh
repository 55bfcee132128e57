#!/bin/bash
# Who makes csmd keep as much as it keeps for one user, where little memory can be locked, is told of in status, and does not
# get keys into memory that is not locked, neither those of the store nor loaded ones; when he goes, all is as before.
# bound: 120
[ -n "${CSM_TEST_LIMITED:-}" ] || CSM_TEST_LIMITED=1 exec prlimit --memlock=8388608:8388608 \
    setpriv --bounding-set -sys_resource -- "$0"
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
. "$top/tests/lib/memory.sh"
umask 077
mkdir keep
: >keep/needles

csm domain create d >/dev/null
restart_now() { # without a search: there are no needles yet
    node_csmd_stop "$node"
    node_csmd_start "$node" || fail "csmd does not start again"
    CSM_PID=$(node_broker_pid "$node")
}
restart_now # nothing was read or written in it
grep -q '^Max locked memory *8388608 ' "/proc/$CSM_PID/limits" || fail "the limit is not what it should be"
told() { csm status | contains 'not all memory with secrets is locked'; }
! told || fail "told before there is a cause"

step "a user sends 20 MB of half messages, large ones and small ones, and sends them again when they get old"
mkfifo hold
py - 3<hold >ready <<'PY' &
import os
import select
import time
from csmwire import Closed, Conn, become

HEAD = b"\x94\x00\x07\xaasecret.set\x91\x82\xa6secret\xa3d/s\xa5pairs\x91\x82\xa4name\xa1k\xa5value\xc6\x00\x0b\x00\x00"
OLD_S = 2


def half(size):
    conn = Conn()
    try:
        conn.call("ping")
        conn.send_raw(HEAD + b"x" * size)
    except BaseException:
        conn.close()
        raise
    return size, time.monotonic(), conn


become(59102)
# The small ones fill the arena, the large ones what mappings may have.
held = [half(size) for size in [60000] * 60 + [700000] * 24]
print("ready", flush=True)
# Until the test closes the pipe: the oldest first, one at a time.
while not select.select([3], [], [], 0.01)[0]:
    size, since, conn = held[0]
    if time.monotonic() - since < OLD_S:
        continue
    conn.close()
    held.pop(0)
    while True:
        try:
            held.append(half(size))
            break
        except (OSError, Closed):
            time.sleep(0.01)
PY
hostile=$!
exec 9>hold
node_await 20 grep -q ready ready || fail "the half messages are not taken"
node_await 20 told || fail "status does not tell"

step "meanwhile the first reads and writes are made, and keys are made and used"
py - <<'PY'
from csmwire import Conn
conns = [Conn() for _ in range(4)]
conns[0].call("secret.set", {"secret": "d/s", "pairs": [{"name": "a", "value": b"v" * 40}]})
for i in range(100):
    conns[0].call("key.create", {"key": "k%d" % i, "alg": "p256" if i < 95 else "rsa2048", "backend": "soft"})
for conn in conns:
    conn.call("secret.get", {"secret": "d/s"})
    for i in range(100):
        conn.call("key.sign", {"key": "k%d" % i, "message": b"m"})
PY
store_needles "$node/rootkey/key" file
node_await 20 told || fail "the half messages are gone already"
search "keys in memory that is not locked" --locked-ok --pid "$CSM_PID"
held() { grep -q "held: $1" keep/found || fail "not found at all: $1"; }
held 'scalar:k7: reversed'
held 'kek:.*inner-state, outer-state;'
held 'subkey:scope: inner-state, outer-state;'

step "and when he is gone all is locked"
exec 9>&-
wait $hostile
gone() { ! told; }
node_await 15 gone || fail "status still tells"
search "keys in memory that is not locked, afterwards" --locked-ok --pid "$CSM_PID"
held 'kek:.*inner-state, outer-state;'
