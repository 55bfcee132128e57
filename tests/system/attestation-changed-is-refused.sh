#!/bin/bash
# A TPM's statement about a key holds offline; with nonce, key, attestation key, endorsement key, its certificate,
# signature, kind or attributes changed, replaced or missing it is refused, and so is a challenge to another TPM.
# bound: 180
# coverage
. "$(dirname "$0")/../lib/system.sh"
# shellcheck source=../lib/certtpm.sh
. "$(dirname "$0")/../lib/certtpm.sh"
in_node --backend tpm2

trap 'node_swtpm_stop "$work/a"' EXIT
certified_tpm "$work/a"
cp a/ca/issuercert.pem a/ca/swtpm-localca-rootca-cert.pem .
ca=(--ca "$work/swtpm-localca-rootca-cert.pem" --ca "$work/issuercert.pem")
nonce=00112233445566778899aabbccddeeff

step "a node with a TPM whose maker certified it, and this one, whose TPM has no certificate"
cat >on_a.sh <<'SH'
set -euo pipefail
for k in k other; do
    csm key create $k >/dev/null
    csm key public $k -o $k.pem
    csm key attest $k --nonce "$1" -o $k.att
done
csm key create r --alg rsa2048 >/dev/null
csm key attest r -o r.att
csm attest challenge k.att --secret-file secret -o challenge
csm attest activate challenge -o proof
# A challenge that was changed on its way, in each part.
for what in ak_name ek_name credential secret; do
    python3 - "$what" <<'PY'
import sys
sys.path.insert(0, sys.argv[0] or ".")
import attest
c = attest.load("challenge", "CSM ATTESTATION CHALLENGE")
v = bytearray(c[sys.argv[1]])
v[-1] ^= 1
c[sys.argv[1]] = bytes(v)
attest.save("challenge.bad", c, "CSM ATTESTATION CHALLENGE")
PY
    status=0
    csm attest activate challenge.bad >bad.out 2>bad.err || status=$?
    [ $status -eq 1 ] && grep -q 'challenge is not for this TPM' bad.err || { echo "$what: $status" && cat bad.err && exit 1; } >&2
done
# One statement after another costs the keys that sign nothing: each of these signatures is one command.
csm sign k /dev/null -o /dev/null
cp "$CSM_NODE_DIR/state/"* . 2>/dev/null || true
SH
sed -i 's#^    python3 - #    PYTHONPATH=$LIB PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 - #; /sys.path.insert/d; /^# One statement/,/^cp /d' on_a.sh
LIB=$top/tests/lib CSM_TPM_TCTI=$certified_tcti timeout 100 "$top/scripts/with-node.sh" --backend tpm2 -- bash on_a.sh "$nonce"
expect_equal "who may read the secret" "$(stat -c %a secret)" 600
ok csm key create b
ok csm key attest b --nonce "$nonce" -o b.att

step "the statement holds; what is proven of it is told"
whole=(--nonce "$nonce" --key k.pem "${ca[@]}")
expect_exit 1 csm attest verify k.att "${whole[@]}"
grep -q '^link *FAILED *nothing proves' out || fail "what is not proven is not told: $(cat out)"
expect_exit 1 csm attest verify k.att --nonce "$nonce" --key k.pem --secret-file secret --proof proof
grep -q '^link *FAILED .*nobody vouched' out || fail "a proof without a CA: $(cat out)"
ok csm attest verify k.att "${whole[@]}" --unproven
grep -q '^ek-chain *ok' out || fail "the chain was not looked at"
grep -q '^link *not checked *nothing proves' out || fail "what is not proven is not told: $(cat out)"
ok csm attest verify k.att "${whole[@]}" --secret-file secret --proof proof --json
expect_equal link "$(json link <out)" proven
json ak <out >ak.pem
ok csm attest verify k.att "${whole[@]}" --ak ak.pem --json
expect_equal link "$(json link <out)" pinned
ok csm attest verify r.att "${ca[@]}" --unproven
grep -q '^nonce *not checked.*no nonce' out || fail "a statement without a nonce: $(cat out)"
ok csm attest verify b.att --nonce "$nonce" --unproven
grep -q 'holds no certificate' out || fail "the missing certificate is not told"

step "a challenge for the other TPM is not answered by this one"
expect_exit 1 csm attest activate challenge
grep -q 'not for this TPM' err || fail "$(cat err)"

step "keys and statements that are real, but not good: fixedParent, origin, kind"
export TPM2TOOLS_TCTI=$certified_tcti
tools() {
    timeout 30 "$@" >>tools.log 2>&1 || { tail -5 tools.log >&2 && fail "$*"; }
    timeout 30 tpm2_flushcontext -t
}
tools tpm2_createprimary -C o -G ecc -c prim.ctx
tools tpm2_create -C prim.ctx -G ecc:ecdsa-sha256:null -u tak.pub -r tak.priv \
    -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign'
tools tpm2_load -C prim.ctx -u tak.pub -r tak.priv -c tak.ctx
tools tpm2_readpublic -c tak.ctx -f pem -o tak.pem
tools tpm2_create -C prim.ctx -G ecc -u loose.pub -r loose.priv -a 'sensitivedataorigin|userwithauth|noda|sign'
tools tpm2_load -C prim.ctx -u loose.pub -r loose.priv -c loose.ctx
tools tpm2_certify -c loose.ctx -C tak.ctx -g sha256 -o loose.attest -s loose.sig
openssl ecparam -name prime256v1 -genkey -noout -out soft.pem 2>/dev/null
openssl pkey -in soft.pem -pubout -out soft.pub.pem
tools tpm2_import -C prim.ctx -G ecc -i soft.pem -u imp.pub -r imp.priv
tools tpm2_load -C prim.ctx -u imp.pub -r imp.priv -c imp.ctx
tools tpm2_certify -c imp.ctx -C tak.ctx -g sha256 -o imp.attest -s imp.sig
tools tpm2_quote -c tak.ctx -l sha256:0 -q "$nonce" -m quote.attest -s quote.sig

step "each change is told by its name"
openssl req -x509 -newkey rsa:2048 -nodes -keyout forger.key -out forger.pem -subj /CN=forger -days 30 2>/dev/null
openssl x509 -in <(openssl req -x509 -newkey rsa:2048 -nodes -keyout /dev/null -subj /CN=ek -days 30 2>/dev/null) \
    -outform DER -out self.der 2>/dev/null
# The maker's own certificate for that very key, as a server's.
openssl x509 -in <(py -c 'import attest, sys
sys.stdout.buffer.write(attest.load("k.att")["ek_certificate"])' | openssl x509 -inform DER) -noout -pubkey >ek.pub
openssl x509 -new -force_pubkey ek.pub -subj /CN=server -CA issuercert.pem -CAkey a/ca/signkey.pem -days 30 -outform DER -out server.der \
    -extfile <(echo extendedKeyUsage=serverAuth) 2>/dev/null
py - <<'PY'
import json, subprocess, sys
import attest
from attest import load, save, Attest, with_point, with_attributes, ec_sign

A, O, R, B = (load(n + ".att") for n in ("k", "other", "r", "b"))
NONCE, WHOLE = "00112233445566778899aabbccddeeff", None
CA = ["--ca", "swtpm-localca-rootca-cert.pem", "--ca", "issuercert.pem"]
# That the statement itself is judged, and not that nothing ties it to a TPM.
CA = CA + ["--unproven"]
GOOD = ["--nonce", NONCE, "--key", "k.pem"] + CA
FIXED_TPM, FIXED_PARENT, ORIGIN, RESTRICTED, SIGN, DECRYPT = 2, 0x10, 0x20, 0x10000, 0x40000, 0x20000
done = 0

def verify(args):
    p = subprocess.run(["csm", "attest", "verify", "case.att", "--json"] + args, capture_output=True, timeout=20)
    return p.returncode, p.stdout, p.stderr.decode()

def refused(what, statement, *checks, args=GOOD):
    """Exactly these checks fail."""
    global done
    save("case.att", statement)
    status, out, err = verify(args)
    assert status == 1 and out, (what, status, err)
    failed = sorted(c["check"] for c in json.loads(out)["checks"] if c["result"] == "failed")
    assert failed == sorted(checks), (what, failed, checks)
    assert json.loads(out)["valid"] is False and json.loads(out)["link"] == "unproven"
    done += 1

def accepted(what, statement, args=GOOD):
    save("case.att", statement)
    status, out, err = verify(args)
    assert status == 0 and json.loads(out)["valid"] is True, (what, out, err)

def no_statement(what, statement):
    global done
    save("case.att", statement)
    status, out, err = verify(GOOD)
    assert status == 1 and not out and "case.att" in err, (what, status, out, err)
    done += 1

def forged(change, ak=None, private="soft.pem"):
    """The statement changed and signed anew by a program."""
    s = Attest(A["attest"])
    change(s)
    return {**A, "attest": s.bytes(), "signature": ec_sign(private, s.bytes()),
            "ak_public": with_point(A["ak_public"], "soft.pub.pem") if ak is None else ak}

accepted("as it is", A)
# nonce
refused("another nonce wanted", A, "nonce", args=["--nonce", NONCE[:-2] + "fe", "--key", "k.pem"] + CA)
refused("a part of the nonce wanted", A, "nonce", args=["--nonce", NONCE[:-2], "--key", "k.pem"] + CA)
refused("made without a nonce", R, "nonce", args=["--nonce", NONCE] + CA)
# key
refused("another key wanted", O, "key")
refused("the public half is another key's", {**A, "public": O["public"]}, "name", "key")
refused("the public half claims more", {**A, "public": with_attributes(A["public"], set=RESTRICTED)}, "name")
# signature and what is signed
s = bytearray(A["signature"]); s[-1] ^= 1
refused("signature changed", {**A, "signature": bytes(s)}, "signature")
refused("signature of another statement", {**A, "signature": O["signature"]}, "signature")
refused("statement of another key, its public half kept", {**A, "attest": O["attest"], "signature": O["signature"]}, "name")
s = Attest(A["attest"]); s.parts[2] = bytes(25)
refused("clock changed", {**A, "attest": s.bytes()}, "signature")
s = Attest(A["attest"]); s.parts[1] = attest.b16(bytes.fromhex("ff" * 16))
refused("nonce changed", {**A, "attest": s.bytes()}, "signature", "nonce")
def bad_magic(s):
    s.magic = b"\xffTCH"
refused("not made by a TPM", forged(bad_magic), "magic")
quote = open("quote.attest", "rb").read()
tak = open("tak.pub", "rb").read()[2:]
refused("a quote, not a statement about a key", {**A, "attest": quote, "signature": open("quote.sig", "rb").read(),
        "ak_public": tak}, "type", "name")
# attestation key
refused("attestation key replaced", {**A, "ak_public": O["public"]}, "signature", "ak")
refused("attestation key with another point", {**A, "ak_public": with_point(A["ak_public"], "soft.pub.pem")}, "signature")
soft_ak = with_point(A["ak_public"], "soft.pub.pem")
refused("a key that signs anything", forged(lambda s: None, with_attributes(soft_ak, clear=RESTRICTED)), "ak")
refused("an attestation key that may leave", forged(lambda s: None, with_attributes(soft_ak, clear=FIXED_TPM)), "ak")
refused("an attestation key that was imported", forged(lambda s: None, with_attributes(soft_ak, clear=ORIGIN)), "ak")
refused("an attestation key that decrypts", forged(lambda s: None, with_attributes(soft_ak, set=DECRYPT)), "ak")
# All of it made up by a program: only the link tells, and it does.
lie = forged(lambda s: None)
accepted("made up, with nothing asked for", lie)
refused("made up, with nothing known", lie, "link", args=GOOD[:-1])
refused("made up, with the attestation key known", lie, "ak-pin", args=GOOD + ["--ak", "ak.pem"])
refused("made up, with a proof wanted", lie, "link", args=GOOD + ["--secret-file", "secret", "--proof", "proof"])
# endorsement key
refused("no certificate", {k: v for k, v in A.items() if k != "ek_certificate"}, "ek")
refused("no endorsement key", {k: v for k, v in A.items() if k != "ek_public"}, "ek")
refused("the endorsement key of another TPM", {**A, "ek_public": B["ek_public"]}, "ek")
refused("a certificate of a forger", {**A, "ek_certificate": open("self.der", "rb").read()}, "ek", "ek-chain")
refused("a certificate for another use", {**A, "ek_certificate": open("server.der", "rb").read()}, "ek-use")
refused("another CA wanted", A, "ek-chain", args=["--ca", "forger.pem", "--unproven"])
refused("the statement of a TPM without a certificate", B, "ek", args=["--nonce", NONCE] + CA)
c = bytearray(A["ek_certificate"]); c[-1] ^= 1
refused("the certificate's signature changed", {**A, "ek_certificate": bytes(c)}, "ek-chain")
# What it says itself is no command for a terminal.
save("case.att", {**B, "ek_missing": "\x1b]0;x\x07\x1b[2Jnone\u009b"})
shown = subprocess.run(["csm", "attest", "verify", "case.att", "--unproven"], capture_output=True, timeout=20)
assert shown.returncode == 0 and b"none" in shown.stdout and not set(shown.stdout) - set(range(0x20, 0x7f)) - {10}, shown
# proof
for what, path, field, label in (("secret", "secret", "secret", "SECRET"), ("proof", "proof", "proof", "PROOF"),
                                 ("its attestation key", "proof", "ak_name", "PROOF"), ("its endorsement key", "secret", "ek_name", "SECRET")):
    m = load(path, "CSM ATTESTATION " + label)
    v = bytearray(m[field]); v[-1] ^= 1
    save("changed", {**m, field: bytes(v)}, "CSM ATTESTATION " + label)
    files = {"secret": "secret", "proof": "proof", path: "changed"}
    refused("proof: " + what, A, "link", args=GOOD + ["--secret-file", files["secret"], "--proof", files["proof"]])
# Real keys of a real TPM that are not what they should be.
real = {**A, "ak_public": tak}
for name, checks in (("loose", ("fixed-tpm", "fixed-parent", "origin")), ("imp", ("fixed-tpm", "fixed-parent", "origin"))):
    refused(name, {**real, "public": open(name + ".pub", "rb").read()[2:], "attest": open(name + ".attest", "rb").read(),
                   "signature": open(name + ".sig", "rb").read()}, *checks, args=["--unproven"])
def parent(s):
    pub = with_attributes(A["public"], clear=FIXED_PARENT)
    import hashlib
    s.parts[3] = attest.b16(b"\0\x0b" + hashlib.sha256(pub).digest())
refused("fixedParent alone is missing", {**forged(parent), "public": with_attributes(A["public"], clear=FIXED_PARENT)},
        "fixed-parent", "origin")
# What is no statement at all.
for field in ("public", "attest", "signature", "ak_public"):
    no_statement(field + " missing", {k: v for k, v in A.items() if k != field})
    no_statement(field + " cut", {**A, field: A[field][:-1]})
    no_statement(field + " too long", {**A, field: A[field] + b"\0"})
no_statement("a later version", {**A, "version": 2})
no_statement("another kind", {**A, "type": "sgx"})
no_statement("a field that is not known", {**A, "more": 1})
no_statement("certificate and more", {**A, "ek_certificate": A["ek_certificate"] + b"\0"})

# openssl agrees with the good one.
assert attest.openssl_verifies("ak.pem", A["attest"], A["signature"])
assert not attest.openssl_verifies("ak.pem", O["attest"], A["signature"])
print("refused:", done)
PY
