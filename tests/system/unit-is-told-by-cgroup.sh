#!/bin/bash
# A unit is who stands in its cgroup below /system.slice, whatever its uid; the same name elsewhere is nobody.
. "$(dirname "$0")/../lib/system.sh"

root=
for root in /sys/fs/cgroup/unified /sys/fs/cgroup ""; do
    [ ! -w "$root/cgroup.procs" ] || break
done
if [ -z "$root" ] || [ "$(id -u)" -ne 0 ] || [ "$(stat -Lc %i /proc/self/ns/cgroup)" != 4026531835 ]; then
    echo "skip: no unified cgroup hierarchy to make groups in"
    exit 77
fi
in_node --backend soft
if [ "$(csm status --json | json identity)" != full ]; then
    echo "skip: csmd is in a namespace of its own here"
    exit 77
fi

unit=csm-test-$$.service
user=/user.slice/user-$uid_a.slice/user@$uid_a.service
groups=("/system.slice/$unit" "/system.slice/$unit/deep" "/system.slice/x$unit" "$user/app.slice/$unit" "/csm-test-$$/$unit")
clean() {
    local path
    # From the deepest up; what others use stays.
    for path in "${groups[1]}" "${groups[@]}"; do
        while [ "$path" != / ] && rmdir "$root$path" 2>/dev/null; do
            path=$(dirname "$path")
        done
    done
}
trap clean EXIT
mkdir -p "${groups[@]/#/$root}"

# in_group PATH UID COMMAND...
in_group() {
    local path=$1 uid=$2
    shift 2
    (echo "$BASHPID" >"$root$path/cgroup.procs" && as_uid "$uid" "$@")
}
told() { in_group "$1" "$2" csm whoami --json | tr -d '\n' | sed -nE "s/.*\"$3\": *\"?([^\",}]*).*/\1/p"; }

policy <<YAML
version: 1
identities:
  web: {unit: $unit}
  mine: {user_unit: $uid_a/$unit}
namespaces:
  web: {home-of: [web]}
rules:
  - {allow: ["key.*"], to: [web], on: ["web:*"]}
YAML

step "whoever is in the unit has its rights, under any uid, and in what the unit makes below itself"
ok in_group "${groups[0]}" $uid_a csm key create tls
echo data >msg
ok in_group "${groups[0]}" $uid_b csm sign tls msg -o /dev/null
ok in_group "${groups[1]}" $uid_b csm sign tls msg -o /dev/null
expect_equal "unit" "$(told "${groups[1]}" $uid_b unit)" "$unit"
expect_equal "home" "$(told "${groups[1]}" $uid_b namespace)" web

step "nobody else has"
denied as_uid $uid_a csm sign web:tls msg -o /dev/null
denied in_group "${groups[2]}" $uid_a csm sign web:tls msg -o /dev/null
denied in_group "${groups[3]}" $uid_a csm sign web:tls msg -o /dev/null
denied in_group "${groups[4]}" $uid_a csm sign web:tls msg -o /dev/null
expect_equal "a user's unit" "$(told "${groups[3]}" $uid_a user_unit)" "$uid_a/$unit"
expect_equal "is no unit" "$(told "${groups[3]}" $uid_a unit)" ""
