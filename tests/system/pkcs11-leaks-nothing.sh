#!/bin/bash
# A program that signs, makes and destroys keys, and ends the PKCS#11 module, has lost no memory, and touched none that is
# not its own. The library may be begun and ended again and again.
# bound: 180
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

ok csm key create tls
ok csm key create other
step "a short session"
expect_exit 0 valgrind --quiet --leak-check=full --show-leak-kinds=definite,indirect,possible \
    --errors-for-leak-kinds=definite,indirect,possible --error-exitcode=99 \
    "$node_build/tests/system/p11_probe" "$node_build/lib/pkcs11/csm-pkcs11.so" - \
    tokens list sign tls sign other create new sign new delete new sign new certificate tls again tokens sign tls again sign tls
grep -q '^sign: 0x0' "$work/out" || fail "nothing was signed: $(cat "$work/out" "$work/err")"
expect_equal "what was done" "$(grep -c ': 0x0$' "$work/out")" 12
