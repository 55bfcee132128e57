#!/bin/bash
# tpm2-tools understand what csm states of a key: they read the statement, csm answers the credentials that they make, and
# they open those that csm makes.
# bound: 120
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2

trap 'node_swtpm_stop "$work/other"' EXIT
ok csm key create k
ok csm key attest k --nonce 6e6f6e6365 -o k.att
py - <<'PY'
import attest, hashlib
a = attest.load("k.att")
open("attest", "wb").write(a["attest"])
open("ek.pub", "wb").write(attest.b16(a["ek_public"]))
open("ak.name", "w").write("000b" + hashlib.sha256(a["ak_public"]).hexdigest())
PY

step "the statement, as they print it"
# They print the head of it, and then say that it is of the kind that TPM2_Certify makes.
timeout 20 tpm2_print -t TPMS_ATTEST attest >out 2>err || true
grep -qi 'magic: ff544347' out || fail "$(cat out)"
grep -qi 'extraData: 6e6f6e6365' out || fail "$(cat out)"
grep -q '0x8017' err || fail "$(cat err)"

step "their credential, answered by csm"
printf 'thirty-two bytes of a secret, ok' >secret.bin
ok timeout 20 tpm2_makecredential -T none -u ek.pub -s secret.bin -n "$(cat ak.name)" -o cred.tools
py - <<'PY'
import attest, hashlib
raw = open("cred.tools", "rb").read()
assert raw[:8].hex() == "badcc0de00000001", raw[:8]
n = int.from_bytes(raw[8:10], "big")
blob, rest = raw[10:10 + n], raw[10 + n:]
assert int.from_bytes(rest[:2], "big") == len(rest) - 2
a = attest.load("k.att")
names = {k: b"\0\x0b" + hashlib.sha256(a[p]).digest() for k, p in (("ak_name", "ak_public"), ("ek_name", "ek_public"))}
attest.save("challenge", {"version": 1, **names, "credential": blob, "secret": rest[2:]}, "CSM ATTESTATION CHALLENGE")
PY
ok csm attest activate challenge -o proof
py - <<'PY'
import attest, hashlib, hmac
p = attest.load("proof", "CSM ATTESTATION PROOF")
text = b"csm attest proof\0" + p["ak_name"] + p["ek_name"]
assert p["proof"] == hmac.new(open("secret.bin", "rb").read(), text, hashlib.sha256).digest(), p
PY

step "csm's credentials, opened by them, for endorsement keys of both kinds"
mkdir other
node_swtpm_start "$work/other" || fail "no swtpm"
export TPM2TOOLS_TCTI=swtpm:path=$work/other/tpm/sock
tools() { timeout 30 "$@" >>tools.log 2>&1 || { tail -5 tools.log >&2 && fail "$*"; }; }
for kind in ecc rsa; do
    tools tpm2_createek -c ek.ctx -G $kind -u tek.pub
    tools tpm2_flushcontext -t
    tools tpm2_createak -C ek.ctx -c tak.ctx -G ecc -g sha256 -s ecdsa -u tak.pub -n tak.name
    tools tpm2_flushcontext -t
    tools tpm2_flushcontext -l
    py - <<'PY'
import attest
a = attest.load("k.att")
attest.save("t.att", {**a, "ak_public": open("tak.pub", "rb").read()[2:], "ek_public": open("tek.pub", "rb").read()[2:]})
PY
    ok csm attest challenge t.att --secret-file s -o c
    py - <<'PY'
import attest
c, s = attest.load("c", "CSM ATTESTATION CHALLENGE"), attest.load("s", "CSM ATTESTATION SECRET")
open("cred.csm", "wb").write(bytes.fromhex("badcc0de00000001") + attest.b16(c["credential"]) + attest.b16(c["secret"]))
open("wanted", "wb").write(s["secret"])
assert c["ak_name"] == open("tak.name", "rb").read(), c
PY
    tools tpm2_startauthsession --policy-session -S s.ctx
    tools tpm2_policysecret -S s.ctx -c e
    tools tpm2_activatecredential -c tak.ctx -C ek.ctx -i cred.csm -o opened -P session:s.ctx
    tools tpm2_flushcontext s.ctx
    tools tpm2_flushcontext -t
    expect_same "$kind: the secret" wanted opened
done
