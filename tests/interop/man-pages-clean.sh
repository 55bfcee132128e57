#!/bin/bash
# The manual pages come out of groff without a warning, and those of csm name every command of `csm help`.
. "$(dirname "$0")/../lib/system.sh"
cd "$top"
found=0
for page in daemon/{node,enrol,deliver}/*.[1-8] libclient/cli/*.[1-8] libclient/client/*.[1-8] libclient/p11/*.[1-8] libclient/provider/*.[1-8] build/man/*.[1-8]; do
    [ -e "$page" ] || continue
    warnings=$(groff -man -Tutf8 -ww -z "$page" 2>&1)
    [ -z "$warnings" ] || fail "$page: $warnings"
    found=$((found + 1))
done
[ "$found" -ge 2 ] || fail "$found manual pages"
