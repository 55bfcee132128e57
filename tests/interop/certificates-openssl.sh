#!/bin/bash
# A request of csm becomes a certificate by openssl, and what csm then gives back and writes for other programs is what
# openssl verifies: for every algorithm, with the names that were asked for.
# bound: 60
# coverage
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/certs.sh"
in_node --backend soft

make_ca root
make_ca inter root
for alg in p256 p384 p521 ed25519 rsa2048; do
    ok csm key create $alg --alg $alg --backend soft
    csm csr $alg --subject "/O=Ex\\/ample/CN=$alg" --san dns:$alg.example.org --san uri:spiffe://example.org/$alg \
        --san ip:2001:db8::1 --san email:a@example.org >$alg.csr
    issue $alg.csr inter $alg.pem
    cat $alg.pem inter.pem root.pem >chain
    ok csm cert install $alg chain
    csm cert show $alg --pem >back
    expect_same "$alg: the chain" <(grep -v '^$' chain) back
    csm cert show $alg --json >info
    expect_equal "$alg: serial" "$(json serial <info)" "$(openssl x509 -in $alg.pem -noout -serial | cut -d= -f2 | tr A-F a-f)"
    expect_equal "$alg: subject" "$(json subject <info)" "/O=Ex\\/ample/CN=$alg"
    expect_equal "$alg: issuer" "$(json issuer <info)" "/O=test/CN=inter"
    expect_equal "$alg: names" "$(json san <info)" \
        "[\"dns:$alg.example.org\", \"uri:spiffe://example.org/$alg\", \"ip:2001:db8::1\", \"email:a@example.org\"]"
    expect_equal "$alg: the end" "$(date -u -d "@$(json not_after <info)" +%F-%T)" \
        "$(date -u -d "$(openssl x509 -in $alg.pem -noout -enddate | cut -d= -f2)" +%F-%T)"
    ok csm cert export $alg $alg.d
    ok openssl verify -x509_strict -CAfile $alg.d/ca.pem -untrusted $alg.d/chain.pem $alg.d/cert.pem
    openssl x509 -in $alg.d/cert.pem -noout -pubkey >pub
    expect_same "$alg: the public key" pub <(csm key public $alg)
done

step "a self-signed certificate, and a CA's beside a node key"
openssl x509 -in root.pem -outform DER -out root.der
expect_exit 1 csm cert install p256 root.der
csm csr p384 --subject /CN=sub-ca >sub.csr
printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n' >ca.ext
ok openssl x509 -req -in sub.csr -CA root.pem -CAkey root.key -extfile ca.ext -days 2 -outform DER -out sub.der
ok csm cert install p384 sub.der
expect_equal "its subject" "$(csm cert show p384 --json | json subject)" /CN=sub-ca
ok csm cert list --json
expect_equal "the list" "$(json 1.name <"$work/out")" p256
