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
for method in ("ident.answer", "enrol.next", "deliver.done", "plughost.ready"):
    refused("role", conn.call, method, {})
PY
