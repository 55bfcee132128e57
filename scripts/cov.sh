#!/bin/bash
# Line coverage of daemon, libclient and plugins by the unit, vector and conformance programs, and by those scripts of
# tests/interop and tests/system that say "# coverage" in their heads; fails below the bar. Called by `make cov`, which has built the cov variant. The table stays in build/cov/report.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
bar=85
find build/obj/cov -name '*.gcda' -delete
out=$PWD/build/cov/log
rm -rf "$out"
mkdir -p "$out"

# Every process writes its counts below a folder that every user reaches, wherever the clone lies: the files are there
# before, open to all. Those that stay empty are removed below.
prefix=$(mktemp -d "${TMPDIR:-/tmp}/csm-cov.XXXXXX")
trap 'rm -rf "$prefix"' EXIT
while read -r counts; do
    mkdir -p "$prefix$PWD/${counts%/*}"
    touch "$prefix$PWD/$counts"
done < <(find build/obj/cov -name '*.gcno' | sed 's/gcno$/gcda/')
find "$prefix" -type f -exec chmod 0666 {} +
find "$prefix" -type d -exec chmod 0755 {} +
export GCOV_PREFIX=$prefix

run() { # NAME COMMAND...
    local name=${1//\//_} status=0
    shift
    timeout -k 20 300 "$@" </dev/null >"$out/$name" 2>&1 || status=$?
    # A test may fail here by its time limits; `make check` is where it counts.
    [ "$status" -eq 0 ] || echo "cov.sh: $name: exit status $status" >&2
}
export -f run
export out
tests=()
for program in build/cov/tests/{unit,vectors,conformance}/test_*; do
    [ -x "$program" ] && tests+=("$program")
done
printf '%s\0' "${tests[@]}" | xargs -0 -P 2 -I{} bash -c 'run {} {}'

if [ "$(id -u)" -eq 0 ]; then
    grep -lZE '^# coverage$' tests/interop/*.sh tests/system/*.sh |
        CSM_BUILD=build/cov xargs -0 -P 2 -I{} bash -c 'run {} {}'
fi

cp -r "$prefix$PWD/build/obj/cov/." build/obj/cov
rm -rf "$prefix"
find build/obj/cov -name '*.gcda' -empty -delete
gcovr --root . --object-directory build/obj/cov --filter 'daemon/' --filter 'libclient/' --filter 'plugins/' \
    --exclude 'build/' --exclude-unreachable-branches --gcov-ignore-parse-errors \
    --txt build/cov/report.txt --json-summary build/cov/summary.json build/obj/cov >"$out/gcovr" 2>&1 ||
    { tail -n 20 "$out/gcovr" && exit 1; }
cat build/cov/report.txt
percent=$(/usr/bin/python3 -c 'import json; print(json.load(open("build/cov/summary.json"))["line_percent"])')
echo "line coverage: $percent %, the bar is $bar %"
awk -v got="$percent" -v bar="$bar" 'BEGIN { exit !(got >= bar) }'
