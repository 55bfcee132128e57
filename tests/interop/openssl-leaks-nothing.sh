#!/bin/bash
# The openssl command with the provider, under valgrind: no memory is lost, and none is used that is not there. What is
# loaded is the release's module: valgrind has its own way of looking.
# bound: 180
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/programs.sh"
in_node --backend soft
front_ends
echo data >data
csm key create ec >/dev/null
csm key create rsa --alg rsa2048 >/dev/null
csm key create dh --use derive >/dev/null
csm key reference ec >ref.pem
csm key public rsa >rsa.pub
csm key public ec >ec.pub
openssl pkeyutl -encrypt -pubin -inkey rsa.pub -in data -out cipher -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256

# clean STATUS openssl...: that exit status, and no error by valgrind. OpenSSL leaves what is reachable to the end.
clean() {
    local wanted=$1 status=0
    shift
    OPENSSL_CONF=$openssl_cnf timeout 60 valgrind -q --error-exitcode=99 --leak-check=full \
        --show-leak-kinds=definite,possible --errors-for-leak-kinds=definite,possible "$@" >out 2>err </dev/null || status=$?
    [ "$status" = "$wanted" ] || { cat err >&2 && fail "exit status $status, not $wanted: $*"; }
}
# At full counts.
long() { [ -z "${CSM_LONG:-}" ] || clean "$@"; }
step "keys by reference and URI, signatures, decryption, ECDH, a request"
clean 0 openssl dgst -sha256 -sign ref.pem -out sig data
openssl dgst -sha256 -verify ec.pub -signature sig data >/dev/null || fail "the signature"
long 0 openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sign csm:rsa -out sig data
long 0 openssl req -new -key csm:ec -subj /CN=x -out csr
clean 0 openssl pkey -in csm:ec -text
clean 0 openssl pkeyutl -decrypt -inkey csm:rsa -in cipher -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256
clean 0 openssl pkeyutl -derive -inkey csm:dh -peerkey ec.pub
clean 0 openssl storeutl csm:ec

step "and what is refused"
long 1 openssl pkeyutl -decrypt -inkey csm:rsa -in cipher
long 1 openssl pkey -in csm:none
long 1 openssl pkey -in 'csm:ec?object=x'
csm key delete ec >/dev/null
clean 1 openssl dgst -sha256 -sign ref.pem -out sig data
