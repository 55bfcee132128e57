#!/bin/bash
# Measures csm beside what people would use in its place, in one run on this machine: tests/bench/bench.py says what.
#
# usage: bench.sh [--rounds N] [--seconds S] [GROUP...]       (see bench.py --help)
#
# Two private nodes (soft, tpm2) and every peer, each in a folder of its own, taken down at the end. The release build
# is measured, the table goes to stdout and everything measured to build/bench.json.
set -euo pipefail
cd "$(dirname "$0")/.."

# A token for a back end of the first node, which has a process and a user of its own.
token=$(mktemp -d "${TMPDIR:-/tmp}/csm-bench.XXXXXX")
trap 'rm -rf "$token"' EXIT
scripts/examples/hsm/softhsm.sh "$token" 59111 bench >"$token/csmd.yaml"

scripts/with-node.sh --backend soft --config "$token/csmd.yaml" -- \
    bash -c 'BENCH_SOFT_DIR=$CSM_NODE_DIR BENCH_SOFT_SOCKET=$CSM_SOCKET BENCH_SOFT_BROKER=$CSM_PID \
        exec scripts/with-node.sh --backend tpm2 -- /usr/bin/python3 tests/bench/bench.py "$@"' bench "$@"
