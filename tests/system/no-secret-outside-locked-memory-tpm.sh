#!/bin/bash
# With a root key that the TPM seals, or a passphrase protects: neither it, nor what it protects, nor the owner's
# authorisation, nor the passphrase is in files or in memory that is not locked.
# bound: 240
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
. "$top/tests/lib/memory.sh"
umask 077
mkdir keep

step "an owner's authorisation, a root key sealed by the TPM"
openssl rand -hex 20 | tr -d '\n' >keep/owner_auth
needle owner_auth <keep/owner_auth
node_csmd_stop "$node"
tpm() { TSS2_LOG=all+none timeout 20 "tpm2_$1" -T "$CSM_TPM_TCTI" "${@:2}" >/dev/null; }
tpm changeauth -c owner "file:keep/owner_auth"
sed -i "s|^tpm: {|tpm: {owner_auth: \"@$work/keep/owner_auth\", |" "$node/csmd.yaml"
node_csmd_start "$node" || fail "csmd does not start with the owner's authorisation"
CSM_PID=$(node_broker_pid "$node")
session make
session_foreign
rm -rf copy
cp -r "$node/state" copy
chown -R 0:0 copy
"$top/build/tests/system/storekeys" "$work/copy" - wrapped >keep/wrapped
py - <<'PY'
# magic, TPM2B_PUBLIC, TPM2B_PRIVATE
import struct
blob = bytes.fromhex(open("keep/wrapped").read())[4:]
n = 2 + struct.unpack(">H", blob[:2])[0]
open("keep/blob.pub", "wb").write(blob[:n])
open("keep/blob.priv", "wb").write(blob[n:])
PY
tpm load -C 0x81000001 -u keep/blob.pub -r keep/blob.priv -c keep/blob.ctx
TSS2_LOG=all+none timeout 20 tpm2_unseal -T "$CSM_TPM_TCTI" -c keep/blob.ctx -o keep/root
store_needles "$work/keep/root" tpm
grep -q '^root:' keep/needles || fail "no needle of the root key"
tpm flushcontext -t
session once
everywhere "after the session"
finds "keys that are loaded" --pid "$CSM_PID"
for held in 'scalar:p256: reversed' 'kek:.*inner-state, outer-state' 'subkey:scope: inner-state, outer-state'; do
    grep -q "^FOUND: $held;" out || fail "not found: $held"
done
restart
everywhere "after the start"
session once
everywhere "after use"

step "a root key under a passphrase"
node_csmd_stop "$node"
openssl rand -base64 30 >keep/passphrase
rm keep/needles
tr -d '\n' <keep/passphrase | needle passphrase
rm -rf "$node/state" keep/value:* keep/pin:* keep/sealed:*
node_make "$node" soft '' ''
cat >keep/add <<END
root_key: passphrase
root_key_file: $work/keep/passphrase
END
mkdir -p "$node/rootkey"
node_make "$node" soft '' '' "$work/keep/add"
node_csmd_start "$node" || fail "csmd does not start with a passphrase"
CSM_PID=$(node_broker_pid "$node")
everywhere "after the first start"
session make
session_foreign
store_needles "$work/keep/passphrase" passphrase
session once
everywhere "after the session"
restart
everywhere "after the start"
finds "the passphrase's file" --files "$work/keep/passphrase"
finds "the passphrase in the supervisor, for the next broker" --pid "$(node_pid "$node" csmd)"
