#!/bin/bash
# An older copy of the whole store, put back while csmd was down, is found by the TPM's counter: csmd serves only the
# administrator until `csm store accept`, then again with what the older copy has.
# bound: 120
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2

refused() {
    expect_exit 1 as_uid $uid_a csm secret get d/s v
    py - <<'PY'
from csmwire import Conn, ADMIN, refused
conn = Conn()
for method, params in (("key.list", {}), ("key.create", {"key": "x"}), ("random", {"bytes": 8})):
    refused("tampered", conn.call, method, params)
assert Conn(ADMIN).call("status")["store"]["state"] != "ready"
PY
}
as_uid $uid_a csm key create k --backend tpm2 >/dev/null
as_uid $uid_a csm domain create d >/dev/null
as_uid $uid_a csm secret set d/s v=old >/dev/null
step "stop, copy, go on, delete something"
node_csmd_stop "$node"
cp -a "$node/state" "$node/older"
node_csmd_start "$node" || fail "start"
as_uid $uid_a csm secret set d/s v=new >/dev/null
as_uid $uid_a csm key create later >/dev/null
as_uid $uid_a csm key delete k >/dev/null
node_csmd_stop "$node"

step "a clean stop and start is no roll-back"
node_csmd_start "$node" || fail "start"
expect_equal "the secret" "$(as_uid $uid_a csm secret get d/s v)" new
node_csmd_stop "$node"

step "put the older store back"
mv "$node/state" "$node/newer"
mv "$node/older" "$node/state"
node_csmd_start "$node" || fail "csmd must start, for the administrator"
refused

step "it stays refused over a restart"
node_csmd_stop "$node"
node_csmd_start "$node" || fail "start"
refused

step "accepted, it serves what it has"
ok csm store accept
expect_equal "the secret" "$(as_uid $uid_a csm secret get d/s v)" old
as_uid $uid_a csm sign k /dev/null >/dev/null || fail "the old key signs no more"
expect_exit 4 as_uid $uid_a csm key show later
node_csmd_stop "$node"
node_csmd_start "$node" || fail "start"
expect_equal "after a restart" "$(as_uid $uid_a csm secret get d/s v)" old
rm -rf "$node/newer"
