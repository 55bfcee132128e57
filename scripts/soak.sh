#!/bin/bash
# Every kind of request on a private node with a TPM for some seconds, with reloads, new connections and new keys in
# between; afterwards csmd's memory, descriptors, threads and the TPM's slots are what they were.
#
# usage: soak.sh SECONDS
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
[ $# -eq 1 ] || { echo "usage: soak.sh SECONDS" >&2 && exit 2; }
exec "$top/scripts/with-node.sh" --backend tpm2 -- env PYTHONPATH="$top/tests/lib" PYTHONDONTWRITEBYTECODE=1 \
    /usr/bin/python3 "$top/tests/system/soak.py" "$1"
