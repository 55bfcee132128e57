#!/bin/bash
# csmd does with every malformed message of proto-spec/vectors what its record says: the error, and whether the
# connection goes on.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
# A copy that every uid can read, wherever the clone lies.
mkdir -p tree/tests tree/proto-spec
cp -r "$top/tests/interop" "$top/tests/vectors" tree/tests
cp -r "$top/proto-spec/vectors" tree/proto-spec
chmod -R a+rX tree
as_uid $uid_a /usr/bin/python3 "$work/tree/tests/interop/vectors_refused.py"
