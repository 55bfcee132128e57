#!/bin/bash
# Keys of openssl genpkey, wrapped for a node and imported to its TPM and to its software back end, sign as their public
# halves say; and no byte of a private half is in files, logs, memory that is not locked, or on the TPM's bus. What was
# wrapped for another node, or changed by one bit, is refused, and so is a key in clear; then nothing has changed.
# bound: 240
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
. "$top/tests/lib/memory.sh"
. "$top/tests/lib/tpmbus.sh"
umask 077
mkdir keep
bus_start
pid=
trap '[ -z "$pid" ] || kill -9 $pid || true; bus_stop' EXIT
node_csmd_start "$node" || fail "csmd does not start with the proxy"
CSM_PID=$(node_broker_pid "$node")
kinds=(p256 p384 rsa2048 rsa3072)

genkey() { # KIND FILE
    case $1 in
    p*) openssl genpkey -algorithm EC -pkeyopt "ec_paramgen_curve:P-${1#p}" -out "$2" ;;
    rsa*) openssl genpkey -algorithm RSA -pkeyopt "rsa_keygen_bits:${1#rsa}" -out "$2" ;;
    esac 2>/dev/null
}
verifies() { # KEY PEM: what the node signs is good under the key of openssl's file
    local hash=sha256
    [[ $1 != p384* ]] || hash=sha384
    echo "of $1" >message
    ok csm sign "$1" message -o signature
    ok openssl dgst -$hash -verify "$2" -signature signature message
    echo "not of $1" >message
    expect_exit 1 openssl dgst -$hash -verify "$2" -signature signature message
}
keys() { csm key list --json; }

step "wrapped where there is no daemon, for the TPM and for the software"
ok csm status --json
cp out node.json
storage_name() { # BACKEND: the Name of this node's storage key
    py -c 'import json, sys
print([b for b in json.load(open("node.json"))["backends"] if b["name"] == sys.argv[1]][0]["storage_name"])' "$1"
}
for kind in "${kinds[@]}"; do
    genkey "$kind" "keep/$kind.pem"
    openssl pkey -in "keep/$kind.pem" -pubout -out "$kind.pub"
    openssl pkey -in "keep/$kind.pem" -outform DER -out "keep/$kind.der"
    py "$top/tests/lib/tpmutilset.py" --numbers "keep/$kind.pem" >>keep/needles
    for backend in tpm2 soft; do
        CSM_SOCKET=/nowhere ok csm wrap-key "keep/$kind.pem" --to node.json --backend $backend -o "$kind.$backend"
    done
done
search "wrapped files" --files "$work/p256.tpm2" --files "$work/rsa2048.soft"
finds "the search finds" --files "$work/keep/p256.der" --files "$work/keep/rsa3072.der"

step "imported, used"
for kind in "${kinds[@]}"; do
    for backend in tpm2 soft; do
        ok csm key import "$kind-$backend" "$kind.$backend" --json
        expect_equal "how it came" "$(json origin <out)" imported
        expect_equal "where it is" "$(json backend <out)" $backend
        verifies "$kind-$backend" "$kind.pub"
        expect_exit 7 csm key import "$kind-$backend" "$kind.$backend"
    done
done
ok csm key create made --json
expect_equal "how another came" "$(json origin <out)" made
everywhere "after the import"
bus_clean "import"
[ "$(bus_count 00000156)" -ge 4 ] || fail "the TPM's import did not cross the proxy"
finds "the keys of the software are in memory" --pid "$CSM_PID"
restart
for kind in "${kinds[@]}"; do
    for backend in tpm2 soft; do
        verifies "$kind-$backend" "$kind.pub"
    done
done
everywhere "after a restart"
bus_clean "use"

step "wrapped for another node"
keys >before
cat >other.sh <<'SH'
cd "$1" && csm status --json >other.json && csm key import taken p256.tpm2
status=$?
csm key list --json >other.keys
exit $status
SH
# The other node's TPM and store are its own; it refuses what is for this one.
chmod 755 . "$work"
status=0
env -u CSM_TPM_TCTI "$top/scripts/with-node.sh" --backend tpm2 -- sh "$work/other.sh" "$work" >out 2>err || status=$?
expect_equal "another node's import" "$status" 1
grep -q 'another node' err || { cat err >&2 && fail "it does not say why"; }
expect_equal "another node's keys" "$(cat other.keys)" "[]"
for backend in tpm2 soft; do
    ok csm wrap-key keep/p256.pem --to other.json --backend $backend -o foreign.$backend
    expect_exit 1 csm key import foreign foreign.$backend
    grep -q 'another node' err || fail "it does not say why"
done
# The wrapped part itself is for the other one, whatever stands beside it.
py - <<'PY'
import base64, csmwire
def body(path):
    return base64.b64decode("".join(open(path).read().split("\n")[1:-2]))
conn = csmwire.Conn()
for backend in ("tpm2", "soft"):
    ours, theirs = body("p256." + backend), body("foreign." + backend)
    at = 8 + 2 + 34
    for mixed in (ours[:at] + theirs[at:], theirs[:at] + ours[at:]):
        try:
            conn.call("key.import", {"key": "mixed", "wrapped": mixed})
        except csmwire.Refused:
            continue
        raise SystemExit("taken: mixed for " + backend)
PY
expect_exit 1 csm wrap-key keep/p256.pem --to other.json --backend tpm2 --name "$(storage_name tpm2)" -o never
[ ! -e never ] || fail "a file was written for a storage key that is not the one of --name"
ok csm wrap-key keep/p256.pem --to node.json --backend tpm2 --name "$(storage_name tpm2)" -o named

step "each bit of the file"
py - "$(count 40 2000)" <<'PY'
import base64, random, subprocess, sys
import csmwire
count = int(sys.argv[1])
rng = random.Random(20)
conn = csmwire.Conn(timeout=60)
for name in ("p256.tpm2", "p256.soft", "rsa2048.tpm2", "rsa2048.soft"):
    text = bytearray(open(name, "rb").read())
    body = bytearray(base64.b64decode(b"".join(bytes(text).split(b"\n")[1:-2])))
    # What the fields begin with, and bits anywhere.
    bits = set(range(0, 64)) | {8 * 8 + 7, 8 * 10, 8 * 44, 8 * 46, 8 * 50} | {rng.randrange(8 * len(body)) for _ in range(count)}
    for bit in sorted(bits):
        changed = bytearray(body)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            conn.call("key.import", {"key": "flipped", "wrapped": bytes(changed)})
        except csmwire.Refused:
            continue
        raise SystemExit("%s: taken with bit %d changed" % (name, bit))
    for cut in (0, 1, 7, 8, 9, 43, 44, len(body) - 1):
        try:
            conn.call("key.import", {"key": "cut", "wrapped": bytes(body[:cut])})
        except csmwire.Refused:
            continue
        raise SystemExit("%s: taken cut off at %d" % (name, cut))
    for bit in sorted(rng.sample(range(8 * len(text)), count // 4)) + [8 * (len(text) - 1)]:
        changed = bytearray(text)
        changed[bit // 8] ^= 1 << bit % 8
        open("changed", "wb").write(changed)
        done = subprocess.run(["csm", "key", "import", "flipped", "changed"], capture_output=True, timeout=30)
        if done.returncode != 1:
            raise SystemExit("%s: exit %d with bit %d of the file changed" % (name, done.returncode, bit))
PY

step "a key in clear"
for plain in keep/p256.pem keep/rsa2048.der; do
    expect_exit 1 csm key import plain $plain
    grep -q 'csm wrap-key' err || fail "it does not say what to do"
done
openssl pkey -in keep/p256.pem -aes256 -passout pass:x -out keep/encrypted.pem
expect_exit 1 csm key import plain keep/encrypted.pem
grep -q 'csm wrap-key' err || fail "it does not say what to do"
keys >after
expect_same "the keys after all refusals" before after
everywhere "at the end"
bus_clean "at the end"

step "an encrypted private key asks for its passphrase"
py - <<'PY'
import os, pty, subprocess
pid, tty = pty.fork()
if pid == 0:
    os.execvp("csm", ["csm", "wrap-key", "keep/encrypted.pem", "--to", "node.json", "--backend", "soft", "-o", "asked"])
seen = b""
while b"passphrase: " not in seen:
    seen += os.read(tty, 1000)
os.write(tty, b"x\n")
try:
    while True:
        more = os.read(tty, 1000)
        if not more:
            break
        seen += more
except OSError:
    pass
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert status == 0, (status, seen)
PY
ok csm key import asked asked
verifies asked p256.pub
expect_exit 2 setsid csm wrap-key keep/encrypted.pem --to node.json -o never </dev/null
[ ! -e never ] || fail "a file was written without the passphrase"

step "what wrap-key holds is in locked memory"
mkfifo silent
for kind in p256 rsa2048; do
    csm wrap-key keep/$kind.pem --to node.json -o silent 2>wrap.err &
    pid=$!
    sleep 1
    search "wrap-key" --locked-ok --pid $pid
    ! grep -q 'cannot be locked' wrap.err || fail "its memory is not locked"
    kill $pid
    wait $pid 2>/dev/null || true
    pid=
done
mkfifo slow
csm wrap-key slow --to node.json -o wrapped 2>wrap.err &
pid=$!
exec 8>slow
cat keep/rsa2048.pem >&8
tries=100
until search "wrap-key that reads" --locked-ok --pid $pid && grep -q '^held: ' keep/found; do
    [ $((tries--)) -gt 0 ] || fail "it holds nothing"
    sleep 0.05
done
exec 8>&-
wait $pid || fail "wrap-key"
pid=
