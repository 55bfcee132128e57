# shellcheck shell=bash
# What the tests share that search memory: sourced after system.sh, inside a node, with umask 077 and a folder `keep`.

: "${top:?}" "${node:?}" "${work:?}"

# search WHAT ARGUMENTS-OF-bytesearch...: nothing may be found.
search() {
    local what=$1
    shift
    timeout 60 "$top/build/tests/system/bytesearch" keep/needles "$@" >keep/found || {
        cat keep/found >&2
        fail "$what"
    }
}
# finds WHAT ARGUMENTS-OF-bytesearch...: it has to be found.
finds() {
    local what=$1
    shift
    expect_exit 1 timeout 60 "$top/build/tests/system/bytesearch" keep/needles "$@"
    grep -q '^FOUND: ' out || fail "not found: $what"
}
session() { py "$top/tests/lib/memsession.py" "$@"; }
needle() { printf '%s %s\n' "$1" "$(xxd -p | tr -d '\n')" >>keep/needles; } # NAME: stdin
# The needles that only the store knows, from a copy that nobody writes to meanwhile. store_needles FILE MODE
store_needles() {
    rm -rf copy
    cp -r "$node/state" copy
    chown -R 0:0 copy
    "$top/build/tests/system/storekeys" "$work/copy" "$1" "$2" >>keep/needles
    rm -rf copy
}
everywhere() {
    search "$1: files" --not "$work" --not "$node/rootkey" --not "$node/tpm" --files "$node"
    local supervisor pid
    supervisor=$(node_pid "$node" csmd)
    set -- "$1" --locked-ok --pid "$supervisor"
    for pid in $(pgrep -P "$supervisor"); do
        set -- "$@" --pid "$pid"
    done
    [ $# -gt 4 ] || fail "the supervisor has no broker"
    search "$1: processes" "${@:2}"
}
# What the session decrypts and derives, made by openssl.
session_foreign() {
    openssl rand 100 >keep/plaintext
    needle plaintext <keep/plaintext
    csm key public rsa2048 >rsa.pem
    openssl pkeyutl -encrypt -pubin -inkey rsa.pem -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 \
        -in keep/plaintext -out keep/ciphertext
    csm key public derive >derive.pem
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out keep/peer.pem
    openssl pkey -in keep/peer.pem -pubout -outform DER -out keep/peer.der
    openssl pkeyutl -derive -inkey keep/peer.pem -peerkey derive.pem -out keep/shared
    needle shared <keep/shared
}
restart() {
    node_csmd_stop "$node"
    search "stopped: files" --not "$work" --not "$node/rootkey" --not "$node/tpm" --files "$node"
    node_csmd_start "$node" || fail "csmd does not start again"
    # shellcheck disable=SC2034 # of who sources this
    CSM_PID=$(node_broker_pid "$node")
}
