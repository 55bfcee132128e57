#!/bin/bash
# A unit is who stands in its cgroup below /system.slice, whatever its uid; the same name elsewhere is nobody.
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/spaces.sh"
need_cgroups
in_node --backend soft

unit=csm-test-$$.service
user=/user.slice/user-$uid_a.slice/user@$uid_a.service
groups=("/system.slice/$unit" "/system.slice/$unit/deep" "/system.slice/x$unit" "$user/app.slice/$unit" "/csm-test-$$/$unit")
make_groups "${groups[@]}"

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
expect_equal "unit" "$(group_told "${groups[1]}" $uid_b unit)" "$unit"
expect_equal "home" "$(group_told "${groups[1]}" $uid_b namespace)" web

step "nobody else has"
denied as_uid $uid_a csm sign web:tls msg -o /dev/null
denied in_group "${groups[2]}" $uid_a csm sign web:tls msg -o /dev/null
denied in_group "${groups[3]}" $uid_a csm sign web:tls msg -o /dev/null
denied in_group "${groups[4]}" $uid_a csm sign web:tls msg -o /dev/null
expect_equal "a user's unit" "$(group_told "${groups[3]}" $uid_a user_unit)" "$uid_a/$unit"
expect_equal "is no unit" "$(group_told "${groups[3]}" $uid_a unit)" ""

step "the audit log tells where each of them was"
told() { grep -qE "$1" "$node/state/audit/audit.log" || fail "no line with $1"; }
told "\"change\",\"method\":\"key.create\",\"uid\":$uid_a,\"pid\":[0-9]+,\"unit\":\"$unit\",\"object\":\"web:tls\",\"result\":\"ok\""
told "\"denied\",\"method\":\"key.sign\",\"uid\":$uid_a,\"pid\":[0-9]+,\"unit\":\"x$unit\",\"object\":\"web:tls\""
told "\"denied\",\"method\":\"key.sign\",\"uid\":$uid_a,\"pid\":[0-9]+,\"user_unit\":\"$uid_a/$unit\",\"object\":\"web:tls\""
told "\"denied\",\"method\":\"key.sign\",\"uid\":$uid_a,\"pid\":[0-9]+,\"object\":\"web:tls\""
csm audit tail -n 40 | contains "uid=$uid_a pid=[0-9]* unit=$unit\$" || fail "tail does not tell"
