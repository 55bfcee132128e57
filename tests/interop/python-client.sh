#!/bin/bash
# A client in Python that has nothing but the msgpack module and PROTOCOL.md does the main job.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
/usr/bin/python3 "$top/tests/interop/python_client.py"
as_uid $uid_a /usr/bin/python3 - <"$top/tests/interop/python_client.py"
