#!/bin/bash
# One TPM command a signature with a hot key, also when it was attested, at most three with 20 keys in turn; and when csmd has stopped nothing of
# its own is left in the TPM.
# bound: 240
# bound-long: 2400
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2

py - "$(count 10000 70000)" <<'PY'
import sys
from csmwire import Conn, ADMIN, Refused
signatures = int(sys.argv[1])
conn, admin = Conn(timeout=60), Conn(ADMIN)
def commands():
    return admin.call("status")["tpm"]["commands"]
for i in range(20):
    conn.call("key.create", {"key": "k%d" % i, "backend": "tpm2"})
conn.call("key.sign", {"key": "k0", "message": b"x"})
before, n = commands(), 500
for i in range(n):
    conn.call("key.sign", {"key": "k0", "message": b"m%d" % i})
hot = (commands() - before) / n
for i in range(20):
    conn.call("key.sign", {"key": "k%d" % i, "message": b"first"})
before = commands()
for i in range(n):
    conn.call("key.sign", {"key": "k%d" % (i % 20), "message": b"m%d" % i})
turns = (commands() - before) / n
print("commands a signature: hot %.3f, 20 keys in turn %.3f" % (hot, turns))
assert hot <= 1.01, hot
for i in range(5):
    conn.call("key.attest", {"key": "k0", "nonce": b"n%d" % i})
before = commands()
for i in range(n):
    conn.call("key.sign", {"key": "k0", "message": b"m%d" % i})
assert commands() - before == n, (commands() - before, n)
before = commands()
conn.call("key.attest", {"key": "k0"})
attest = commands() - before
print("commands an attestation:", attest)
assert attest <= 4, attest
assert turns <= 3.01, turns
# Many, pipelined, on one connection; the TPM's slots do not fill up.
before, sent, answered = admin.call("status")["tpm"]["loaded"], 0, 0
while answered < signatures:
    while sent < signatures and sent - answered < 64:
        conn.send("key.sign", {"key": "k%d" % (sent % 4), "message": b"m%d" % sent})
        sent += 1
    kind, msgid, error, result = conn.recv()
    assert error is None, error
    answered += 1
status = admin.call("status")["tpm"]
assert status["loaded"] <= status["slots"], status
print("signatures:", answered, "loaded:", status["loaded"], "of", status["slots"])
PY

step "after a clean stop the TPM is free of csmd's objects and sessions"
node_csmd_stop "$node"
for what in handles-transient handles-loaded-session handles-saved-session; do
    timeout 20 tpm2_getcap -T "$CSM_TPM_TCTI" $what >left
    [ ! -s left ] || { cat left >&2 && fail "$what left in the TPM"; }
done
