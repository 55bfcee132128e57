#!/bin/bash
# Root of a container reaches csmd through the mounted folder and is nobody there: no key or secret of root's, no method
# of the administrator, no right that policy gives uid 0; and it cannot harm what lies in the folder.
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/spaces.sh"
in_node --backend soft
need_namespaces

csm key create roots >/dev/null
csm domain create mine >/dev/null
csm secret set mine/s k=v >/dev/null
mkdir inside
cp "$top/tests/lib/csmwire.py" inside/
# Columns of a row: symbol, number, name, permission, states, roles.
sed -nE 's/^X\([A-Z_]+, *[0-9]+, *"([a-z._]+)", *[A-Z_]+, *[A-Z]+, *([A-Z|]+),.*/\1 \2/p' \
    "$top/proto-spec/methods.def" >inside/rows
[ "$(wc -l <inside/rows)" -gt 40 ] || fail "cannot read methods.def"
cat >inside/ask.py <<'PY'
import os, sys
from csmwire import Conn, Refused, refused
expect = sys.argv[1]
assert os.getuid() == 0 and os.getpid() == 1, (os.getuid(), os.getpid())
assert open("/proc/self/cgroup").read().splitlines()[-1] == "0::/"
c = Conn()
OBJECTS = (("key.show", {"key": "uid-0:roots"}), ("key.public", {"key": "uid-0:roots"}),
           ("key.sign", {"key": "uid-0:roots", "message": b"x"}), ("key.delete", {"key": "uid-0:roots"}),
           ("key.create", {"key": "uid-0:more"}), ("key.list", {"namespace": "uid-0"}),
           ("domain.create", {"domain": "uid-0:d"}), ("domain.list", {"namespace": "uid-0"}),
           ("domain.delete", {"domain": "uid-0:mine"}), ("secret.get", {"secret": "uid-0:mine/s"}),
           ("secret.set", {"secret": "uid-0:mine/s", "pairs": [{"name": "k", "value": b"x"}]}),
           ("secret.list", {"domain": "uid-0:mine"}), ("secret.delete", {"secret": "uid-0:mine/s"}),
           ("seal", {"namespace": "uid-0", "data": b"x"}),
           # and what policy gives to uid 0
           ("key.create", {"key": "web:new"}), ("key.show", {"key": "web:tls"}), ("secret.get", {"secret": "web:d/s"}),
           ("key.create", {"key": "staff:new"}))
for method, params in OBJECTS:
    refused(expect, c.call, method, params)
# A bare name means nothing here.
refused(expect, c.call, "key.show", {"key": "roots"})
asked = 0
for row in open("/inside/rows"):
    method, roles = row.split()
    if "PUBLIC" not in roles.split("|"):
        refused("role", c.call, method, {})
        asked += 1
assert asked >= 8, asked
if expect == "denied":
    who = c.call("whoami")
    assert who["uid"] == 0 and not who.get("namespace") and not who["identities"], who
    # Of another's numbers it is told nothing either.
    status = c.call("status")
    assert status.get("keys") in (None, 0) and status.get("secrets") in (None, 0), status
    assert "connections" not in status, status
c.call("ping")
PY

step "without more than the default"
ok in_container /usr/bin/python3 ask.py denied
ok in_container csm status
denied in_container csm key show uid-0:roots
expect_exit 3 in_container csm key create k

step "where policy gives rights to uid 0, or to its group, in words or numbers"
policy <<YAML
version: 1
default: uid-namespaces
identities:
  number: {uid: 0}
  name: {user: root}
  group: {gid: 0}
  group-name: {group: root}
  both: {uid: 0, gid: 0}
rules:
  - {allow: ["*"], to: [number, name, both], on: ["web:*", "uid-0:*"]}
  - {allow: ["*"], to: [group, group-name], on: ["staff:*", "uid-0:*"]}
YAML
ok csm key create web:tls
ok csm key create staff:tls
ok csm domain create web:d
ok csm secret set web:d/s k=v
ok in_container /usr/bin/python3 ask.py denied

step "without a policy file it is not served at all"
printf 'policy: ""\n' >none.yaml
cat >none.sh <<'SH'
. "$1/tests/lib/system.sh"
. "$1/tests/lib/spaces.sh"
work=$2
csm key create roots >/dev/null
in_container /usr/bin/python3 ask.py no_policy
SH
ok "$top/scripts/with-node.sh" --backend soft --config none.yaml -- bash none.sh "$top" "$work"

step "even with the administrator's socket in its hands it is not the administrator"
in_pid_ns() { unshare --pid --fork --kill-child "$@"; }
for words in "policy reload" "policy explain key.sign web:k" "status" "key list --namespace uid-0" "key delete uid-0:roots"; do
    # shellcheck disable=SC2086 # words
    denied in_pid_ns env CSM_SOCKET="$CSM_ADMIN_SOCKET" csm $words
    grep -q 'own pid namespace' err || fail "$words: $(cat err)"
done
ok csm policy reload

step "nothing but the socket is there, and nothing in the folder can be changed"
cat >inside/harm.sh <<'SH'
set -u
cd /run/csm/public
[ -S csm.sock ] || exit 10
[ ! -e /run/csm/admin.sock ] && [ ! -e ../admin.sock ] || exit 11
[ "$(ls -A /run/csm)" = public ] || exit 12
rm -f csm.sock 2>/dev/null && exit 13
: >x 2>/dev/null && exit 14
mv csm.sock y 2>/dev/null && exit 15
chmod 000 csm.sock 2>/dev/null && exit 16
chmod 000 . 2>/dev/null && exit 17
exit 0
SH
ok in_container bash harm.sh
ok csm key show roots
