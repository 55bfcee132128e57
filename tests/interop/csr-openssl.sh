#!/bin/bash
# Certificate requests: `openssl req -verify` accepts them, they hold the subject and every kind of name that was asked
# for, an OpenSSL CA makes certificates of them, and names that are none are refused.
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj '/CN=CA' -days 1 2>/dev/null
for backend in soft tpm2; do
    for alg in p256 p384 p521 rsa2048 ed25519; do
        [ $backend-$alg != tpm2-ed25519 ] || continue
        key=$backend-$alg
        ok csm key create $key --backend $backend --alg $alg
        ok csm csr $key --subject '/C=DE/O=Example \/ Sons/OU=a\+b/CN=www.example.org' --san dns:www.example.org \
            --san 'dns:*.example.org' --san ip:192.0.2.1 --san ip:2001:db8::1 --san uri:spiffe://example.org/web \
            --san email:web@example.org -o csr.pem
        openssl req -in csr.pem -verify -noout 2>verified || fail "$key: openssl req -verify"
        grep -qi 'verify OK' verified || fail "$key: $(cat verified)"
        openssl req -in csr.pem -noout -text >text
        for name in 'DNS:www.example.org' 'DNS:\*.example.org' 'IP Address:192.0.2.1' 'IP Address:2001:DB8:0:0:0:0:0:1' \
            'URI:spiffe://example.org/web' 'email:web@example.org'; do
            grep -q "$name" text || fail "$key: no $name in the request"
        done
        openssl req -in csr.pem -noout -subject -nameopt RFC2253,-esc_msb >subject
        grep -q 'CN=www.example.org' subject || fail "$key: $(cat subject)"
        openssl req -in csr.pem -noout -pubkey >pub.csr
        csm key public $key >pub.key
        expect_same "$key: the public key" pub.csr pub.key
        openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -copy_extensions copy -days 1 \
            -out cert.pem 2>/dev/null
        openssl verify -CAfile ca.pem cert.pem >/dev/null || fail "$key: certificate"
        sed '5s/./A/10' csr.pem >bad.pem
        ! openssl req -in bad.pem -verify -noout >/dev/null 2>verified || grep -qi failure verified ||
            cmp -s csr.pem bad.pem || fail "$key: a changed request verifies"
    done
done
ok csm csr soft-rsa2048 --subject /CN=x --scheme rsa-pss-sha256 -o csr.pem
openssl req -in csr.pem -verify -noout 2>/dev/null || fail "rsa-pss request"

step "what is no name is refused"
for bad in 'dns:' 'dns:a b' 'dns:-a.example' 'ip:300.1.1.1' 'ip:1.2.3' 'uri:no-scheme' 'email:nobody' 'what:x' 'dns:a..b'; do
    expect_exit 1 csm csr soft-p256 --subject /CN=x --san "$bad" -o bad.csr
done
for bad in 'CN=x' '/XX=y' '/CN' "/C=DEU"; do
    expect_exit 1 csm csr soft-p256 --subject "$bad" -o bad.csr
done
[ ! -e bad.csr ] || fail "a refused request left a file"
