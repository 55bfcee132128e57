#!/bin/bash
# Words that do not belong in the tree: work left for later, the paths of one machine, numbers of a tracker; pipes that end too soon.
#
# usage: check-words.sh [ROOT]
set -euo pipefail
root=${1:-$(dirname "$0")/..}
cd "$root"

later='TO''DO|FIX''ME|X''XX|HA''CK'
pattern="\\b($later)\\b"
pattern+='|(^|[^[:alnum:]_.~-])/(wo''rk|fa''rm|ro''ot|ho''me)/|/tmp/w''-|\biss''ue #?[0-9]+|(^|[^&[:alnum:]])#[0-9]{1,4}\b'
found=$(find . -type f -not -path './.git/*' -not -path './build/*' -not -name '*.bin' -print0 |
    xargs -0 -r grep -IHnE "$pattern" || true)
# Trailing white space and carriage returns in text.
blank=$(find . -type f \( -name '*.[ch]' -o -name '*.def' -o -name '*.sh' -o -name '*.py' -o -name Makefile \) \
    -not -path './.git/*' -not -path './build/*' -print0 | xargs -0 -r grep -IHnE '[[:space:]]$' || true)
# `grep -q` goes at the first hit, and by pipefail a command that still writes to it has failed: into a file first, or `contains`.
early=$(find . -type f -name '*.sh' -not -path './.git/*' -not -path './build/*' -print0 |
    xargs -0 -r grep -HnE '[^|]\| *grep +(-[A-Za-z]+ +)*-[A-Za-z]*q' || true)
if [ -n "$found$blank$early" ]; then
    printf '%s\n' "$found" "$blank" "$early" | sed '/^$/d'
    exit 1
fi
