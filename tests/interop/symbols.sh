#!/bin/bash
# libcsm exports what csm.h declares and nothing else: the list in tests/unit/libcsm.symbols is the ABI. A program in C
# and one in C++ build against the header and link with the library.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

nm -D --defined-only build/lib/libcsm.so.0 | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort >"$work/exported"
diff tests/unit/libcsm.symbols "$work/exported" || { echo "FAILED: the exported symbols have changed" >&2; exit 1; }
sed '/^typedef/d' libclient/include/csm/csm.h | grep -oE '\bcsm_[a-z_0-9]+\(' | tr -d '(' | LC_ALL=C sort -u >"$work/declared"
diff "$work/declared" "$work/exported" || { echo "FAILED: csm.h and the library differ" >&2; exit 1; }

# The module exports what the standard names, and nothing of what it is made from.
nm -D --defined-only build/lib/pkcs11/csm-pkcs11.so | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort >"$work/p11"
sed -n 's/^\t\(C_[A-Za-z0-9]*\);$/\1/p' libclient/p11/csm-pkcs11.map | LC_ALL=C sort >"$work/standard"
diff "$work/standard" "$work/p11" || { echo "FAILED: csm-pkcs11.so exports something else" >&2; exit 1; }
[ "$(wc -l <"$work/p11")" -eq 92 ] || { echo "FAILED: the standard has 92 functions" >&2; exit 1; }

# A name that is not in the list is found: the comparison can fail.
echo csm_more >>"$work/exported"
! diff -q tests/unit/libcsm.symbols "$work/exported" >/dev/null || { echo "FAILED: diff" >&2; exit 1; }

mkdir -p "$work/include/csm"
cp libclient/include/csm/csm.h build/gen/csm/errors.h "$work/include/csm/"
cat >"$work/p.c" <<'C'
#include <csm/csm.h>
#include <stdio.h>
int main(void)
{
	struct csm *csm = NULL;

	if (csm_new(&csm) != 0 || csm_set_socket(csm, "/nonexistent") != 0)
		return 1;
	if (csm_ping(csm) != CSM_EUNREACHABLE)
		return 2;
	puts(csm_error_message());
	csm_free(csm);
	return 0;
}
C
cp "$work/p.c" "$work/p.cc"
for compiler in "gcc -std=c99 -pedantic" "g++ -std=c++11"; do
    [ "${compiler%% *}" = gcc ] && source=$work/p.c || source=$work/p.cc
    command -v "${compiler%% *}" >/dev/null || continue
    $compiler -Wall -Wextra -Werror -I"$work/include" "$source" -o "$work/p" -Lbuild/lib -lcsm -Wl,-rpath,"$PWD/build/lib"
    "$work/p" >/dev/null
done
