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

step "nor is he himself in one that calls him by his own number, by none, or where root is root"
in_user_ns() { ask as_uid $uid_a unshare --user "$@" /usr/bin/python3 ask.py uid-$uid_a:own; }
expect_equal "by his own number" "$(in_user_ns --map-user=$uid_a --map-group=$uid_a)" "$uid_a - denied random"
expect_equal "by none" "$(in_user_ns)" "$uid_a - denied random"
expect_equal "with pids of its own" "$(in_user_ns --map-root-user --pid --fork)" "$uid_a - denied random"
expect_equal "root in one of root's" "$(ask unshare --user --map-root-user /usr/bin/python3 ask.py uid-0:roots)" \
    "0 - denied random"

step "the library trusts no socket whose owner has no number there, unless it is told to"
expect_exit 5 as_uid $uid_a unshare --user --map-root-user csm whoami
grep -q untrusted err || fail "$(cat err)"
ok as_uid $uid_a unshare --user --map-root-user csm --trust-overflow whoami
denied as_uid $uid_a unshare --user --map-root-user csm --trust-overflow key show uid-$uid_a:own

step "the overflow ids are nobody, by number and by name, as uid, gid and supplementary group"
policy <<YAML
version: 1
default: uid-namespaces
identities:
  name: {user: nobody}
  group: {group: nogroup}
rules:
  - {allow: ["*"], to: [name, group], on: ["*:*"]}
YAML
nobody=$(cat /proc/sys/kernel/overflowuid)
expect_equal "by uid" "$(ask as_uid "$nobody" /usr/bin/python3 ask.py "uid-$nobody:k")" "$nobody - denied random"
expect_equal "by group" "$(ask setpriv --reuid $uid_a --regid "$nobody" --clear-groups /usr/bin/python3 ask.py uid-0:roots)" \
    "$uid_a uid-$uid_a denied random"
expect_equal "by supplementary group" \
    "$(ask setpriv --reuid $uid_a --regid $uid_a --groups "$nobody" /usr/bin/python3 ask.py uid-0:roots)" \
    "$uid_a uid-$uid_a denied random"
for selector in uid gid; do
    printf 'version: 1\nidentities: {x: {%s: %s}}\n' $selector "$nobody" >bad.yaml
    expect_exit 1 csm policy check bad.yaml
done

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
expect_equal "from a user namespace" \
    "$(without setpriv --reuid $uid_a --regid $uid_a --clear-groups unshare --user --map-root-user \
        /usr/bin/python3 ask.py uid-$uid_a:own)" "$uid_a - no_policy none"
ok without csm policy reload
