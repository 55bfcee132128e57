#!/bin/bash
# Measures csm beside what people would use in its place, in one run on this machine: tests/bench/bench.py says what.
#
# usage: bench.sh [--rounds N] [--seconds S] [GROUP...]       (see bench.py --help)
#
# Two private nodes (soft, tpm2) and every peer, each in a folder of its own, taken down at the end. The release build
# is measured, the table goes to stdout and everything measured to build/bench.json.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/with-node.sh --backend soft -- \
    bash -c 'BENCH_SOFT_DIR=$CSM_NODE_DIR BENCH_SOFT_SOCKET=$CSM_SOCKET BENCH_SOFT_BROKER=$CSM_PID \
        exec scripts/with-node.sh --backend tpm2 -- /usr/bin/python3 tests/bench/bench.py "$@"' bench "$@"
