#!/bin/bash
# A peer in another user or pid namespace has no namespace of its uid, root of a container least of all; a rule that
# names its uid serves it; without a policy file it is not served at all.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

csm key create roots >/dev/null
as_uid $uid_a csm key create own >/dev/null

# What each peer is told of whoami, of a key in the namespace of the uid it appears with, and of random.
cat >ask.py <<'PY'
import sys
from csmwire import Conn, Refused
c = Conn()
def call(method, params=None):
    try:
        return c.call(method, params)
    except Refused as r:
        return r.name
who = call("whoami")
shown = who if isinstance(who, str) else "%d %s" % (who["uid"], who.get("namespace", "-"))
key = call("key.show", {"key": sys.argv[1]})
print(shown, key if isinstance(key, str) else "shown", "random" if isinstance(call("random", {"bytes": 8}), dict) else "none")
PY
cp "$top/tests/lib/csmwire.py" . # where every uid can read it, wherever the clone lies
chmod 644 ask.py csmwire.py
ask() { PYTHONPATH=$work PYTHONDONTWRITEBYTECODE=1 "$@"; }
in_pid_ns="unshare --pid --fork"
if ! $in_pid_ns true 2>/dev/null || ! as_uid $uid_a unshare --user --map-root-user true 2>/dev/null; then
    echo "skip: no user and pid namespaces can be made here"
    exit 77
fi

step "here: each uid has its namespace"
expect_equal "root" "$(py ask.py uid-0:roots)" "0 uid-0 shown random"
expect_equal "a user" "$(ask as_uid $uid_a /usr/bin/python3 ask.py uid-$uid_a:own)" "$uid_a uid-$uid_a shown random"

step "root of another pid namespace is not the host's root"
# shellcheck disable=SC2086 # words
expect_equal "root in a pid namespace" "$(ask $in_pid_ns /usr/bin/python3 ask.py uid-0:roots)" "0 - denied random"

step "a user in a user namespace of his own, where he is root"
expect_equal "root in a user namespace" \
    "$(ask as_uid $uid_a unshare --user --map-root-user /usr/bin/python3 ask.py uid-$uid_a:own)" "$uid_a - denied random"
expect_equal "and root's key" \
    "$(ask as_uid $uid_a unshare --user --map-root-user /usr/bin/python3 ask.py uid-0:roots)" "$uid_a - denied random"

step "a rule that names the uid serves it there too"
policy <<YAML
version: 1
default: uid-namespaces
identities:
  inside: {uid: $uid_a}
rules:
  - {allow: [key.show], to: [inside], on: ["uid-$uid_a:*"]}
YAML
expect_equal "under a rule" \
    "$(ask as_uid $uid_a unshare --user --map-root-user /usr/bin/python3 ask.py uid-$uid_a:own)" "$uid_a - shown random"

step "without a policy file at all: only peers from here are served"
printf 'policy: ""\n' >none.yaml
without() { "$top/scripts/with-node.sh" --backend soft --config none.yaml -- "$@"; }
export PYTHONPATH=$top/tests/lib PYTHONDONTWRITEBYTECODE=1
expect_equal "from here" "$(without /usr/bin/python3 ask.py uid-0:roots)" "0 uid-0 not_found random"
# shellcheck disable=SC2086 # words
expect_equal "from elsewhere" "$(without $in_pid_ns /usr/bin/python3 ask.py uid-0:roots)" "0 - no_policy none"
ok without csm policy reload
