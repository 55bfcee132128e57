#!/bin/bash
# When the disk of the store is full changes are refused with a clear error and status says low space; what was acknowledged
# stays, reading and signing go on, also after kill -9; and as soon as there is room changes go on.
# bound: 120
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
trap 'umount -l "$node/state" 2>/dev/null || true' EXIT
owner=$(stat -c %u "$node/state")
node_csmd_stop "$node"
rm -rf "$node/state"
mkdir -m 0700 "$node/state"
mount -t tmpfs -o "size=4m,mode=0700,uid=$owner,gid=$owner" tmpfs "$node/state" || { echo "skip: no tmpfs can be mounted" && exit 77; }
node_csmd_start "$node" || fail "csmd does not start"
ok csm key create k
ok csm domain create d
ok csm secret set d/kept v=kept

# Fill it by changes; each that is acknowledged is remembered.
cat >fill.py <<'PY'
"""Set secrets until one is refused; print how many were acknowledged. Then all of them, and the key, are as they were said."""
import sys
from csmwire import Conn, Refused
conn, n, tag = Conn(), 0, sys.argv[1]
def pairs(i):
    return [{"name": "v", "value": b"%s %d " % (tag.encode(), i) * 2000}]
try:
    while n < 2000:
        conn.call("secret.set", {"secret": "d/%s-%d" % (tag, n), "pairs": pairs(n)})
        n += 1
    sys.exit("the disk is never full")
except Refused as refusal:
    assert refusal.name == "no_space", refusal
for i in range(n):
    got = conn.call("secret.get", {"secret": "d/%s-%d" % (tag, i)})["pairs"]
    assert got[0]["value"] == pairs(i)[0]["value"], i
try:
    conn.call("secret.get", {"secret": "d/%s-%d" % (tag, n)})
    sys.exit("what was refused is there")
except Refused as refusal:
    assert refusal.name == "not_found", refusal
for _ in range(50):
    conn.call("key.sign", {"key": "k", "message": b"x"})
print(n)
PY
step "full by its own changes"
before=$(node_broker_pid "$node")
first=$(py fill.py first) || fail "a full disk"
[ "$first" -gt 5 ] || fail "only $first changes fit"
expect_equal "low space" "$(status_field store.low_space)" true
expect_exit 1 csm secret set d/more v="$(head -c 100000 /dev/zero | tr '\0' x)"
grep -qi 'no room in the store' err || { cat err >&2 && fail "not a clear error"; }
ok csm secret get d/kept v
expect_equal "the broker" "$(node_broker_pid "$node")" "$before"

step "kill -9 on the full disk"
kill -9 "$before"
node_await 10 node_gone "$before" || fail "the broker lives"
node_await 20 node_status "$node" >/dev/null || fail "the broker is not started again"
if node_await 5 csm secret get d/kept v >/dev/null 2>&1; then
    ok csm sign k fill.py
else
    # The new broker could not write what it writes at its start: it says so, and serves once there is room.
    status_field warnings | contains -i 'no room\|no_space\|space' || fail "status does not say why: $(status_field warnings)"
    step "reading waits for room after the restart"
fi

step "room again"
mount -o remount,size=16m "$node/state" || fail "remount"
node_await 10 csm secret set d/after v=after >/dev/null 2>&1 || fail "changes do not go on"
ok csm secret get d/kept v
ok csm sign k fill.py
for i in 0 $((first - 1)); do
    ok csm secret get "d/first-$i" v
done
expect_equal "store" "$(status_field store.state)" ready
node_csmd_stop "$node"
