#!/bin/bash
# The administrator's methods are served on the admin socket only; uid 0 on the public socket has none of them, and the
# admin socket itself is out of other users' reach.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

step "every row of methods.def that is not for the public socket, as uid 0 and as a user"
# Columns of a row: symbol, number, name, permission, states, roles.
sed -nE 's/^X\([A-Z_]+, *[0-9]+, *"([a-z._]+)", *[A-Z_]+, *[A-Z]+, *([A-Z|]+),.*/\1 \2/p' "$top/proto-spec/methods.def" >rows
[ "$(wc -l <rows)" -gt 40 ] || fail "cannot read methods.def"
cat >ask.py <<'PY'
import sys
from csmwire import Conn, become, refused
become(int(sys.argv[1]))
conn, asked = Conn(), 0
for row in open("rows"):
    method, roles = row.split()
    if "PUBLIC" in roles.split("|"):
        continue
    refused("role", conn.call, method, {})
    asked += 1
refused("unknown_method", conn.call, "policy.explode", {})
assert asked >= 8, asked
conn.call("ping")
PY
chmod 644 ask.py rows
py ask.py 0
py ask.py $uid_a

step "the admin socket"
expect_equal "its mode" "$(stat -c %a:%u "$CSM_ADMIN_SOCKET")" 600:0
denied as_uid $uid_a env CSM_SOCKET="$CSM_ADMIN_SOCKET" csm whoami
ok csm policy explain key.sign uid-$uid_a:x --as uid=$uid_a

step "which in turn has no method of the private roles"
py - <<'PY'
from csmwire import Conn, ADMIN, refused
conn = Conn(ADMIN)
for method in ("ident.answer", "enrol.next", "deliver.done", "deliver.next", "plughost.ready"):
    refused("role", conn.call, method, {})
PY

step "and there the administrator looks and takes away, but uses nothing that policy does not give"
as_uid $uid_a csm key create k --alg rsa2048 --use sign,decrypt >/dev/null
as_uid $uid_a csm key create e --alg p256 --use derive >/dev/null
as_uid $uid_a csm domain create d >/dev/null
as_uid $uid_a csm secret set d/s k=v >/dev/null
py - <<'PY'
from csmwire import Conn, ADMIN, refused
conn, mine = Conn(ADMIN), "uid-59101:"
for method, params in (("key.sign", {"key": mine + "k", "message": b"x"}), ("key.sign_init", {"key": mine + "k"}),
                       ("key.decrypt", {"key": mine + "k", "ciphertext": b"x" * 256}),
                       ("key.derive", {"key": mine + "e", "peer": b"x" * 91}),
                       ("key.csr", {"key": mine + "k", "subject": "/CN=x"}), ("key.create", {"key": mine + "new"}),
                       ("secret.get", {"secret": mine + "d/s"}),
                       ("secret.set", {"secret": mine + "d/s", "pairs": [{"name": "k", "value": b"x"}]}),
                       ("domain.create", {"domain": mine + "new"}), ("seal", {"namespace": "uid-59101", "data": b"x"}),
                       ("unseal", {"namespace": "uid-59101", "sealed": b"x"})):
    refused("denied", conn.call, method, params)
assert conn.call("key.show", {"key": mine + "k"})["name"] == "k"
assert len(conn.call("secret.list", {"domain": mine + "d"})["secrets"]) == 1
PY
