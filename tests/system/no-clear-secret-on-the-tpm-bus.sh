#!/bin/bash
# On the way to the TPM, through a day's work (starts, seal and unseal of the root key, keys of each kind, signatures,
# decryption, key agreement, the counter, recovery, reseal) and with commands that fail in between: no window of 16 bytes of an
# authorisation value, a plaintext, a shared secret, a share, or the root key and what comes of it.
# bound: 240
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
. "$top/tests/lib/memory.sh"
. "$top/tests/lib/tpmbus.sh"
umask 077
mkdir keep
tpm() { TSS2_LOG=all+none timeout 20 "tpm2_$1" -T "$CSM_TPM_TCTI" "${@:2}" >/dev/null; }
restart() {
    node_csmd_stop "$node"
    node_csmd_start "$node" || fail "csmd does not start $1"
}
# Commands that fail once each while the work goes on: Load, Unseal, Create, Sign, RSA_Decrypt, ECDH_ZGen, StartAuthSession,
# NV_Increment, NV_Read, PolicyPCR; a code that ends the call, one that says "again", and an answer that gets lost.
disturb() {
    for code in 00000157 0000015e 00000153 0000015d 00000159 00000154 00000176 00000134 0000014e 0000017f; do
        # A session whose handle got lost stays in a TPM that nobody manages: only so many fit.
        case $code$(((turn++) % 3)) in
        000001762) bus_tell fail $code 922 2 ;;
        *0) bus_tell fail $code 101 1 ;;
        *1) bus_tell fail $code 922 2 ;;
        *2) bus_tell lose $code 1 ;;
        esac
    done
}
turn=0
work_once() { # WHEN; what a disturbance makes fail is tried again
    again() { node_await 10 "$@" 2>/dev/null || fail "$1 $2 fails for good, $when"; }
    when=$1
    for k in p256 p384 rsa2048; do
        again csm sign $k msg -o sig
    done
    again csm decrypt rsa2048 keep/ciphertext -o keep/plain.out
    cmp -s keep/plain.out keep/plaintext || fail "decrypted to something else, $when"
    again csm derive derive keep/peer.pem -o keep/shared.out
    cmp -s keep/shared.out keep/shared || fail "derived something else, $when"
    again csm secret get d/s k >/dev/null
}

step "an owner's authorisation, a new TPM, csmd's first start on the recorded bus"
node_csmd_stop "$node"
node_swtpm_stop "$node"
rm -rf "$node/tpm" "$node/state/store" "$node/state/audit"
node_swtpm_start "$node" || fail "swtpm does not start"
openssl rand -hex 20 | tr -d '\n' >keep/owner_auth
needle owner_auth <keep/owner_auth
tpm changeauth -c owner "file:keep/owner_auth"
sed -i "s|^tpm: {|tpm: {owner_auth: \"@$work/keep/owner_auth\", |" "$node/csmd.yaml"
bus_start
node_csmd_start "$node" || fail "csmd does not start on the bus"
[ "$(bus_count 0000012a)" -ge 1 ] || fail "the counter was not made on the bus" # NV_DefineSpace

step "keys of each kind, and what they hide"
echo data >msg
for k in p256 p384 rsa2048; do
    ok csm key create $k --backend tpm2 --alg $k
done
ok csm key create derive --backend tpm2 --use derive
ok csm domain create d
ok csm secret set d/s "k=$(openssl rand -hex 24)"
openssl rand 100 >keep/plaintext
needle plaintext <keep/plaintext
csm key public rsa2048 >rsa.pem
openssl pkeyutl -encrypt -pubin -inkey rsa.pem -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 \
    -in keep/plaintext -out keep/ciphertext
csm key public derive >derive.pem
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out keep/peer.key
openssl pkey -in keep/peer.key -pubout -out keep/peer.pem
openssl pkeyutl -derive -inkey keep/peer.key -peerkey derive.pem -out keep/shared
needle shared <keep/shared
csm secret get d/s k | needle value
work_once "undisturbed"
py - "$node/state/store/data.mdb" >keep/nvauth <<'PY'
import sys
text, name = open(sys.argv[1], "rb").read(), b"pin:tpm2.nvauth"
sys.stdout.buffer.write(text[text.index(name) + len(name):][:32])
PY
needle counter-auth <keep/nvauth
rm -rf copy
cp -r "$node/state" copy
chown -R 0:0 copy
"$top/build/tests/system/storekeys" "$work/copy" - wrapped | xxd -r -p | tail -c +5 >keep/blob
n=$((16#$(xxd -p -l 2 keep/blob) + 2))
head -c $n keep/blob >keep/pub
tail -c +$((n + 1)) keep/blob >keep/priv
node_csmd_stop "$node" # its keys have the slots
tpm load -C 0x81000001 -u keep/pub -r keep/priv -c keep/ctx
TSS2_LOG=all+none timeout 20 tpm2_unseal -T "$CSM_TPM_TCTI" -c keep/ctx -o keep/root
tpm flushcontext -t
store_needles "$work/keep/root" tpm
grep -q '^root:' keep/needles || fail "no needle of the root key"
bus_clean "the first session"
node_csmd_start "$node" || fail "csmd does not start again"

step "starts, reseal under PCRs, shares, with commands that fail in between"
sed -i 's|^tpm: {|tpm: {pcrs: [0, 7], |' "$node/csmd.yaml"
disturb
restart "with failing commands"
work_once "after a start with failing commands"
disturb
node_await 20 csm reseal 2>/dev/null || fail "no reseal"
for _ in $(seq "$(count 3 40)"); do
    disturb
    work_once "with failing commands"
done
bus_tell clear '*'
mkdir keep/shares
ok csm recovery create --shares 2 --threshold 2 keep/shares
for f in keep/shares/*; do
    grep -v '^#' "$f" | tr -d '\n-' | cut -c 17-80 | xxd -r -p | needle "share:$(basename "$f")"
done
restart "under PCRs"
work_once "under PCRs"

step "a cleared TPM, and the recovery"
node_csmd_stop "$node"
tpm clear -c p
tpm changeauth -c owner "file:keep/owner_auth"
node_csmd_start "$node" || fail "csmd does not start with a cleared TPM"
ok csm recovery restore --accept-counter keep/shares/*
ok csm secret get d/s k
ok csm key create again --backend tpm2
ok csm sign again msg -o sig
node_csmd_stop "$node"

step "the search: nothing, but what is planted"
for code in 00000131 00000153 00000157 0000015e 0000015d 00000159 00000154 0000012a 00000134 0000014e; do
    [ "$(bus_count $code)" -gt 0 ] || fail "command $code was never recorded"
done
bus_clean "the whole day"
openssl rand 32 >keep/planted
needle planted <keep/planted
TSS2_LOG=all+none timeout 20 tpm2_create -T "$bus_tcti" -C 0x81000001 -i keep/planted -u keep/p.pub -r keep/p.priv >/dev/null
expect_exit 1 timeout 60 "$top/build/tests/system/bytesearch" keep/needles --files "$bus/bus.bin"
grep -q '^FOUND: planted' out || fail "what crossed in clear is not found"
grep '^FOUND: ' out | grep -vE '^FOUND: (planted|searched)' && fail "more than what was planted"
true
