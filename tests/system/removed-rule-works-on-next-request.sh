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

step "a signature in parts is judged at its end, and is of the key that it was begun with"
cat >parts.py <<'PY'
import os
from csmwire import Conn, as_uid, become, refused, reload
node = os.environ["CSM_NODE_DIR"]
granted = open(node + "/policy.yaml").read()
def policy(text):
    with open(node + "/policy.yaml", "w") as f:
        f.write(text)
    reload()
def begin(conn):
    stream = conn.call("key.sign_init", {"key": "uid-59101:shared"})["stream"]
    conn.call("key.sign_update", {"stream": stream, "data": b"m"})
    return {"stream": stream}
def other(ready, go):
    become(59102)
    conn = Conn()
    assert conn.call("key.sign_final", begin(conn))["signature"]
    stream = begin(conn)
    os.write(ready, b".")
    os.read(go, 1)
    refused("denied", conn.call, "key.sign_final", stream)
    refused("denied", conn.call, "key.sign_init", {"key": "uid-59101:shared"})
def replaced():
    conn = Conn()
    stream = begin(conn)
    conn.call("key.delete", {"key": "shared"})
    refused("not_found", conn.call, "key.sign_final", stream)
def anew():
    conn = Conn()
    conn.call("key.create", {"key": "shared"})
    stream = begin(conn)
    conn.call("key.delete", {"key": "shared"})
    conn.call("key.create", {"key": "shared"})
    refused("conflict", conn.call, "key.sign_final", stream)
ready, go = os.pipe(), os.pipe()
if os.fork() == 0:
    status = 1
    try:
        other(ready[1], go[0])
        status = 0
    finally:
        os._exit(status)
os.close(ready[1])
assert os.read(ready[0], 1) == b"."
policy("version: 1\ndefault: uid-namespaces\n")
os.write(go[1], b".")
assert os.wait()[1] == 0
policy(granted)
as_uid(59101, replaced)
as_uid(59101, anew)
PY
py parts.py

step "a file that is not valid leaves the old policy in force"
granted
printf 'version: 1\nrules: [{allow: [key.sign], to: [nobody], on: ["*"]}]\n' >"$node/policy.yaml"
status=0
csm policy reload >out 2>err || status=$?
[ "$status" -ne 0 ] || fail "a bad policy was taken"
ok as_uid $uid_b csm sign uid-$uid_a:shared msg
