#!/bin/bash
# Any n-th call for memory, a write, a sync, a read, a descriptor, a name, a message, a thread, the TPM or the time fails
# or jumps, while a broker starts for the first time, starts again, works and stops: no crash, no leak, a clear error,
# nothing acknowledged is lost, nothing is half there, and what is asked after the fault is served.
# bound: 400
# bound-long: 3600
# Under the sanitizers, in a broker that tests/fault/faults.c forks. Every place is tried, but for OpenSSL's memory: it sets
# itself up, and reads certificates, by thousands of allocations, of which a part is tried that the seed chooses.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
[ "$(id -u)" -eq 0 ] || { echo "skip: needs root" && exit 77; }
seed=${CSM_SEED:-$RANDOM}
most=30
[ -z "${CSM_LONG:-}" ] || most=0
echo "- seed $seed (CSM_SEED)"
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1}
# Calls that fail are what is looked at, not the disk: syncs need not reach one.
if [ -w /dev/shm ]; then
    TMPDIR=$(mktemp -d -p /dev/shm csm-faults.XXXXXX)
    export TMPDIR
    trap 'rm -rf "$TMPDIR"' EXIT
fi

faults() { # KIND PHASE MOST
    "$top/build/asan/tests/fault/faults" "$top/build/asan/lib/csm/plugins" "$1" "$2" "$3" "$seed"
}
for phase in first start work stop; do
    for kind in malloc openssl mmap write sync read open name socket watch thread clock; do
        case $kind/$phase in
        openssl/first | openssl/start) faults $kind $phase $most ;;
        openssl/work) faults $kind $phase $((most * 5)) ;;
        *) faults $kind $phase 0 ;;
        esac
    done
done
if command -v swtpm >/dev/null; then
    for phase in start work stop; do
        faults tpm $phase 0
    done
    faults tpm first $((most / 4))
fi
case ${TMPDIR:-} in
/dev/shm/*) [ -z "$(ls -A "$TMPDIR")" ] || { echo "left behind: $(ls -A "$TMPDIR")" >&2 && exit 1; } ;;
esac
