#!/bin/bash
# Half a message, 1,000 connections that send nothing, readers that do not read: others are all answered, their p99 under
# twice that of an idle csmd, memory is bounded, deadlines end the idlers, the administrator gets in.
# alone
# bound: 240
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
ulimit -n 8192
py "$top/tests/system/slow_peers.py"
