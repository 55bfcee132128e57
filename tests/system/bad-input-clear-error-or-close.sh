#!/bin/bash
# Bad input on the wire: a clear error or a closed connection, never silence, a crash or a leak; and nobody else notices.
# bound: 180
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
broker=$CSM_PID
py "$top/tests/system/bad_input.py"
expect_equal "the broker is still the same process" "$(node_broker_pid "$node")" "$broker"
! grep -qiE 'sanitizer|assert|abort' "$node/csmd.log" || fail "see csmd.log"
