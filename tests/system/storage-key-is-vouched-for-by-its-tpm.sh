#!/bin/bash
# csm wrap-key --attestation wraps for the storage key of the TPM that made the statement, and for no other one: not for that
# of another TPM, of another parent in the same TPM, or of csmd itself; and not by a statement that proves nothing.
# bound: 120
. "$(dirname "$0")/../lib/system.sh"
# shellcheck source=../lib/certtpm.sh
. "$(dirname "$0")/../lib/certtpm.sh"
in_node --backend tpm2

openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out secret.pem
ok csm status --json
cp out node.json
nonce=00112233445566778899
ok csm key create k
ok csm key attest k --nonce $nonce -o k.att
ok csm attest verify k.att --unproven --json
json ak <out >ak.pem

trap 'node_swtpm_stop "$work/a"' EXIT
certified_tpm "$work/a"
ca=(--ca a/ca/swtpm-localca-rootca-cert.pem --ca a/ca/issuercert.pem)
cat >on_a.sh <<'SH'
set -euo pipefail
csm key create k >/dev/null
csm key attest k -o a.att
csm attest challenge a.att --secret-file a.secret -o a.challenge
csm attest activate a.challenge -o a.proof
csm status --json >a.json
SH
CSM_TPM_TCTI=$certified_tcti timeout 100 "$top/scripts/with-node.sh" --backend tpm2 -- bash on_a.sh

wraps() {
    ok csm wrap-key secret.pem "$@" -o "wrapped.$((++n))"
    ! grep -q 'not checked' err || fail "it says that it was not checked"
}
refuses() { # WHY ARGS...
    expect_exit 1 csm wrap-key secret.pem "${@:2}" -o never
    grep -q "$1" err || fail "it says: $(cat err)"
    [ ! -e never ] || fail "a file was written: $*"
}
n=0

step "vouched for by the TPM's attestation key, known or proved"
wraps --to node.json --backend tpm2 --attestation k.att --ak ak.pem
wraps --to node.json --backend tpm2 --attestation k.att --ak ak.pem --nonce $nonce
ok csm key import there wrapped.1
wraps --to a.json --backend tpm2 --attestation a.att "${ca[@]}" --secret-file a.secret --proof a.proof

step "another storage key"
refuses 'storage-key: ' --to a.json --backend tpm2 --attestation k.att --ak ak.pem
refuses 'storage-key: ' --to node.json --backend tpm2 --attestation a.att "${ca[@]}" --secret-file a.secret --proof a.proof
refuses 'storage-key: ' --to node.json --backend soft --attestation k.att --ak ak.pem

step "another parent in the same TPM, whose statement is as good"
export TPM2TOOLS_TCTI=$CSM_TPM_TCTI
tools() { timeout 30 "$@" >>tools.log 2>&1 || { tail -5 tools.log >&2 && fail "$*"; }; }
tools tpm2_createprimary -C o -G ecc -c other.ctx -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt'
tools tpm2_readpublic -c other.ctx -o other.pub
tools tpm2_flushcontext -t
py - <<'PY'
import base64, json
pub = open("other.pub", "rb").read()
text = base64.b64encode(pub).decode()
pem = "-----BEGIN CSM STORAGE KEY-----\n" + "".join(text[i:i + 64] + "\n" for i in range(0, len(text), 64)) + "-----END CSM STORAGE KEY-----\n"
open("other.pem", "w").write(pem)
PY
wraps_unchecked() { ok csm wrap-key secret.pem --to other.pem -o other.wrapped; }
wraps_unchecked # the file is a storage key as such
refuses 'storage-key: ' --to other.pem --attestation k.att --ak ak.pem

step "a statement that proves nothing"
refuses 'link: ' --to node.json --backend tpm2 --attestation k.att
refuses 'ak-pin: ' --to a.json --backend tpm2 --attestation a.att --ak ak.pem
refuses 'link: ' --to a.json --backend tpm2 --attestation a.att "${ca[@]}"
refuses 'nonce: ' --to node.json --backend tpm2 --attestation k.att --ak ak.pem --nonce 0011
refuses 'another one than --name says' --to node.json --backend tpm2 --attestation k.att --ak ak.pem --name "000b$(printf '%064d' 0)"
expect_exit 2 csm wrap-key secret.pem --to node.json --ak ak.pem -o never
head -c 20 k.att >cut.att
expect_exit 1 csm wrap-key secret.pem --to node.json --attestation cut.att --ak ak.pem -o never
[ ! -e never ] || fail "a file was written"
