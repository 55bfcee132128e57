#!/bin/bash
# Run one fuzz target for some seconds. It starts from tests/fuzz/seeds/TARGET and from every record of
# proto-spec/vectors, and keeps what it learns in build/fuzz/corpus/TARGET. A finding stays in build/fuzz/found/.
#
# usage: fuzz.sh TARGET SECONDS
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 2 ] || { echo "usage: fuzz.sh TARGET SECONDS" >&2 && exit 2; }
target=$1 seconds=$2
program=build/fuzz/tests/fuzz/fuzz_$target
[ -x "$program" ] || { echo "fuzz.sh: no $program: run make fuzz" >&2 && exit 2; }

corpus=build/fuzz/corpus/$target
mkdir -p "$corpus" build/fuzz/found
seeds=()
[ ! -d "tests/fuzz/seeds/$target" ] || seeds+=("tests/fuzz/seeds/$target")
case $target in
policy | config | yaml | ident | keyref | cert | csr | enrol | ocsp | attest | dbrec | est | rest | enrolled) ;; # these read something else than messages
*)
    vectors=build/fuzz/vectors-$target
    scripts/fuzz-seeds.sh "$vectors"
    seeds+=("$vectors")
    ;;
esac
options=()
[ ! -e "tests/fuzz/$target.dict" ] || options+=("-dict=tests/fuzz/$target.dict")

# -timeout is by the clock on the wall, and others may be at work on this machine.
log=build/fuzz/$target.log
status=0
ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1} timeout -k 20 $((seconds + 90)) \
    "$program" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="build/fuzz/found/$target-" "${options[@]}" "$corpus" "${seeds[@]}" >"$log" 2>&1 || status=$?
if [ "$status" -ne 0 ]; then
    tail -n 60 "$log"
    echo "fuzz.sh: $target ended with status $status; the whole of it is in $log"
    exit 1
fi
runs=$(sed -nE 's/^stat::number_of_executed_units: ([0-9]+)/\1/p' "$log")
covered=$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1)
echo "$target: ${runs:-0} runs in $seconds s, ${covered:-no coverage}"
# A target that dies on its first bytes, or is built without coverage, would pass for ever.
[ "${runs:-0}" -ge 100 ] && [ -n "$covered" ]
