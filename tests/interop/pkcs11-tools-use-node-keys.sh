#!/bin/bash
# GnuTLS, OpenSC and p11-kit work with the PKCS#11 module as with any other token, soft and TPM keys: they list, sign,
# decrypt, agree, serve TLS, make and delete keys; a user who may sign can neither make nor delete, another one sees
# nothing.
# bound: 180
# coverage
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/programs.sh"
in_node --backend tpm2
front_ends
make_ca ca
echo "pay 10 to bob" >msg
ours() { as_uid $uid_a timeout 20 "$@"; }
theirs() { as_uid $uid_b timeout 20 "$@"; }
tool() { ours pkcs11-tool --module "$p11_module" "$@"; }
their_tool() { theirs pkcs11-tool --module "$p11_module" "$@"; }
# pkcs11-tool takes a key by its ID.
id_of() { # KEY [NAMESPACE]
    tool ${2:+--token-label "$2"} --list-objects --type privkey 2>/dev/null | awk -v key="$1" '
        $1 == "label:" { label = $2 } $1 == "ID:" && label == key { print $2; exit }'
}
token="pkcs11:token=uid-$uid_a"

keys=()
for backend in soft tpm2; do
    for alg in p256 rsa2048; do
        keys+=("$alg-$backend")
        node_key_with_certificate $uid_a $alg-$backend ca dns:localhost --backend $backend --alg $alg
        as_uid $uid_a csm key public $alg-$backend >$alg-$backend.public
    done
done

step "GnuTLS lists tokens, keys and certificates"
ok ours p11tool --provider "$p11_module" --list-token-urls
grep -q "token=uid-$uid_a" out || fail "no token: $(cat out)"
ok ours p11tool --provider "$p11_module" --list-all "$token"
for key in "${keys[@]}"; do
    for type in private public cert; do
        grep -qE "object=$key;type=$type" out || fail "no $type of $key: $(cat out)"
    done
done
grep -q CKA_NEVER_EXTRACTABLE out || fail "keys are extractable: $(cat out)"
theirs p11tool --provider "$p11_module" --list-all "$token" >listed 2>&1 || true
! grep -q object= listed || fail "another user lists: $(cat listed)"

step "GnuTLS signs, and serves TLS 1.2 and 1.3"
for key in "${keys[@]}"; do
    ok ours p11tool --provider "$p11_module" --test-sign "$token;object=$key;type=private"
    refused theirs p11tool --provider "$p11_module" --test-sign "$token;object=$key;type=private"
    port=$(free_port)
    start gnutls setpriv --reuid $uid_a --regid $uid_a --clear-groups gnutls-serv --provider "$p11_module" --http \
        -p "$port" --x509certfile "$key.crt" --x509keyfile "$token;object=$key;type=private"
    serves "$port" gnutls
    for version in 1.2 1.3; do
        ok curl -sS --max-time 10 --cacert ca.pem --tlsv$version --tls-max $version "https://localhost:$port/"
        grep -q GnuTLS out || fail "$key: no answer: $(cat out)"
    done
    stop
    refused theirs gnutls-serv --provider "$p11_module" --http -p "$(free_port)" --x509certfile "$key.crt" \
        --x509keyfile "$token;object=$key;type=private"
done

step "OpenSC's own test of a module, and what it reads"
ok tool --test
# One thing it does that csm's keys do not: PKCS#1 signatures over bytes that are no DigestInfo.
sed '/RSA-PKCS: .*C_Sign() returned CKR_DATA_INVALID/d; /^[0-9]* errors$/d' out >rest
! grep -qE 'ERR|rror|fail' rest || fail "pkcs11-tool --test: $(cat out err)"
expect_equal "decryptions" "$(grep -cx OK rest)" 4
ok tool --list-mechanisms
for mechanism in ECDSA ECDSA-SHA256 RSA-PKCS SHA256-RSA-PKCS RSA-PKCS-PSS SHA256-RSA-PKCS-PSS RSA-PKCS-OAEP ECDH1-DERIVE \
    ECDSA-KEY-PAIR-GEN RSA-PKCS-KEY-PAIR-GEN; do
    grep -q "^ *$mechanism," out || fail "no $mechanism: $(cat out)"
done
for key in "${keys[@]}"; do
    ok tool --read-object --type cert --label "$key" -o got.der
    openssl x509 -in "$key.crt" -outform DER >wanted.der
    expect_same "the certificate of $key" wanted.der got.der
    # Whatever it says of it, there is no private value.
    tool --read-object --type privkey --label "$key" -o got.key >out 2>&1 || true
    [ ! -s got.key ] || fail "a private key came out"
done

step "OpenSC signs, decrypts and agrees"
for backend in soft tpm2; do
    ok tool --sign -m ECDSA-SHA256 --signature-format openssl --id "$(id_of p256-$backend)" -i msg -o sig
    ok openssl dgst -sha256 -verify p256-$backend.public -signature sig msg
    ok tool --sign -m SHA256-RSA-PKCS --id "$(id_of rsa2048-$backend)" -i msg -o sig
    ok openssl dgst -sha256 -verify rsa2048-$backend.public -signature sig msg
    ok tool --sign -m SHA256-RSA-PKCS-PSS --salt-len 32 --id "$(id_of rsa2048-$backend)" -i msg -o sig
    ok openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 -verify rsa2048-$backend.public \
        -signature sig msg
    openssl pkeyutl -encrypt -pubin -inkey rsa2048-$backend.public -in msg -out sealed -pkeyopt rsa_padding_mode:oaep \
        -pkeyopt rsa_oaep_md:sha256
    ok tool --decrypt -m RSA-PKCS-OAEP --hash-algorithm SHA256 --mgf MGF1-SHA256 --id "$(id_of rsa2048-$backend)" -i sealed -o back
    expect_same "what was decrypted" msg back
    refused their_tool --sign -m ECDSA-SHA256 --id "$(id_of p256-$backend)" -i msg -o theirs.sig

    ours csm key create ecdh-$backend --backend $backend --use derive >/dev/null
    as_uid $uid_a csm key public ecdh-$backend >ecdh.public
    openssl ecparam -name prime256v1 -genkey -noout -out peer.key
    openssl pkey -in peer.key -pubout -outform DER -out peer.der
    openssl pkeyutl -derive -inkey peer.key -peerkey ecdh.public -out shared.peer
    ok tool --derive -m ECDH1-DERIVE --id "$(id_of ecdh-$backend)" -i peer.der -o shared
    expect_same "the shared secret" shared.peer shared
done

step "OpenSC makes and deletes keys"
for type in EC:prime256v1 rsa:2048; do
    ok tool --keypairgen --key-type $type --label made
    expect_equal "protection" "$(ours csm key show made --json | json protection)" tpm
    ok ours csm key public made -o made.public
    if [ $type = EC:prime256v1 ]; then mechanism=ECDSA-SHA256; else mechanism=SHA256-RSA-PKCS; fi
    ok tool --sign -m $mechanism --signature-format openssl --id "$(id_of made)" -i msg -o sig
    ok openssl dgst -sha256 -verify made.public -signature sig msg
    ok tool --delete-object --type privkey --id "$(id_of made)"
    expect_exit 4 ours csm key show made
done

step "who may sign can neither make nor delete"
policy <<YAML
version: 1
default: uid-namespaces
identities: {a: {uid: $uid_a}, b: {uid: $uid_b}}
namespaces: {shared: {home-of: [b]}}
rules:
  - {allow: ["key.*"], to: [a], on: ["shared:*"]}
  - {allow: [key.list, key.show, key.public, key.sign], to: [b], on: ["shared:*"]}
YAML
ours csm key create shared:s >/dev/null
ours csm key public shared:s >s.public
ok their_tool --token-label shared --sign -m ECDSA-SHA256 --signature-format openssl --id "$(id_of s shared)" -i msg -o theirs.sig
ok openssl dgst -sha256 -verify s.public -signature theirs.sig msg
refused their_tool --token-label shared --keypairgen --key-type EC:prime256v1 --label made
refused their_tool --token-label shared --delete-object --type privkey --id "$(id_of s shared)"
ok ours csm key show shared:s

step "p11-kit knows the module by its file, and lends it to others"
mkdir -p config/pkcs11/modules
echo "module: $p11_module" >config/pkcs11/modules/csm.module
echo "user-config: only" >config/pkcs11/pkcs11.conf
kit() { ours env XDG_CONFIG_HOME="$work/config" HOME="$work" "$@"; }
ok kit p11-kit list-modules
grep -q "token: uid-$uid_a" out || fail "no token: $(cat out err)"
mkdir -m 0700 kit
chown $uid_a kit
# It keeps its standard output open for its life.
start kit setpriv --reuid $uid_a --regid $uid_a --clear-groups p11-kit server -f -n "$work/kit/sock" --provider "$p11_module" "$token"
node_await 5 test -S kit/sock || fail "no p11-kit server: $(cat kit.log)"
client=$(pkg-config --variable=p11_module_path p11-kit-1)/p11-kit-client.so
openssl dgst -sha256 -binary -out digest msg
for backend in soft tpm2; do
    lent=(env P11_KIT_SERVER_ADDRESS="unix:path=$work/kit/sock" pkcs11-tool --module "$client" --sign -m ECDSA
        --signature-format openssl --id "$(id_of p256-$backend)" -i digest)
    ok ours "${lent[@]}" -o sig
    ok openssl dgst -sha256 -verify p256-$backend.public -signature sig msg
    refused theirs "${lent[@]}" -o theirs.sig
done
stop
