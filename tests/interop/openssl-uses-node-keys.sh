#!/bin/bash
# The openssl command works with keys of the node as with key files: TLS 1.2 and 1.3 on both sides, requests,
# certificates, CMS, ECDH, by URI and by PEM file, with soft and TPM keys; another user's openssl has nothing of them.
# bound: 180
# coverage
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/programs.sh"
in_node --backend tpm2
front_ends
make_ca ca
echo "pay 10 to bob" >msg
ours() { with_csm $uid_a openssl "$@"; }
theirs() { with_csm $uid_b openssl "$@"; }

# The public key that a certificate or a connection shows is the one that csm tells.
has_key() { # KEY PUBLIC-PEM
    as_uid $uid_a csm key public "$1" >wanted
    expect_same "the public key of $1" wanted "$2"
}
# one_handshake KEY VERSION [FORM]: s_server with KEY, asking for a certificate, and s_client with one.
one_handshake() {
    local key=$1 version=$2 form=${3:-csm:$1} port
    port=$(free_port)
    start "server-$key" setpriv --reuid $uid_a --regid $uid_a --clear-groups env OPENSSL_CONF="$openssl_cnf" \
        openssl s_server -accept "127.0.0.1:$port" -cert "$key.crt" -key "$form" -CAfile ca.pem -Verify 1 \
        -verify_return_error -naccept 1 -www
    # Its port is asked for by nobody else: -naccept counts.
    node_await 10 grep -q ACCEPT "$work/server-$key.log" || fail "s_server: $(cat "$work/server-$key.log")"
    printf 'GET / HTTP/1.0\r\n\r\n' >request
    ok ours s_client -connect "127.0.0.1:$port" "-$version" -CAfile ca.pem -verify_return_error -verify_hostname localhost \
        -cert "$key.crt" -key "$form" -ign_eof <request
    openssl x509 -in out -noout -pubkey >shown
    has_key "$key" shown
    grep -q 'Verification: OK' out || fail "$key, $version: $(cat out err)"
    node_await 5 node_gone "$started" || fail "s_server does not end"
    grep -q "^depth=0 CN = $key" "server-$key.log" || fail "s_server saw no certificate: $(cat "server-$key.log")"
}

for backend in soft tpm2; do
    for alg in p256 rsa2048; do
        key=$alg-$backend
        step "$key: read, sign, verify"
        node_key_with_certificate $uid_a "$key" ca dns:localhost --backend $backend --alg $alg
        ok ours pkey -in "csm:$key" -pubout -out public.pem
        has_key "$key" public.pem
        ok ours pkey -in "$key.pem" -pubout -out public.pem
        has_key "$key" public.pem
        for hash in sha256 sha384; do
            ok ours dgst -$hash -sign "csm:$key" -out sig msg
            ok openssl dgst -$hash -verify public.pem -signature sig msg
        done
        ok ours pkeyutl -sign -rawin -in msg -inkey "$key.pem" -out sig
        ok openssl pkeyutl -verify -rawin -in msg -pubin -inkey public.pem -sigfile sig
        expect_exit 1 openssl pkeyutl -verify -rawin -in "$key.csr" -pubin -inkey public.pem -sigfile sig

        step "$key: TLS 1.2 and 1.3, by URI and by file, on both sides"
        one_handshake "$key" tls1_2
        one_handshake "$key" tls1_3 "$key.pem"

        step "$key: requests, certificates, a CA"
        ok ours req -new -key "csm:$key" -subj "/CN=$key" -out new.csr
        ok openssl req -in new.csr -verify -noout
        ok ours req -x509 -new -key "csm:$key" -subj "/CN=$key CA" -addext keyUsage=critical,keyCertSign -days 1 -out own.pem
        ok ours x509 -req -in new.csr -CA own.pem -CAkey "csm:$key" -days 1 -out issued.pem
        ok openssl verify -CAfile own.pem issued.pem

        step "$key: CMS"
        ok ours cms -sign -binary -in msg -signer "$key.crt" -inkey "csm:$key" -nodetach -outform PEM -out signed.pem
        ok openssl cms -verify -binary -in signed.pem -inform PEM -CAfile ca.pem -purpose any -out verified
        expect_same "what was signed" msg verified

        step "$key: another user has nothing of it"
        for form in "csm:uid-$uid_a:$key" "$key.pem"; do
            refused theirs pkey -in "$form" -pubout
            refused theirs dgst -sha256 -sign "$form" msg
            refused theirs req -new -key "$form" -subj /CN=x
            refused theirs x509 -req -in new.csr -CA own.pem -CAkey "$form"
            refused theirs cms -sign -in msg -signer "$key.crt" -inkey "$form"
            refused theirs s_server -accept "127.0.0.1:$(free_port)" -cert "$key.crt" -key "$form"
        done
    done

    key=rsa2048-$backend
    step "$key: PSS, and what was encrypted with OAEP"
    ok ours dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest -sign "csm:$key" -out sig msg
    ok openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest -verify public.pem -signature sig msg
    ok openssl cms -encrypt -binary -in msg -aes-256-cbc -recip "$key.crt" -keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_md:sha256 \
        -outform PEM -out sealed.pem
    ok ours cms -decrypt -binary -in sealed.pem -inform PEM -recip "$key.crt" -inkey "csm:$key" -out back
    expect_same "what was decrypted" msg back
    refused theirs cms -decrypt -binary -in sealed.pem -inform PEM -recip "$key.crt" -inkey "csm:uid-$uid_a:$key"

    key=ecdh-$backend
    step "$key: ECDH, by itself and in CMS"
    node_key $uid_a "$key" ca dns:localhost --backend $backend --use sign,derive
    openssl ecparam -name prime256v1 -genkey -noout -out peer.key
    openssl pkey -in peer.key -pubout -out peer.pem
    as_uid $uid_a csm key public "$key" >public.pem
    ok ours pkeyutl -derive -inkey "csm:$key" -peerkey peer.pem -out shared
    openssl pkeyutl -derive -inkey peer.key -peerkey public.pem -out shared.peer
    expect_same "the shared secret" shared shared.peer
    ok openssl cms -encrypt -binary -in msg -aes-256-cbc -recip "$key.crt" -outform PEM -out sealed.pem
    ok ours cms -decrypt -binary -in sealed.pem -inform PEM -recip "$key.crt" -inkey "csm:$key" -out back
    expect_same "what was decrypted" msg back
    refused theirs pkeyutl -derive -inkey "csm:uid-$uid_a:$key" -peerkey peer.pem
done

step "Ed25519"
node_key $uid_a ed25519 ca dns:localhost --backend soft --alg ed25519
ok ours pkeyutl -sign -rawin -in msg -inkey csm:ed25519 -out sig
as_uid $uid_a csm key public ed25519 >public.pem
ok openssl pkeyutl -verify -rawin -in msg -pubin -inkey public.pem -sigfile sig
one_handshake ed25519 tls1_3

step "certificates of the store"
ok ours storeutl -certs "csm:p256-soft?object=cert"
openssl x509 -in out -outform DER >shown.der
openssl x509 -in p256-soft.crt -outform DER >wanted.der
expect_same "the certificate" wanted.der shown.der
theirs storeutl -certs "csm:uid-$uid_a:p256-soft?object=cert" >theirs.out 2>&1 || true
! grep -q CERTIFICATE theirs.out || fail "another user's openssl reads it: $(cat theirs.out)"

step "who may read a key and not sign with it shakes no hand"
policy <<YAML
version: 1
default: uid-namespaces
identities: {b: {uid: $uid_b}}
rules: [{allow: [key.public, key.show, cert.get], to: [b], on: ["uid-$uid_a:*"]}]
YAML
ok theirs pkey -in p256-tpm2.pem -pubout -out theirs.pem
has_key p256-tpm2 theirs.pem
refused theirs dgst -sha256 -sign p256-tpm2.pem msg
refused theirs cms -decrypt -binary -in sealed.pem -inform PEM -recip ecdh-tpm2.crt -inkey "csm:uid-$uid_a:ecdh-tpm2"
