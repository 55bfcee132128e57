#!/bin/bash
# A csmd in a pid, user or cgroup namespace of its own cannot tell who its peers are: it says "identity: degraded" and
# why, and refuses all that rests on unit, pod, container or executable to those to whom a csmd outside grants it. What
# rests on the uid alone goes on.
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/spaces.sh"
need_cgroups
need_namespaces
uid_c=59103 gid_x=59104
id=$(printf '%08d' $$) # our own, whatever else runs on this machine
web=csm-web-$id.service
pod=a0000000-1111-2222-3333-4444$id
box=$(printf 'b%.0s' {1..56})$id
declare -A group=(
    [unit]=/system.slice/$web
    [user-unit]=/user.slice/user-$uid_a.slice/user@$uid_a.service/$web
    [pod]=/kubepods.slice/kubepods-pod${pod//-/_}.slice
    [container]=/machine.slice/libpod-$box.scope
)
make_groups "${group[@]}" "/csm-$id" "/csm-$id/system.slice/$web"

work=$(mktemp -d "${TMPDIR:-/tmp}/csm-degraded.XXXXXX")
node='' pid=''
stop() {
    [ -n "$pid" ] || return 0
    # unshare lets its child go first; of csmd itself the children wait for it.
    kill -TERM "$([ "$(cat "/proc/$pid/comm")" = unshare ] && pgrep -P "$pid" || echo "$pid")" 2>/dev/null || true
    node_await 15 node_gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
    node_await 5 node_gone "$pid" || true
    pid=''
}
clean() {
    stop
    remove_groups
    rm -rf "$work"
}
trap clean EXIT
chmod 755 "$work"
cp "$top/tests/lib/csmwire.py" "$node_build/bin/csm" "$work" && chmod 755 "$work/csm" "$work/csmwire.py"
cd "$work"

cat >ask.py <<'PY'
import os, sys
from csmwire import Conn, Refused
expect, obj, uid = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.setgroups([int(g) for g in sys.argv[4:]])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
c = Conn()
def call(method, params=None):
    try:
        return "granted", c.call(method, params)
    except Refused as r:
        return r.name, str(r)
got, text = call("key.show", {"key": obj})
assert got == expect, (got, text)
if expect == "denied":
    assert call("key.create", {"key": obj.split(":")[0] + ":new"})[0] == "denied"
    assert call("key.show", {"key": obj + "-that-is-not"}) == (got, text), "it tells what there is"
    assert "degraded" in text, text
    who = c.call("whoami")
    assert not [f for f in ("unit", "user_unit", "container", "pod") if who.get(f)], who
PY
# asked WHAT GROUP EXPECT OBJECT UID [GROUP-ID]
asked() {
    local what=$1 path=$2
    shift 2
    expect_exit 0 env CSM_SOCKET="$node/public/csm.sock" PYTHONPATH="$work" PYTHONDONTWRITEBYTECODE=1 bash -c \
        'echo $$ >"$1" && shift && exec /usr/bin/python3 "$@"' asked "$cgroup_root$path/cgroup.procs" ask.py "$@" ||
        fail "$what"
}
admin() { CSM_SOCKET=$node/public/csm.sock CSM_ADMIN_SOCKET=$node/admin.sock "$work/csm" "$@"; }

# begin NAME COMMAND...: a node of its own, whose csmd COMMAND starts.
begin() {
    node=$work/$1
    shift
    mkdir "$node"
    node_make "$node" soft "" ""
    cat >"$node/policy.yaml" <<YAML
version: 1
default: uid-namespaces
identities:
  unit: {unit: $web}
  user-unit: {user_unit: $uid_a/$web}
  pod: {pod: $pod}
  container: {container: "*"}
  any-unit: {unit: "*"}
  exe: {uid: $uid_a, exe: $work/csm}
  by-uid: {uid: $uid_c}
  by-gid: {gid: $gid_x}
  root: {uid: 0}
namespaces:
  web: {home-of: [unit]}
rules:
  - {allow: ["*"], to: [unit, user-unit, pod, container, any-unit, by-uid], on: ["web:*"]}
  - {allow: ["*"], to: [by-uid, exe], on: ["exe:*"]}
  - {allow: ["*"], to: [by-uid, by-gid], on: ["group:*"]}
  - {allow: ["*"], to: [by-uid, root], on: ["root:*"]}
YAML
    setsid env -u NOTIFY_SOCKET -u LISTEN_FDS "$@" </dev/null >>"$node/csmd.log" 2>&1 &
    pid=$!
    disown
}
csmd=$node_build/bin/csmd
serves() {
    node_await 20 admin status >/dev/null 2>&1 || fail "it does not serve: $(cat "$node/csmd.log")"
    for object in web:k exe:k group:k root:k "uid-$uid_c:k"; do
        as_uid $uid_c env CSM_SOCKET="$node/public/csm.sock" "$work/csm" key create "$object" >out 2>&1 ||
            [ "$object" = "uid-$uid_c:k" ] || fail "$object: $(cat out)"
    done
}
by_exe() { as_uid $uid_a env CSM_SOCKET="$node/public/csm.sock" "$work/csm" key show exe:k; }
# What a degraded csmd says and refuses; WORDS: of its namespace.
is_degraded() { # WORDS
    expect_equal "status" "$(admin status --json | json identity)" degraded
    admin status --json | json warnings | contains "csmd is in a $1 namespace of its own" || fail "$(admin status)"
    admin status | contains -E '^identity: *degraded' || fail "$(admin status)"
    grep -q "identity is degraded: csmd is in a $1 namespace of its own" "$node/csmd.log" || fail "it does not log it"
    for kind in "${!group[@]}"; do
        asked "$kind" "${group[$kind]}" denied web:k $uid_a
    done
    denied by_exe
    grep -q 'identity is degraded' err || fail "exe: $(cat err)"
    asked "a uid" "/csm-$id" granted web:k $uid_c
    for as in "unit=$web" "pod=$pod" "container=$box" "user_unit=$uid_a/$web"; do
        admin policy explain key.show web:k --as "$as" >out 2>&1 || true
        grep -q 'identity is degraded' out || fail "explain $as: $(cat out)"
    done
    admin policy explain key.show web:k --as "uid=$uid_c" | contains by-uid || fail "explain by uid"
}

step "outside of all: everything is granted"
begin outside "$csmd" --config "$work/outside/csmd.yaml"
serves
expect_equal "status" "$(admin status --json | json identity)" full
for kind in "${!group[@]}"; do
    asked "$kind" "${group[$kind]}" granted web:k $uid_a
done
ok by_exe
asked "a group" "/csm-$id" granted group:k $uid_a $gid_x
asked "root" "/csm-$id" granted root:k 0
asked "a uid's own" "/csm-$id" granted "uid-$uid_c:k" $uid_c
stop

step "in a cgroup namespace: who has a uid is as before"
begin cgroup sh -c 'echo $$ >"$1"; shift; exec unshare --cgroup "$@"' csmd "$cgroup_root/csm-$id/cgroup.procs" \
    "$csmd" --config "$work/cgroup/csmd.yaml"
serves
is_degraded cgroup
asked "a unit by its name as seen from there" "/csm-$id/system.slice/$web" denied web:k $uid_a
asked "a group" "/csm-$id" granted group:k $uid_a $gid_x
asked "root" "/csm-$id" granted root:k 0
asked "a uid's own" "/csm-$id" granted "uid-$uid_c:k" $uid_c
stop

step "in a pid namespace: nobody outside is known but by uid and primary group"
begin pid unshare --pid --fork --mount-proc --kill-child "$csmd" --config "$work/pid/csmd.yaml"
serves
is_degraded pid
asked "a group" "/csm-$id" denied group:k $uid_a $gid_x
asked "a primary group" "/csm-$id" granted group:k $gid_x
asked "root" "/csm-$id" denied root:k 0
asked "a uid's own" "/csm-$id" denied "uid-$uid_c:k" $uid_c
cat >two.py <<'PY'
# Of two processes that both are pid 0 to csmd, one sends on the other's connection.
import os, sys
from csmwire import Conn, become
connector, sender, served = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "served"
os.setgroups([])
os.setegid(connector)
os.seteuid(connector)
c = Conn()
os.seteuid(0)
os.setegid(0)
become(sender)
if served:
    c.call("key.show", {"key": "web:k"})
else:
    c.send("key.show", {"key": "web:k"})
    assert c.ended()
PY
CSM_SOCKET=$node/public/csm.sock py two.py $uid_c $uid_a ended
CSM_SOCKET=$node/public/csm.sock py two.py $uid_c 0 ended
CSM_SOCKET=$node/public/csm.sock py two.py $uid_c $uid_c served

step "there, who is in the same namespace has a uid as ever, and no unit either"
inside=$(pgrep -P "$pid")
CSM_SOCKET=$node/public/csm.sock ok nsenter -t "$inside" -p -m setpriv --reuid $uid_c --regid $uid_c --clear-groups \
    "$work/csm" key create "uid-$uid_c:k"
CSM_SOCKET=$node/public/csm.sock ok nsenter -t "$inside" -p -m "$work/csm" key show root:k
stop

step "in a pid namespace that sees the host's /proc, where the number of a peer is another process's"
begin proc unshare --pid --fork --kill-child "$csmd" --config "$work/proc/csmd.yaml"
serves
is_degraded pid
asked "a uid's own" "/csm-$id" denied "uid-$uid_c:k" $uid_c
stop

step "in a user namespace: a uid that has no number there is nobody"
mkfifo go
begin user unshare --user sh -c 'read -r _ <"$1"; shift; exec "$@"' csmd "$work/go" "$csmd" --config "$work/user/csmd.yaml"
node_await 10 bash -c '[ "$(readlink /proc/$1/ns/user)" != "$(readlink /proc/self/ns/user)" ]' await "$pid"
echo "0 0 $gid_x" >"/proc/$pid/uid_map" # up to uid_c
echo "0 0 $gid_x" >"/proc/$pid/gid_map"
echo >go
serves
is_degraded user
asked "a uid's own" "/csm-$id" denied "uid-$uid_c:k" $uid_c
asked "root" "/csm-$id" denied root:k 0
asked "a group without a number" "/csm-$id" denied group:k $uid_a $gid_x
asked "a uid without a number" "/csm-$id" denied web:k $gid_x
asked "a uid without a number, in its unit" "${group[unit]}" denied web:k $gid_x
expect_equal "it is shown as" \
    "$(CSM_SOCKET=$node/public/csm.sock as_uid $gid_x "$work/csm" whoami --json | field uid)" 65534
stop
