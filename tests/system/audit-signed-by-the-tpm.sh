#!/bin/bash
# The TPM's attestation key signs the end of the audit log; with its public half a copy of the log is checked where there is
# neither csmd nor TPM, and lines before such a signature that were made anew, with all hashes, are found.
# bound: 120
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2

log=$node/state/audit
witnesses() { [ "$(grep -c '"event":"witness"' "$log/audit.log")" -ge "$1" ]; }
ok csm key create k
for i in 1 2 3 4 5 6 7 8; do denied as_uid $uid_b csm sign uid-0:k$i /dev/null; done
node_await 20 witnesses 1 || fail "no witness after a start"
ok csm key attest k -o k.att
ok csm attest verify k.att --unproven --json
json ak <out >ak.pem

step "with the running csmd"
ok csm audit verify --ak ak.pem
grep -q "^signed by the TPM's attestation key up to line number [0-9]" out || fail "$(cat out)"

step "a start more: one more witness, by the same key"
kill9 all "for the second start"
ok csm key create k2
node_await 20 witnesses 2 || fail "no witness after the second start"
ok csm audit verify --ak ak.pem --json
witnessed=$(json witnessed_to <out)
cp "$log/audit.log" copy.log

step "a stop: its own last line is vouched for as well"
ok csm key delete k2
node_csmd_stop "$node"
expect_equal "the last line" "$(tail -n 1 "$log/audit.log" | json event)" witness
expect_equal "it is up to" "$(tail -n 1 "$log/audit.log" | json upto)" "$(tail -n 2 "$log/audit.log" | head -n 1 | json seq)"
node_csmd_start "$node" || fail "csmd does not start"
node_await 20 witnesses 4 || fail "no witness after the third start"
ok csm audit verify --ak ak.pem --json
witnessed=$(json witnessed_to <out)
cp "$log/audit.log" copy.log

step "a copy, without csmd"
alone() { CSM_ADMIN_SOCKET=$work/none csm audit verify "$@"; }
ok alone --ak ak.pem --json copy.log
expect_equal "up to" "$(json witnessed_to <out)" "$witnessed"

step "what was changed, left out, or signed by another key"
openssl ecparam -name prime256v1 -genkey -noout 2>/dev/null | openssl pkey -pubout -out other.pem
expect_exit 1 alone --ak other.pem copy.log
grep -q 'not signed by the attestation key that was given' out || fail "$(cat out)"
py - "$log" <<'PY'
import auditlog, attest, json, os, subprocess, sys

lines = open("copy.log", "rb").read().splitlines()
at = [i for i, l in enumerate(lines) if b'"event":"witness"' in l]
docs = [json.loads(l) for l in lines]

def anew(changed):
    """The log with all hashes made again from the first line on, as the line's own form says."""
    out, before = [], bytes(32)
    for body in changed:
        line, before = auditlog.finish(body, before)
        out.append(line.rstrip(b"\n"))
    return out

def alone(lines, *args):
    open("case.log", "wb").write(b"".join(l + b"\n" for l in lines))
    p = subprocess.run(["csm", "audit", "verify", "--ak", "ak.pem", "--json", "case.log", *args], capture_output=True,
                       timeout=20, env={**os.environ, "CSM_ADMIN_SOCKET": "/none"})
    return p.returncode, json.loads(p.stdout)

bodies = [auditlog.body_of(l) for l in lines]
status, good = alone(anew(bodies))
assert status == 0 and not good["problems"] and good["witnessed_to"] == docs[at[-1]]["upto"], good

# A line before the signature says something else, and everything fits again.
victim = next(i for i, d in enumerate(docs) if d["event"] == "denied" and d["seq"] <= docs[at[0]]["upto"])
forged = list(bodies)
forged[victim] = forged[victim].replace(b'"event":"denied"', b'"event":"change"')
status, found = alone(anew(forged))
assert status == 1 and [p["text"] for p in found["problems"]].count(
    "the TPM signed another line: lines before this one were changed") >= 1, found

# The signature, the number, the key's name changed.
for what, change in (("signature", lambda b: b[:-2] + (b"0" if b[-2:-1] != b"0" else b"1") + b[-1:]),
                     ("number", lambda b: b.replace(b'"upto":%d,' % docs[at[0]]["upto"], b'"upto":%d,' % (docs[at[0]]["upto"] - 1))),
                     ("key", lambda b: b.replace(b'"ak":"', b'"ak":"00', 1).replace(docs[at[0]]["ak"].encode(), docs[at[0]]["ak"][:-2].encode())),
                     ("form", lambda b: b.replace(b'"upto"', b'"upta"'))):
    forged = list(bodies)
    forged[at[0]] = change(forged[at[0]])
    assert forged[at[0]] != bodies[at[0]], what
    status, found = alone(anew(forged))
    assert status == 1 and found["problems"] and found["problems"][0]["problem"] in ("signature", "changed"), (what, found)

# Left out, so that nothing is signed by the TPM any more.
forged = [b.replace(b'"event":"witness"', b'"event":"removed"') for b in bodies]
status, found = alone(anew(forged))
assert status == 1 and found["witnessed_to"] is None, found

# openssl agrees.
d = docs[at[-1]]
text = b"csm audit witness" + d["upto"].to_bytes(8, "big") + bytes.fromhex(d["head"])
open("sig", "wb").write(bytes.fromhex(d["signature"]))
for t, wanted in ((text, 0), (text[:-1] + bytes([text[-1] ^ 1]), 1)):
    got = subprocess.run(["openssl", "dgst", "-sha256", "-verify", "ak.pem", "-signature", "sig"], input=t,
                         capture_output=True, timeout=20).returncode
    assert got == wanted, got
assert json.loads(lines[d["upto"] - docs[0]["seq"]])["hash"] == d["head"]
PY
