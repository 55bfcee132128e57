#!/bin/bash
# One linter, or all of them. A C file that was clean and has not changed since, nor any header, is not read again.
#
# usage: lint.sh [layers|calls|size|words|shell|python|tidy|cppcheck]...      (LINT_CFLAGS: how the tree is compiled)
set -euo pipefail
cd "$(dirname "$0")/.."
stamps=build/lint
flags=${LINT_CFLAGS:?run make lint}
jobs=$(nproc)

lint_layers() { scripts/check-layers.sh; }
lint_calls() { scripts/check-calls.sh; }
lint_size() { scripts/check-size.sh; }
lint_words() { scripts/check-words.sh; }

lint_shell() {
    find scripts tests .ci proto-spec -type f -print0 | LC_ALL=C sort -z |
        xargs -0 awk 'FNR == 1 { if (/^#!\/bin\/(ba)?sh|^# shellcheck shell=/) print FILENAME; nextfile }' | xargs shellcheck
}

lint_python() {
    find scripts tests proto-spec -name '*.py' -print0 |
        xargs -0 -r /usr/bin/python3 -c 'import sys
for path in sys.argv[1:]:
    compile(open(path, encoding="utf-8").read(), path, "exec")'
}

# Some functions have more states than the analyzer looks at by default, 225,000, and took half of its time; with
# CSM_LONG=1 it looks at as many.
budget='' read_as=tidy-long
[ -n "${CSM_LONG:-}" ] || read_as=tidy budget='-Xclang -analyzer-config -Xclang max-nodes=75000'

tidy_one() {
    local file=$1 stamp output
    stamp=$stamps/${file//\//_}.$read_as
    if [ -e "$stamp" ] && [ "$stamp" -nt "$file" ] && [ ! "$stamps/headers" -nt "$stamp" ]; then
        return 0
    fi
    rm -f "$stamp"
    if ! output=$(eval "clang-tidy --quiet \"$file\" -- $flags $budget -Wno-unknown-warning-option" 2>&1); then
        grep -vE '^[0-9]+ warnings? generated|^Suppressed|^Use -header-filter' <<<"$output"
        return 1
    fi
    : >"$stamp"
}

lint_tidy() {
    mkdir -p "$stamps"
    # The newest of what all files depend on.
    newest=$(find .clang-tidy daemon libclient plugins proto-spec tests \
        \( -name '*.h' -o -name '*.def' -o -name .clang-tidy \) -printf '%T@ %p\n' | sort -rn | head -1 | cut -d' ' -f2-)
    touch -r "$newest" "$stamps/headers"
    export -f tidy_one
    export stamps flags budget read_as
    find daemon libclient plugins tests -name '*.c' | LC_ALL=C sort |
        xargs -P "$jobs" -I{} bash -c 'tidy_one {}'
}

lint_cppcheck() {
    mkdir -p "$stamps/cppcheck"
    cppcheck --quiet --std=c11 --language=c --enable=warning,portability,performance --inline-suppr \
        --error-exitcode=1 -j "$jobs" --cppcheck-build-dir="$stamps/cppcheck" \
        --suppress=missingIncludeSystem --suppressions-list=scripts/lint/cppcheck.allow \
        -I. -Ibuild/gen -D_GNU_SOURCE -D__linux__ daemon libclient plugins
}

all=(layers calls size words shell python tidy cppcheck)
[ $# -gt 0 ] || set -- "${all[@]}"
failed=()
for linter in "$@"; do
    "lint_$linter" || failed+=("$linter")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "lint: ${failed[*]}" >&2
    exit 1
fi
