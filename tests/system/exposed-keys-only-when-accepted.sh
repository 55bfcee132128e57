#!/bin/bash
# The files of ONAP's tpm-util tell their key to everyone: csm recognises them, in each of their forms, refuses them, and
# takes them only with --accept-exposed; the key then says of itself that it was exposed. Files that do not belong together
# are refused in any case, and so is a set with a seed that is none of zeros, but for another TPM.
# bound: 120
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
umask 077
sets() { py "$top/tests/lib/tpmutilset.py" "$@"; }
echo "a message" >message

for bits in 2048 3072; do
    openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:$bits -out rsa$bits.pem 2>/dev/null
    openssl pkey -in rsa$bits.pem -pubout -out rsa$bits.pub
done
sets rsa2048.pem raw raw
sets rsa2048.pem raw3 raw3
sets rsa2048.pem standard standard
sets rsa3072.pem big standard
[ "$(stat -c %s raw.pub raw.priv raw.seed raw.inner | xargs)" = "360 912 258 68" ] || fail "the set is not one of tpm-util"

step "recognised and refused"
for set in raw raw3 standard big; do
    expect_exit 1 csm key import key $set.pub $set.priv $set.seed $set.inner
    grep -q 'accept-exposed' err || { cat err >&2 && fail "$set: it does not say what it is"; }
    expect_exit 1 csm key import key $set.inner $set.priv $set.seed $set.pub
done
expect_equal "keys" "$(csm key list --json)" "[]"

step "taken when told to, for either back end"
for set in raw raw3 standard big; do
    for backend in tpm2 soft; do
        ok csm key import $set-$backend --accept-exposed --backend $backend $set.seed $set.priv $set.inner $set.pub --json
        expect_equal "how it came" "$(json origin <out)" exposed
        expect_equal "where it is" "$(json backend <out)" $backend
        ok csm key show $set-$backend --json
        expect_equal "how it came, later" "$(json origin <out)" exposed
        pub=rsa2048.pub
        [ $set != big ] || pub=rsa3072.pub
        ok csm sign $set-$backend message -o signature
        ok openssl dgst -sha256 -verify $pub -signature signature message
        expect_exit 1 openssl dgst -sha256 -verify $pub -signature signature raw.pub
    done
done
ok csm key import without-seed --accept-exposed raw.pub raw.priv raw.inner

step "what does not belong together"
csm key list --json >before
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out other.pem 2>/dev/null
sets other.pem other raw
sets rsa2048.pem sealed raw seed
refused() {
    expect_exit 1 csm key import refused --accept-exposed "$@"
    ! grep -q 'accept-exposed' err || fail "it says that $* is exposed"
}
refused other.pub raw.priv raw.seed raw.inner
refused raw.pub raw.priv raw.seed other.inner
refused raw.pub raw.priv raw.seed
refused raw.pub raw.pub raw.priv raw.inner
refused raw.pub raw.seed raw.inner
refused raw.priv raw.seed raw.inner
refused raw.pub
refused message
refused raw.pub raw.priv raw.seed message
head -c 911 raw.priv >short.priv
refused raw.pub short.priv raw.seed raw.inner
{ head -c 911 raw.priv && printf x; } >padded.priv
refused raw.pub padded.priv raw.seed raw.inner
# Not exposed: the seed is the TPM's to open. It is another TPM's.
refused sealed.pub sealed.priv sealed.seed sealed.inner
refused sealed.pub sealed.priv sealed.seed
refused sealed.pub sealed.priv
csm key list --json >after
expect_same "the keys after all refusals" before after

step "a set in standard form that was wrapped for this TPM is no exposed one"
py - <<'PY'
import base64, json, subprocess
status = json.loads(subprocess.run(["csm", "status", "--json"], check=True, capture_output=True).stdout)
open("node.json", "w").write(json.dumps(status))
PY
ok csm wrap-key rsa2048.pem --to node.json --backend tpm2 -o wrapped
py - <<'PY'
import base64
body = base64.b64decode("".join(open("wrapped").read().split("\n")[1:-2]))[8 + 36:]
for name in ("pub", "priv", "seed"):
    n = 2 + int.from_bytes(body[:2], "big")
    open("own." + name, "wb").write(body[:n])
    body = body[n:]
PY
ok csm key import own own.priv own.pub own.seed --json
expect_equal "how it came" "$(json origin <out)" imported
ok csm sign own message -o signature
ok openssl dgst -sha256 -verify rsa2048.pub -signature signature message
