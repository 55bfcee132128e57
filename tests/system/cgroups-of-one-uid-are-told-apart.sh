#!/bin/bash
# Processes of one uid in two units, pods or containers are two: each has the home that policy gives it, and none gets
# what is another's. Outside of them the uid is one more.
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/spaces.sh"
need_cgroups
in_node --backend soft

id=$(printf '%08d' $$) # our own, whatever else runs on this machine
pod() { printf '%s0000000-1111-2222-3333-4444%s' "$1" "$id"; }
box() { printf "$1%.0s" {1..56} && printf '%s' "$id"; }
slice() { printf '/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod%s.slice' "$(pod "$1" | tr - _)"; }
user=/user.slice/user-$uid_a.slice/user@$uid_a.service/app.slice

declare -A group=(
    [unit-a]=/system.slice/csm-a-$id.service
    [unit-b]=/system.slice/csm-b-$id.service
    [pod-a]=$(slice a)/cri-containerd-$(box a).scope
    [pod-b]=$(slice b)/cri-containerd-$(box a).scope
    [box-a]=/system.slice/docker-$(box b).scope
    [box-b]=/machine.slice/libpod-$(box c).scope/container
    [in-a]=$(slice c)/crio-$(box d).scope
    [in-b]=$(slice c)/crio-$(box e).scope
    [user-a]=$user/csm-a-$id.service
    [user-b]=$user/csm-b-$id.service
)
make_groups "${group[@]}"
names=("${!group[@]}")

policy <<YAML
version: 1
default: uid-namespaces
identities:
  unit-a: {unit: csm-a-$id.service}
  unit-b: {unit: csm-b-$id.service, uid: $uid_a}
  pod-a: {pod: $(pod a)}
  pod-b: {pod: $(pod b), container: "*", gid: $uid_a}
  box-a: {container: $(box b), uid: $uid_a}
  box-b: {container: $(box c)}
  in-a: {pod: $(pod c), container: $(box d)}
  in-b: {pod: $(pod c), container: $(box e)}
  user-a: {user_unit: $uid_a/csm-a-$id.service}
  user-b: {user_unit: $uid_a/csm-b-$id.service, uid: $uid_a}
namespaces:
$(for name in "${names[@]}"; do echo "  $name: {home-of: [$name]}"; done)
rules:
$(for name in "${names[@]}"; do echo "  - {allow: [\"*\"], to: [$name], on: [\"$name:*\"]}"; done)
YAML

step "each has its home, and is told what it is"
for name in "${names[@]}"; do
    expect_equal "home of $name" "$(group_told "${group[$name]}" $uid_a namespace)" "$name"
    expect_equal "identities of $name" "$(group_told "${group[$name]}" $uid_a identities)" "[\"$name\"]"
    ok in_group "${group[$name]}" $uid_a csm key create k
    ok in_group "${group[$name]}" $uid_a csm domain create d
    ok in_group "${group[$name]}" $uid_a csm secret set d/s v="$name"
done
as_uid $uid_a csm key create k >/dev/null
expect_equal "outside" "$(as_uid $uid_a csm whoami --json | field namespace)" "uid-$uid_a"

step "a bare name is one's own; another's is forbidden, by every other one of the same uid"
echo data >msg
for name in "${names[@]}"; do
    expect_equal "secret of $name" "$(in_group "${group[$name]}" $uid_a csm secret get d/s v)" "$name"
    for other in "${names[@]}"; do
        [ "$name" != "$other" ] || continue
        denied in_group "${group[$name]}" $uid_a csm secret get "$other:d/s" v
    done
    denied as_uid $uid_a csm sign "$name:k" msg -o /dev/null
    denied as_uid $uid_a csm secret get "$name:d/s" v
done

step "what is not in a container or pod of the host's keeps the namespace of its uid; in one it has none"
ok in_group "${group[unit-a]}" $uid_a csm key show "uid-$uid_a:k"
ok in_group "${group[user-a]}" $uid_a csm key show "uid-$uid_a:k"
for name in pod-a pod-b box-a box-b in-a in-b; do
    denied in_group "${group[$name]}" $uid_a csm key show "uid-$uid_a:k"
done

step "the same groups under another uid: what the identity says decides"
expect_equal "unit-a" "$(group_told "${group[unit-a]}" $uid_b namespace)" unit-a
expect_equal "unit-b" "$(group_told "${group[unit-b]}" $uid_b namespace)" "uid-$uid_b"
expect_equal "pod-b" "$(group_told "${group[pod-b]}" $uid_b namespace)" ""
expect_equal "box-a" "$(group_told "${group[box-a]}" $uid_b namespace)" ""

step "who moves to another group keeps what it was when it connected; its next connection is judged anew"
cp "$top/tests/lib/csmwire.py" . && chmod 644 csmwire.py
cat >move.py <<'PY'
import os, sys
from csmwire import Conn, become, refused
procs, uid = sys.argv[1], int(sys.argv[2])
there = os.open(procs, os.O_WRONLY) # as root: who moves a process needs not be that process
become(uid)
# As many as make sure that old and new ones meet on each of csmd's loops.
before = [Conn() for _ in range(2 * os.cpu_count())]
for c in before:
    assert c.call("whoami")["namespace"] == "unit-a"
os.write(there, b"0")
after = [Conn() for _ in range(2 * os.cpu_count())]
for c in before:
    assert c.call("whoami")["namespace"] == "unit-a"
for c in after:
    assert c.call("whoami")["namespace"] == "unit-b", c.call("whoami")
    refused("denied", c.call, "key.show", {"key": "unit-a:k"})
    c.call("key.show", {"key": "k"})
PY
PYTHONPATH=$work PYTHONDONTWRITEBYTECODE=1 in_group "${group[unit-a]}" 0 \
    /usr/bin/python3 move.py "$cgroup_root${group[unit-b]}/cgroup.procs" $uid_a
