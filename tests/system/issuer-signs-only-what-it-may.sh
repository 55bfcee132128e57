#!/bin/bash
# A key with the use issuer signs whole certificates, CRLs and OCSP responses within its rules and its certificate, each
# serial number once, also after kill -9; nothing else by any way; and the audit log has each before it is signed.
# bound: 60
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

ok csm key create ca --use issuer --max-life 400d --path-len 0 --permit dns:.example.org --exclude dns:.bad.example.org
ok csm key create web
ok csm key create deep --use issuer --max-life 400d --path-len 1
expect_exit 2 csm key create x --use issuer
expect_exit 2 csm key create x --max-life 1d
expect_exit 1 csm key create x --use issuer --max-life 1d --permit nonsense:x
expect_exit 1 csm key create x --use issuer --max-life 1d --exportable
csm key show ca >shown
for word in issuer 34560000 dns:.example.org dns:.bad.example.org; do
    grep -q "$word" shown || { cat shown && fail "the rules are not shown: $word"; }
done
expect_equal "the rules in JSON" "$(csm key show ca --json | json issuer.max_life)" 34560000

step "no signature by another way"
for wrong in "csm sign ca /dev/null" "csm decrypt ca /dev/null" "csm derive ca $work/web.pem"; do
    csm key public web >web.pem
    # shellcheck disable=SC2086
    expect_exit 1 $wrong
    grep -q "issuer's key signs by issue.sign" err || { cat err && fail "$wrong: not told why"; }
done
by_provider() { openssl dgst -sha256 -provider-path "$top/build/lib/ossl-modules" -provider csm -provider default -sign "$1.ref" -out sig ca.der; }
csm key public ca --der -o ca.der
for key in ca web; do csm key reference $key >$key.ref; done
ok by_provider web
expect_exit 1 by_provider ca
grep -q "issuer's key signs by issue.sign" err || { cat err && fail "OpenSSL's provider: not told why"; }
pkcs11-tool --module "$top/build/lib/pkcs11/csm-pkcs11.so" -O --type privkey >objects 2>/dev/null
expect_equal "what the PKCS#11 module lets them do" "$(sed -n 's/^ *Usage: *//p' objects | sort | paste -sd " ")" "none none sign"
csm csr ca --subject /CN=x | openssl req -noout -text -verify >text 2>&1
grep -q 'CA:TRUE' text || fail "the request is not one of a CA"
csm key public web --der -o web.der
csm key public deep --der -o deep.der

step "what it may, what it may not"
py "$top/tests/system/issuer_asks.py" first
step "what it signed, openssl verifies"
openssl x509 -inform DER -in root.cert -out root.pem
openssl x509 -inform DER -in leaf.cert -out leaf.pem
ok openssl verify -x509_strict -CAfile root.pem leaf.pem
openssl crl -inform DER -in list.crl -out list.pem
ok openssl crl -in list.pem -noout -CAfile root.pem
for list in long longer; do
    openssl crl -inform DER -in $list.crl -out $list.pem
    ok openssl crl -in $list.pem -noout -CAfile root.pem
done
ok openssl ocsp -respin answer.ocsp -CAfile root.pem -noverify -text
ok openssl ocsp -respin answer.ocsp -CAfile root.pem -issuer root.pem -cert leaf.pem -no_nonce

step "used serial numbers, the rate and the CRL's number outlive kill -9"
kill9 all "after the first signatures"
py "$top/tests/system/issuer_asks.py" again

step "the audit log has each"
csm audit verify >/dev/null
py "$top/tests/system/issuer_asks.py" audited "$node"
