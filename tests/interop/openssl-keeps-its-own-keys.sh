#!/bin/bash
# A program's own keys stay the default provider's beside csm's, whichever of the two OpenSSL lists first: with the
# settings of the installed openssl.cnf they are made, sign and serve TLS, and so do csmd's.
# bound: 120
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/programs.sh"
in_node --backend soft
front_ends
make_ca ca
echo "pay 10 to bob" >msg

# The installed file with the module of this build; its [alg_sect] left out: without_line.cnf; csm's first: first*.cnf
sed "s|^module = .*|module = $node/lib/csm.so|" "$top/libclient/provider/openssl.cnf" >"$node/lib/installed.cnf"
printf '[req]\ndistinguished_name = req_name\n[req_name]\n' >>"$node/lib/installed.cnf"
sed '/^keys = csm_sect$/d; s/^default = default_sect$/csm = csm_sect\n&/' "$node/lib/installed.cnf" >"$node/lib/first.cnf"
sed '/^alg_section = /d' "$node/lib/first.cnf" >"$node/lib/without.cnf"
! cmp -s "$node/lib/installed.cnf" "$node/lib/first.cnf" || fail "csm's provider is not before default"
chmod 0644 "$node"/lib/*.cnf

for alg in p256 rsa2048; do
    node_key_with_certificate $uid_a $alg ca dns:localhost --backend soft --alg $alg
    as_uid $uid_a csm key public $alg >$alg.public
done
for cnf in installed first; do
    openssl_cnf=$node/lib/$cnf.cnf
    ours() { with_csm $uid_a openssl "$@"; }

    step "$cnf: the program's own keys"
    for alg in "EC -pkeyopt ec_paramgen_curve:P-256" "RSA -pkeyopt rsa_keygen_bits:2048" ED25519; do
        # shellcheck disable=SC2086 # words
        ok ours genpkey -algorithm $alg -out own.pem
        ok ours pkey -in own.pem -pubout -out own.public
        ok ours req -x509 -new -key own.pem -subj /CN=localhost -addext subjectAltName=DNS:localhost -out own.crt
        ok ours verify -CAfile own.crt own.crt
        [ "$alg" = ED25519 ] && continue
        ok ours dgst -sha256 -sign own.pem -out sig msg
        ok openssl dgst -sha256 -verify own.public -signature sig msg
        port=$(free_port)
        start "own" setpriv --reuid $uid_a --regid $uid_a --clear-groups env OPENSSL_CONF="$openssl_cnf" \
            openssl s_server -accept "127.0.0.1:$port" -cert own.crt -key own.pem -www
        serves "$port" own
        ok ours s_client -connect "127.0.0.1:$port" -CAfile own.crt -verify_return_error -verify_hostname localhost </dev/null
        stop
    done

    step "$cnf: csmd's keys"
    for alg in p256 rsa2048; do
        for form in "csm:$alg" "$alg.pem"; do
            ok ours dgst -sha256 -sign "$form" -out sig msg
            ok ours dgst -sha256 -verify $alg.public -signature sig msg
        done
        port=$(free_port)
        start "csm" setpriv --reuid $uid_a --regid $uid_a --clear-groups env OPENSSL_CONF="$openssl_cnf" \
            openssl s_server -accept "127.0.0.1:$port" -cert $alg.crt -key "csm:$alg" -www
        serves "$port" csm
        ok ours s_client -connect "127.0.0.1:$port" -CAfile ca.pem -verify_return_error -verify_hostname localhost </dev/null
        stop
    done
done

step "without the line that keeps them, a program whose own key came to csm is told why"
openssl_cnf=$node/lib/without.cnf
ok openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out own.pem
chmod 0644 own.pem
refused with_csm $uid_a openssl dgst -sha256 -sign own.pem -out sig msg
with_csm $uid_a openssl dgst -sha256 -sign own.pem -out sig msg 2>told || true
grep -q "asked before the default one, see csm-provider(7)" told || fail "not told: $(cat told)"
