#!/bin/bash
# Half messages, connections that send nothing, readers that do not read, a flood from one uid: others are all answered,
# none after more than 250 ms, memory is bounded, deadlines end the idlers, the administrator gets in. 100 connections,
# with CSM_LONG 1,000. Prints how much others' p99 grows, as `make bench` does.
# alone
# bound: 240
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
ulimit -n 8192
cp "$node_build/tests/bench/load" "$CSM_NODE_DIR/load"
chmod 755 "$CSM_NODE_DIR/load"
py "$top/tests/system/slow_peers.py"
