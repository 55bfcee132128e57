#!/bin/bash
# Every algorithm, scheme and back end: the openssl command line verifies what `csm sign` makes, over a message and over
# a digest, and refuses it over other data. Decryption and derivation agree with openssl's too.
# bound: 240
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2

head -c 100000 /dev/urandom >msg
{ cat msg && echo; } >other
for hash in sha256 sha384 sha512; do
    openssl dgst "-$hash" -binary msg >"msg.$hash"
    openssl dgst "-$hash" -binary other >"other.$hash"
done

# verify KEY SCHEME SIGNATURE DATA: by openssl, DATA is msg or other; over the whole and over the digest
verify() {
    local key=$1 scheme=$2 sig=$3 data=$4 hash=${2##*-} dgst=() pkey=()
    if [ "$scheme" = ed25519 ]; then
        openssl pkeyutl -verify -pubin -inkey "$key" -rawin -in "$data" -sigfile "$sig" >/dev/null 2>&1
        return
    fi
    if [[ $scheme = rsa-pss-* ]]; then
        dgst=(-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest -sigopt "rsa_mgf1_md:$hash")
        pkey=(-pkeyopt rsa_padding_mode:pss -pkeyopt rsa_pss_saltlen:digest -pkeyopt "rsa_mgf1_md:$hash")
    fi
    openssl dgst "-$hash" "${dgst[@]}" -verify "$key" -signature "$sig" "$data" >/dev/null 2>&1 &&
        openssl pkeyutl -verify -pubin -inkey "$key" -in "$data.$hash" -sigfile "$sig" -pkeyopt "digest:$hash" \
            "${pkey[@]}" >/dev/null 2>&1
}

checked=0
for backend in soft tpm2; do
    algorithms=$(py -c 'import sys, csmwire
for b in csmwire.Conn(csmwire.ADMIN).call("status")["backends"]:
    if b["name"] == sys.argv[1]:
        print(*b["algorithms"])' "$backend")
    case $backend in
    soft) expect_equal "what soft has" "$(tr ' ' '\n' <<<"$algorithms" | sort | xargs)" \
        "ed25519 p256 p384 p521 rsa2048 rsa3072 rsa4096" ;;
    tpm2) for alg in p256 p384 p521 rsa2048; do
        grep -qw $alg <<<"$algorithms" || fail "the TPM back end lacks $alg"
    done ;;
    esac
    for alg in $algorithms; do
        key=$backend-$alg
        ok csm key create "$key" --backend "$backend" --alg "$alg"
        csm key public "$key" >pub.pem
        case $alg in
        p*) schemes="ecdsa-sha256 ecdsa-sha384 ecdsa-sha512" ;;
        rsa*) schemes="rsa-pkcs1-sha256 rsa-pkcs1-sha384 rsa-pkcs1-sha512 rsa-pss-sha256 rsa-pss-sha384 rsa-pss-sha512" ;;
        *) schemes=ed25519 ;;
        esac
        for scheme in $schemes; do
            ok csm sign "$key" --scheme "$scheme" -o sig msg
            verify pub.pem "$scheme" sig msg || fail "$key $scheme: openssl refuses the signature"
            ! verify pub.pem "$scheme" sig other || fail "$key $scheme: openssl takes it for other data"
            if [ "$scheme" != ed25519 ]; then
                ok csm sign "$key" --scheme "$scheme" --digest -o sig "msg.${scheme##*-}"
                verify pub.pem "$scheme" sig msg || fail "$key $scheme: the signature of a digest"
            fi
            checked=$((checked + 1))
        done
        # Without a scheme: what fits the key.
        ok csm sign "$key" -o sig msg
        case $alg in
        p256) default=ecdsa-sha256 ;; p384) default=ecdsa-sha384 ;; p521) default=ecdsa-sha512 ;;
        rsa*) default=rsa-pkcs1-sha256 ;; *) default=ed25519 ;;
        esac
        verify pub.pem $default sig msg || fail "$key: not $default by default"
        # A scheme of another family is refused.
        case $alg in
        rsa*) expect_exit 1 csm sign "$key" --scheme ecdsa-sha256 -o sig msg ;;
        *) expect_exit 1 csm sign "$key" --scheme rsa-pss-sha256 -o sig msg ;;
        esac

        if [[ $alg = rsa* ]]; then
            head -c 32 /dev/urandom >plain
            openssl pkeyutl -encrypt -pubin -inkey pub.pem -in plain -out cipher \
                -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256
            ok csm decrypt "$key" -o got cipher
            expect_same "$key: decrypted" plain got
            printf '\x00' | dd of=cipher bs=1 seek=9 conv=notrunc status=none
            printf '\x01' | dd of=cipher bs=1 seek=10 conv=notrunc status=none
            expect_exit 1 csm decrypt "$key" -o got2 cipher
        elif [[ $alg = p* ]]; then
            ok csm key create "$key-dh" --backend "$backend" --alg "$alg" --use derive
            csm key public "$key-dh" >pub.pem
            openssl genpkey -algorithm EC -pkeyopt "ec_paramgen_curve:P-${alg#p}" -out peer.key 2>/dev/null
            openssl pkey -in peer.key -pubout -out peer.pem
            openssl pkeyutl -derive -inkey peer.key -peerkey pub.pem -out wanted
            ok csm derive "$key-dh" peer.pem -o got
            expect_same "$key: derived" wanted got
            expect_exit 1 csm sign "$key-dh" -o sig msg
        fi
    done
done
step "$checked combinations of back end, algorithm and scheme"
[ "$checked" -ge 40 ] || fail "too few"
