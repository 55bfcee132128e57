#!/bin/bash
# A node whose TPM was cleared says so and serves nothing. By K of its N recovery shares every secret and every software key
# works again; keys in the old TPM are told as lost, and stay so. The counter's start anew has to be accepted by word.
# bound: 180
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
umask 077
tpm() { TSS2_LOG=all+none timeout 20 "tpm2_$1" -T "$CSM_TPM_TCTI" "${@:2}" >/dev/null; }
restart() {
    node_csmd_stop "$node"
    node_csmd_start "$node" || fail "csmd does not start again"
}
clear_tpm() {
    node_csmd_stop "$node"
    tpm clear -c p
    node_csmd_start "$node" || fail "csmd does not start with a cleared TPM"
}
signs() { # KEY
    csm sign "$1" msg -o sig
    openssl dgst -sha256 -verify "$1.pem" -signature sig msg >/dev/null || fail "no good signature of $1"
}
everything() { # WHEN
    expect_equal "state, $1" "$(status_field state)" ready
    expect_equal "root key, $1" "$(status_field root_key_state)" open
    for i in 1 2 3; do
        expect_equal "secret, $1" "$(csm secret get d/s$i k)" "value $i"
    done
    expect_equal "versions, $1" "$(csm secret get d/s1 k --version 1)" "older"
    signs soft
    csm unseal sealed | cmp -s - data || fail "sealed data does not open, $1"
    ok csm audit verify
}
state_of() { csm key show "$1" --json | json state; }
echo data >msg
echo "to be sealed" >data
ok csm domain create d
ok csm secret set d/s1 k=older
for i in 1 2 3; do
    ok csm secret set d/s$i "k=value $i"
done
ok csm key create soft --backend soft
ok csm key create hard --backend tpm2
ok csm key create rsa --backend tpm2 --alg rsa2048
for k in soft hard; do
    csm key public $k >$k.pem
done
csm seal data -o sealed

step "without shares a cleared TPM is told, and there is nothing to restore with"
cp -a "$node/state" whole
cp -a "$node/tpm" tpm-before
expect_equal "shares" "$(csm recovery status --json | json present)" false
clear_tpm
expect_equal "root key" "$(status_field root_key_state)" lost
status_field warnings | contains "cleared.*there are no recovery shares" || fail "status does not tell what was lost"
expect_exit 6 csm --timeout 2 secret get d/s1 k
printf '%s' "$(printf '0000-%.0s' $(seq 22))" >nonsense
expect_exit 1 csm recovery restore nonsense
node_csmd_stop "$node"
node_swtpm_stop "$node"
rm -rf "$node/tpm"
cp -a tpm-before "$node/tpm"
node_swtpm_start "$node" || fail "swtpm does not start"
node_csmd_start "$node" || fail "csmd does not start with its own TPM"
everything "with its TPM back"

step "five shares, three needed"
mkdir shares
expect_exit 2 csm recovery create --shares 3 --threshold 4
expect_exit 2 csm recovery create --shares 3 --threshold 1
ok csm recovery create --shares 5 --threshold 3 shares
expect_equal "files" "$(find shares -type f -perm 600 | wc -l)" 5
expect_equal "shares" "$(csm recovery status --json | json shares)" 5
grep -q '"method":"recovery.create"' "$node/state/audit/audit.log" || fail "the audit log does not tell of the shares"
for f in shares/*; do
    share=$(grep -v '^#' "$f")
    grep -rqF "$share" "$node/state" "$node/csmd.log" && fail "a share is in a file of csmd's"
    grep -rqF "$(tr -d - <<<"$share" | cut -c 17-80)" "$node/state" "$node/csmd.log" && fail "a share is in a file of csmd's"
done
expect_exit 1 csm recovery restore shares/share-1-of-5.txt # the store is open

step "the TPM is cleared: nothing serves, and status says what to do"
clear_tpm
expect_equal "state" "$(status_field state)" starting
expect_equal "root key" "$(status_field root_key_state)" lost
status_field warnings | contains "csm recovery restore brings the root key back by 3 of the 5 shares" || fail "no word of the shares"
expect_exit 6 csm --timeout 2 secret get d/s1 k
expect_exit 7 csm recovery restore shares/share-1-of-5.txt shares/share-3-of-5.txt shares/share-5-of-5.txt
grep -q -- --accept-counter err || fail "the counter is not spoken of"
expect_equal "root key" "$(status_field root_key_state)" lost

step "three shares restore everything but what was in the TPM"
ok csm recovery restore --accept-counter --json shares/share-1-of-5.txt shares/share-3-of-5.txt shares/share-5-of-5.txt
expect_equal "new TPM" "$(json new_tpm <out)" true
expect_equal "lost" "$(json keys_lost <out)" 2
everything "restored"
lost() { # WHEN
    expect_equal "soft, $1" "$(state_of soft)" ready
    expect_equal "hard, $1" "$(state_of hard)" lost
    expect_equal "rsa, $1" "$(state_of rsa)" lost
    expect_equal "list, $1" "$(csm key list --json | grep -o '"state": *"lost"' | wc -l)" 2
    expect_equal "lost, $1" "$(csm recovery status --json | json keys_lost)" 2
    expect_exit 1 csm sign hard msg
    grep -q "it is lost" err || fail "a lost key is not told as lost, $1"
}
lost "restored"
grep -q '"method":"recovery.restore".*counter accepted, 2 keys lost' "$node/state/audit/audit.log" ||
    fail "the audit log does not tell of the recovery"
restart
everything "after a restart"
lost "after a restart"
ok csm key delete hard
ok csm key create hard --backend tpm2
expect_equal "made anew" "$(state_of hard)" ready
csm key public hard >hard.pem
signs hard
restart
signs hard
expect_equal "rsa" "$(state_of rsa)" lost

step "an older store is noticed by the new counter"
node_csmd_stop "$node"
cp -a "$node/state/store" older
node_csmd_start "$node"
ok csm secret set d/s1 k=newer
restart
node_csmd_stop "$node"
rm -rf "$node/state/store"
cp -a older "$node/state/store"
node_csmd_start "$node"
expect_equal "state of an older store" "$(status_field state)" locked
ok csm store accept

step "another TPM in its place, the shares from standard input and in other letters"
node_csmd_stop "$node"
node_swtpm_stop "$node"
rm -rf "$node/tpm"
node_swtpm_start "$node" || fail "swtpm does not start"
node_csmd_start "$node" || fail "csmd does not start with another TPM"
expect_equal "root key" "$(status_field root_key_state)" lost
grep -v '^#' shares/share-4-of-5.txt | tr -d - | tr a-f A-F | fold -w 20 >typed
ok csm recovery restore --accept-counter shares/share-2-of-5.txt - shares/share-5-of-5.txt <typed
everything "with another TPM"
expect_equal "hard" "$(state_of hard)" lost
