#!/bin/bash
# Grants work, for just what they name; a rule that is removed is gone for the next request on the same connection.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

as_uid $uid_a csm key create shared >/dev/null
as_uid $uid_a csm key create private >/dev/null
as_uid $uid_a csm domain create db >/dev/null
as_uid $uid_a csm secret set db/main user=app password=hunter2 >/dev/null

granted() {
    policy <<YAML
version: 1
default: uid-namespaces
identities:
  app: {uid: $uid_b}
rules:
  - {allow: [key.sign, key.public], to: [app], on: ["uid-$uid_a:shared"]}
  - {allow: [secret.get], to: [app], on: ["uid-$uid_a:db/*"]}
YAML
}
step "a grant serves what it names"
granted
echo data >msg
as_uid $uid_b csm key public uid-$uid_a:shared >pub.pem
as_uid $uid_b csm sign uid-$uid_a:shared msg >sig
openssl dgst -sha256 -verify pub.pem -signature sig msg >/dev/null || fail "signature under a grant"
expect_equal "secret under a grant" "$(as_uid $uid_b csm secret get uid-$uid_a:db/main password)" hunter2

step "and nothing else"
denied as_uid $uid_b csm key delete uid-$uid_a:shared
denied as_uid $uid_b csm sign uid-$uid_a:private msg
denied as_uid $uid_b csm secret set uid-$uid_a:db/main user=x
denied as_uid 59103 csm sign uid-$uid_a:shared msg

step "removed and given back, seen by one connection that stays"
cat >turns.py <<'PY'
import os, socket
from csmwire import Conn, Refused, become
node = os.environ["CSM_NODE_DIR"]
granted = open(node + "/policy.yaml").read()
mine, its = socket.socketpair()
if os.fork() == 0:
    # The other user: one connection for all of it.
    mine.close()
    become(59102)
    conn = Conn()
    while its.recv(1):
        try:
            conn.call("key.sign", {"key": "uid-59101:shared", "message": b"m"})
            its.send(b"y")
        except Refused as refusal:
            its.send(b"n" if refusal.name == "denied" else b"?")
    os._exit(0)
its.close()
mine.settimeout(20)
admin = Conn(os.environ["CSM_ADMIN_SOCKET"])
for turn in range(20):
    with open(node + "/policy.yaml", "w") as f:
        f.write(granted if turn % 2 else "version: 1\ndefault: uid-namespaces\n")
    admin.call("policy.reload")
    mine.send(b".")
    got = mine.recv(1)
    assert got == (b"y" if turn % 2 else b"n"), (turn, got)
mine.close()
os.wait()
PY
py turns.py

step "a file that is not valid leaves the old policy in force"
granted
printf 'version: 1\nrules: [{allow: [key.sign], to: [nobody], on: ["*"]}]\n' >"$node/policy.yaml"
status=0
csm policy reload >out 2>err || status=$?
[ "$status" -ne 0 ] || fail "a bad policy was taken"
ok as_uid $uid_b csm sign uid-$uid_a:shared msg
