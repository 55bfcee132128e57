#!/bin/bash
# A root key under PCRs, or under a policy that somebody signs, opens while they fit and not else: then nothing is served,
# status says why, nothing is lost, and it works again as soon as an approved policy fits.
# bound: 180
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
umask 077
tpm() { TSS2_LOG=all+none timeout 20 "tpm2_$1" -T "$CSM_TPM_TCTI" "${@:2}"; }
extend() { tpm pcrextend "$1:sha256=$(openssl rand -hex 32)"; }
restart() {
    node_csmd_stop "$node"
    node_csmd_start "$node" || fail "csmd does not start again"
}
configure() { # WHAT THE tpm SECTION HAS BESIDES
    node_csmd_stop "$node"
    sed -i "s|^tpm: .*|tpm: {tcti: \"$CSM_TPM_TCTI\"$1}|" "$node/csmd.yaml"
    node_csmd_start "$node" || fail "csmd does not start with $1"
}
serves() {
    expect_equal "state" "$(status_field state)" ready
    expect_equal "root key" "$(status_field root_key_state)" open
    expect_equal "value" "$(csm secret get d/s k)" value
    csm sign k msg -o sig
    openssl dgst -sha256 -verify pub.pem -signature sig msg >/dev/null || fail "$1: no good signature"
}
refuses() { # TEXT OF A WARNING
    expect_equal "state" "$(status_field state)" starting
    expect_equal "root key" "$(status_field root_key_state)" refused
    status_field warnings | contains "root key refused by its PCR policy: .*$1" || fail "status does not say: $1"
    expect_exit 6 csm --timeout 2 secret get d/s k
    expect_exit 6 csm --timeout 2 sign k msg
    expect_exit 6 csm --timeout 2 reseal
}
ok csm domain create d
ok csm secret set d/s k=value
ok csm key create k --backend tpm2
csm key public k >pub.pem
echo data >msg

step "PCRs: nothing before a reseal, then 7 and 10 count and 4 does not"
configure ', pcrs: [7, 10]'
serves "before"
status_field warnings | contains "csm reseal" || fail "status does not say that a reseal is due"
expect_equal "sealed" "$(status_field root_key_sealed)" none
expect_equal "resealed" "$(csm reseal --json | json sealed)" sha256:7,10
status_field warnings | contains "csm reseal" && fail "a reseal is due after a reseal"
grep -q '"method":"reseal"' "$node"/state/audit/audit.log || fail "the audit log does not tell of it"
extend 4
restart
serves "another PCR was extended"
extend 10
serves "running"
expect_exit 3 csm --timeout 5 reseal # the old form does not open any more, and stays
grep -q "nothing has changed" err || fail "reseal does not say that nothing has changed"
serves "after a refused reseal"
restart
refuses "PCRs 7,10 are not as they were"
cp -r "$node/state/store" before
sleep 2
refuses "PCRs 7,10 are not as they were"
cmp -s before/data.mdb "$node/state/store/data.mdb" || fail "a refused start has changed the store"
expect_equal "lockout counter" "$(status_field tpm.lockout_counter)" 0

step "the TPM's reset brings the PCRs back, and with them the root key"
pid=$(node_pid "$node" swtpm)
kill -9 "$pid"
node_await 5 node_gone "$pid"
node_swtpm_start "$node" || fail "swtpm does not start"
back() { [ "$(status_field state)" = ready ]; }
node_await 20 back || fail "csmd does not serve though the PCRs are as they were"
serves "after the reset"

step "a signed policy: what its key approves, before or after the change, lets the same root key in"
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out signer.key
openssl pkey -in signer.key -pubout -out "$node/signer.pem"
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out other.key
chmod 644 "$node/signer.pem"
approve() { # KEY: of the PCRs as they are
    tpm pcrread sha256:0,7 >pcrs
    ok csm approval sign --signer "$1" --pcrs pcrs -o approved
    chmod 644 approved
}
approve other.key
cp approved "$node/approved"
configure ", policy_key: $node/signer.pem, policy_file: $node/approved"
expect_exit 3 csm reseal # it would lock the node out
grep -q "would not come out again" err || fail "reseal does not say what it found"
restart
serves "after a reseal that was refused"
approve signer.key
cp approved "$node/approved"
configure ", policy_key: $node/signer.pem, policy_file: $node/approved"
expect_equal "resealed" "$(csm reseal --json | json sealed)" signed
restart
serves "approved"
extend 7
restart
refuses "no approved policy"
approve other.key
cp approved "$node/approved"
sleep 1.5
refuses "not signed by the policy's key"
echo nonsense >"$node/approved"
sleep 1.5
refuses "fault in line 1"
approve signer.key
cat approved >"$node/approved"
node_await 20 back || fail "csmd does not serve though the signer has approved of the PCRs"
serves "approved after the change"

step "approved before the change: both in one file"
old=$(cat approved)
tpm pcrread sha256:0,7 >pcrs
value=$(openssl rand -hex 32)
new=$(sed -n 's/.*7 *: 0x//p' pcrs | tr A-F a-f)
printf '%s%s' "$new" "$value" | xxd -r -p | openssl dgst -sha256 -binary | xxd -p -c 32 >next
sed -i "s/\(7 *: 0x\).*/\1$(cat next)/" pcrs
ok csm approval sign --signer signer.key --pcrs pcrs -o approved
printf '%s\n' "$old" | cat - approved >"$node/approved"
restart
serves "before the update"
tpm pcrextend "7:sha256=$value"
restart
serves "after the update"

step "an approval that is broken, or another's, does not stand in the way of the signer's"
approve other.key
other=$(cat approved)
approve signer.key
sed 's/^\(signature: 30......\)../\1ff/' approved >broken
cmp -s approved broken && fail "nothing is broken"
printf '%s\n' "$(cat broken)" "$other" "$(cat approved)" >"$node/approved"
restart
serves "behind two that are not the signer's"

step "another signer: as long as both approve, one reseal leads from one to the other"
openssl pkey -in other.key -pubout -out "$node/other.pem"
chmod 644 "$node/other.pem"
change() { # FROM KEY, ITS APPROVAL, TO KEY, ITS APPROVAL: in this order and the other
    for order in "$2" "$4"; do
        if [ "$order" = "$2" ]; then printf '%s\n' "$2" "$4"; else printf '%s\n' "$4" "$2"; fi >"$node/approved"
        configure ", policy_key: $node/$3.pem, policy_file: $node/approved"
        serves "the configuration names $3, $1 approves"
    done
    status_field warnings | contains "csm reseal" || fail "status does not say that a reseal is due"
    expect_equal "resealed" "$(csm reseal --json | json sealed)" signed
    status_field warnings | contains "csm reseal" && fail "a reseal is due after a reseal"
    printf '%s\n' "$4" >"$node/approved"
    restart
    serves "by $3 alone"
}
change signer "$(cat approved)" other "$other"
cp approved "$node/approved"
restart
refuses "not signed by the policy's key"
printf '%s\n' "$other" >"$node/approved"
node_await 20 back || fail "csmd does not serve though the new signer approves"

step "out of the signed policy: its approvals without its key, and a reseal"
configure ""
refuses "policy_file) cannot be read, or is not configured"
configure ", policy_file: $node/approved"
serves "by an approval whose key is not configured"
expect_equal "resealed" "$(csm reseal --json | json sealed)" none
status_field warnings | contains "policy_file without policy_key" || fail "status does not say that policy_file is idle"
configure ""
serves "under none"
status_field warnings | contains "policy_file\|csm reseal" && fail "status warns of what is done"
exit 0
