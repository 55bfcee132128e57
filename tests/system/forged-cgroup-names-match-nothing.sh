#!/bin/bash
# A user who may make cgroups (a subtree was delegated to him) gives them the names of units, pods and containers: he is
# none of these, and gets nothing that is theirs. Nor does a name with odd bytes, or one that looks like a deleted group.
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/spaces.sh"
need_cgroups
need_namespaces
in_node --backend soft

id=$(printf '%08d' $$) # our own, whatever else runs on this machine; so is the user whose whole subtree goes in the end
uid_a=$((66000 + $$ % 30000))
web=csm-web-$id.service
pod=a0000000-1111-2222-3333-4444$id
box=$(printf 'b%.0s' {1..56})$id
kube=/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${pod//-/_}.slice
scope=$kube/cri-containerd-$box.scope
manager=/user.slice/user-$uid_a.slice/user@$uid_a.service
unit=/system.slice/csm-own-$id.service
own=("/csm-$id" "$manager" "$unit")
make_groups "/system.slice/$web" "$scope" "/system.slice/docker-$box.scope" "${own[@]}"
for group in "${own[@]}"; do
    chown "$uid_a:$uid_a" "$cgroup_root$group"{,/cgroup.procs,/cgroup.subtree_control}
done
# Made by root, in root's places, and still no unit, pod or container.
roots=("/system.slice/$web (deleted)" "/system.slice/$web/deep (deleted)" "/system.slice/$web.d"
    "/system.slicex/$web" "/machine.slice/$web" "$kube (deleted)" "${kube/_1111_/-1111-}"
    "/kubepods.slice/${kube##*/}" "/system.slice/docker-$box.scope.x" "/docker-$box.scope" "/init.scope/$web"
    "/system.slice/csm web-$id.service" $'/system.slice/\e[31mcsm-'"$id.service" $'/system.slice/csm\xff'"$id.service"
    "/0::/system.slice/$web")
make_groups "${roots[@]}"

policy <<YAML
version: 1
default: uid-namespaces
identities:
  web: {unit: $web}
  pod: {pod: $pod}
  box: {container: $box}
  any: {pod: "*"}
  boxes: {container: "*"}
  units: {unit: "csm-web*"}
  odd: {unit: "csm*$id.service*"}
  other: {user_unit: "$uid_b/*"}
namespaces:
  web: {home-of: [web, units]}
rules:
  - {allow: ["*"], to: [web, pod, box, any, boxes, units, other], on: ["web:*"]}
YAML
in_group "/system.slice/$web" "$uid_b" csm key create k >/dev/null

cp "$top/tests/lib/csmwire.py" . && chmod 644 csmwire.py
cat >forge.py <<'PY'
import os, sys
from csmwire import Conn, as_uid, become, refused
root, web, scope, box, uid_a, uid_b = sys.argv[1:]
uid_a, uid_b = int(uid_a), int(uid_b)
own = os.environ["OWN"].split("|")
roots = os.environ["ROOTS"].split("|")

def enter(path, make=False):
    if make:
        os.makedirs(root + path, exist_ok=True)
    with open(root + path + "/cgroup.procs", "w") as f:
        f.write("0")

def expect_nobody(path, unit=None):
    c = Conn()
    who = c.call("whoami")
    got = {k: who[k] for k in ("unit", "pod", "container") if who.get(k)}
    assert got == ({"unit": unit} if unit else {}), (path, who)
    assert set(who["identities"]) <= {"odd"} if unit else not who["identities"], (path, who)
    assert who.get("namespace") == "uid-%d" % who["uid"], (path, who)
    for method, params in (("key.show", {"key": "web:k"}), ("key.sign", {"key": "web:k", "message": b"x"}),
                           ("key.create", {"key": "web:new"}), ("key.list", {"namespace": "web"})):
        refused("denied", c.call, method, params)
    c.close()

def child(function):
    """In a process of its own, as root."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException:  # pylint: disable=broad-except
            import traceback
            traceback.print_exc()
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0

def honest():
    enter("/system.slice/" + web)
    become(uid_b)
    c = Conn()
    assert c.call("whoami")["namespace"] == "web"
    c.call("key.sign", {"key": "k", "message": b"x"})

# What a user may try below a subtree of his: whole paths of others, and names with odd bytes.
FORGED = ["/system.slice/" + web, "/system.slice/" + web + "/system.slice/" + web, "/" + web, scope, "/docker/" + box,
          "/system.slice/docker-%s.scope" % box, "/machine.slice/libpod-%s.scope/container" % box,
          "/system.slice\\x2f" + web, "/..\\x2f..\\x2fsystem.slice\\x2f" + web, "/ system.slice/" + web,
          "/0::/system.slice/" + web, "/0::", "/" + web + " (deleted)", "/system.slice/" + web + "\t",
          "/system.slice/\x1b[2K\r0::", "/\r/system.slice/" + web,
          "/..." + "/system.slice/" + web, "/%2e%2e/system.slice/" + web, "/\u2215system.slice\u2215" + web,
          "/" + "a" * 255 + "/" + web, "/x.slice/x-y.slice/" + web]

def unit_of(home):
    return home.split("/")[2] if home.startswith("/system.slice/") else None

def forge(home, path):
    enter(home) # the delegation: root puts the user's first process there
    become(uid_a)
    enter(home + path, make=True)
    # Of a group that may be gone nothing is told at all.
    expect_nobody(home + path, None if path.endswith(" (deleted)") else unit_of(home))

def not_made(home):
    """What the kernel does not let him do."""
    enter(home)
    become(uid_a)
    for name in ("a\n0::/system.slice/" + web, "\n", "..", ".", "x/../../" + web):
        try:
            os.mkdir(root + home + "/" + name)
        except OSError:
            continue
        raise AssertionError("made: %r" % name)
    for path in ("/system.slice/" + web, scope):
        for attempt in (lambda: enter(path), lambda: os.mkdir(root + path + "/mine")):
            try:
                attempt()
            except OSError:
                continue
            raise AssertionError("a user may enter " + path)
    expect_nobody(home, unit_of(home))

done = 0
for home in own:
    for path in FORGED:
        child(lambda: forge(home, path))
        child(honest)
        done += 1
    child(lambda: not_made(home))
for path in roots:
    def by_root():
        enter(path)
        become(uid_a)
        expect_nobody(path)
    child(by_root)
    child(honest)
    done += 1
print(done, "forged")
PY
step "in a subtree of his own, as his service manager, as a unit that has its subtree delegated; and root's near misses"
join() { local IFS='|' && printf '%s' "$*"; }
OWN=$(join "${own[@]}") ROOTS=$(join "${roots[@]}") PYTHONIOENCODING=utf-8:surrogateescape \
    py forge.py "$cgroup_root" "$web" "$scope" "$box" "$uid_a" "$uid_b"

step "and with namespaces of his own, in which his group is the root of all"
cat >hidden.sh <<'SH'
set -e
[ "$(tail -n 1 /proc/self/cgroup)" = 0::/ ]
mkdir -p mnt && mount -t cgroup2 none mnt
mkdir -p "mnt/system.slice/$1"
echo $$ >"mnt/system.slice/$1/cgroup.procs"
[ "$(tail -n 1 /proc/self/cgroup)" = "0::/system.slice/$1" ]
csm --trust-overflow whoami --json
csm --trust-overflow key show web:k && exit 9
[ $? -eq 3 ]
SH
mkdir -m 777 mnt
in_group "/csm-$id" "$uid_a" unshare --user --map-root-user --mount --cgroup bash hidden.sh "$web" >out 2>err ||
    fail "$(cat out err)"
! grep -qE 'unit|pod|container|"web"' out || fail "$(cat out)"
grep -q "\"uid\": $uid_a" out || fail "$(cat out)"
