#!/bin/bash
# The budget: no function over 100 lines, at most one in ten over 40, no file over 700.
#
# usage: check-size.sh [ROOT]
set -euo pipefail
root=${1:-$(dirname "$0")/..}
cd "$root"

mapfile -t files < <(find daemon libclient plugins tests -name '*.c' 2>/dev/null | LC_ALL=C sort)
mapfile -t others < <(find daemon libclient plugins tests scripts proto-spec \
    \( -name '*.h' -o -name '*.sh' -o -name '*.py' -o -name '*.def' \) 2>/dev/null | LC_ALL=C sort)
failed=0

for file in "${files[@]}" "${others[@]}"; do
    lines=$(wc -l <"$file")
    if [ "$lines" -gt 700 ]; then
        echo "$file: $lines lines, at most 700"
        failed=1
    fi
done

if [ ${#files[@]} -gt 0 ]; then
    ctags -f - --languages=C --kinds-C=f --fields=+ne "${files[@]}" | awk -F '\t' '
    {
        start = end = 0
        for (i = 4; i <= NF; i++) {
            if ($i ~ /^line:/) start = substr($i, 6)
            if ($i ~ /^end:/) end = substr($i, 5)
        }
        if (end == 0)
            next
        lines = end - start + 1
        all++
        if (lines > 100) {
            printf "%s: %s has %d lines, at most 100\n", $2, $1, lines
            failed = 1
        }
        if (lines > 40)
            long[++n] = sprintf("%s: %s has %d lines", $2, $1, lines)
    }
    END {
        if (n * 10 > all) {
            for (i = 1; i <= n; i++)
                print long[i]
            printf "%d of %d functions have more than 40 lines, at most one in ten may\n", n, all
            failed = 1
        }
        exit failed
    }' || failed=1
fi
exit "$failed"
