#!/bin/bash
# Writes every record of proto-spec/vectors to OUTDIR, one file of raw bytes each: the fuzzers' seeds.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: fuzz-seeds.sh OUTDIR" >&2
    exit 2
fi
out=$1
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$out"
awk '/^name: /{name = $2} /^hex: /{print name, $2}' "$here"/proto-spec/vectors/*.txt |
    /usr/bin/python3 -c '
import os, sys
for line in sys.stdin:
    name, _, digits = line.rstrip("\n").partition(" ")
    with open(os.path.join(sys.argv[1], name), "wb") as f:
        f.write(bytes.fromhex(digits))
' "$out"
