#!/bin/bash
# Each role of methods.def, on a descriptor that a supervisor hands over, is served its own methods and refused every other
# role's; a descriptor of no single role is closed; without its supervisor the broker ends.
. "$(dirname "$0")/../lib/system.sh"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
mkdir -m 0700 "$dir/state"
chown 59104:59104 "$dir/state"
"$top/build/tests/system/roles_probe" "$top/build/bin/csmd" "$top/build/lib/csm/plugins" "$dir/state" 59104
