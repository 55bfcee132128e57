#!/bin/bash
# csmd does with every malformed message of proto-spec/vectors what its record says: the error, and whether the
# connection goes on.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
as_uid $uid_a /usr/bin/python3 "$top/tests/interop/vectors_refused.py"
