#!/bin/bash
# Each rule of the tree is broken once in a small tree of its own: the check must fail and name the place. The
# same tree without the fault must pass.
set -euo pipefail
cd "$(dirname "$0")/../.."
tree=$(mktemp -d "${TMPDIR:-/tmp}/csm-lint.XXXXXX")
trap 'rm -rf "$tree"' EXIT

fresh() {
    rm -rf "${tree:?}"/*
    mkdir -p "$tree"/{daemon/svc,daemon/node,libclient/base,libclient/cli,plugins/soft,plugins/tpm2,scripts/lint,tests/unit}
    printf '#include <stdio.h>\nint one(void)\n{\n\treturn 1;\n}\n' >"$tree/daemon/svc/a.c"
    printf '#include "daemon/svc/a.h"\n#include <event2/event.h>\n' >"$tree/daemon/node/b.c"
    printf '/* strcpy( in a comment */\nstatic const char *s = "gets(";\n' >"$tree/libclient/base/c.c"
}

# breaks CHECK EXPECTED: CHECK fails on the tree and its output has EXPECTED
breaks() {
    local output status=0
    output=$("scripts/$1" "$tree" 2>&1) || status=$?
    if [ "$status" -eq 0 ] || ! grep -qF -- "$2" <<<"$output"; then
        echo "$1 passed a tree that breaks its rule (wanted: $2)"
        printf '%s\n' "$output"
        exit 1
    fi
    fresh
}

fresh
for check in check-layers.sh check-calls.sh check-size.sh check-words.sh; do
    "scripts/$check" "$tree"
done

# layers: up, sideways, a library out of place, an unknown library, an unknown folder
echo '#include "daemon/node/b.h"' >>"$tree/daemon/svc/a.c"
breaks check-layers.sh 'daemon/svc must not see daemon/node'
echo '#include "plugins/tpm2/tpm.h"' >"$tree/plugins/soft/soft.c"
breaks check-layers.sh 'plugins/soft must not see plugins/tpm2'
echo '#include "daemon/svc/a.h"' >"$tree/libclient/cli/x.c"
breaks check-layers.sh 'libclient/cli must not see daemon/svc'
echo '  #  include <openssl/evp.h>' >"$tree/libclient/base/d.c"
breaks check-layers.sh '<openssl/evp.h> has no business here'
echo '#include <tss2/tss2_sys.h>' >>"$tree/daemon/svc/a.c"
breaks check-layers.sh '<tss2/tss2_sys.h> has no business here'
echo '#include <lmdb.h>' >>"$tree/daemon/svc/a.c"
breaks check-layers.sh '<lmdb.h> has no business here'
echo '#include <glib.h>' >>"$tree/daemon/svc/a.c"
breaks check-layers.sh '<glib.h> is not in the table'
mkdir "$tree/daemon/other" && echo >"$tree/daemon/other/x.c"
breaks check-layers.sh 'no layer knows this folder'
mkdir "$tree/vendor"
breaks check-layers.sh 'not a folder of this tree'

# calls
for call in strcpy sprintf system popen alloca atoi strtok rand; do
    echo "void f(void) { $call(x); }" >>"$tree/daemon/svc/a.c"
    breaks check-calls.sh "a.c:6: $call"
done
echo 'void f(void) { assert(n++ < 3); }' >>"$tree/daemon/svc/a.c"
breaks check-calls.sh 'assert-with-effect'
echo 'void f(void) { assert((n = g()) == 3); }' >>"$tree/daemon/svc/a.c"
breaks check-calls.sh 'assert-with-effect'
echo 'daemon/svc/a.c system 1 no longer there' >"$tree/scripts/lint/calls.allow"
breaks check-calls.sh 'allowed and not there any more'

# sizes
{ echo 'int big(void)'; echo '{'; for _ in $(seq 100); do echo '	one();'; done; echo '}'; } >"$tree/daemon/svc/big.c"
breaks check-size.sh 'big has 103 lines, at most 100'
{ echo 'int big(void)'; echo '{'; for _ in $(seq 50); do echo '	one();'; done; echo '}'; } >"$tree/daemon/svc/big.c"
breaks check-size.sh '1 of 2 functions have more than 40 lines'
seq 701 | sed 's/.*//' >"$tree/daemon/svc/long.c"
breaks check-size.sh 'long.c: 701 lines'

# words
echo "/* TO""DO later */" >"$tree/daemon/svc/w.c"
breaks check-words.sh 'w.c:1:'
echo "/* see iss""ue 12 */" >"$tree/daemon/svc/w.c"
breaks check-words.sh 'w.c:1:'
echo "static const char *p = \"/ro""ot/x\";" >"$tree/daemon/svc/w.c"
breaks check-words.sh 'w.c:1:'
echo "int x; " >"$tree/daemon/svc/w.c"
breaks check-words.sh 'w.c:1:'
echo "csm status | gr""ep -Fxq ready" >"$tree/tests/unit/w.sh"
breaks check-words.sh 'w.sh:1:'
