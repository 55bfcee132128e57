#!/bin/bash
# Half a message, 1,000 connections that send nothing, readers that do not read: others are all answered, none after more
# than 250 ms, memory is bounded, deadlines end the idlers, the administrator gets in. Prints how much others' p99 grows,
# as `make bench` does.
# alone
# bound: 240
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
ulimit -n 8192
py "$top/tests/system/slow_peers.py"
