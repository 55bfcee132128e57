#!/bin/bash
# Another client of the TPM that flushes csmd's objects and sessions away, under load, costs retryable errors at most;
# csmd signs on, and never with another's key.
# alone
# bound: 180
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
py <<'PY'
import os, subprocess, threading, time
from csmwire import Conn, Refused, openssl_verifies
tcti = os.environ["CSM_TPM_TCTI"]
conn = Conn()
public = {}
for i in range(4):
    conn.call("key.create", {"key": "k%d" % i, "backend": "tpm2"})
    public[i] = conn.call("key.public", {"key": "k%d" % i})["spki"]
over, faults, count, errors, last = threading.Event(), [], [0] * 4, {}, {}
def load(i):
    try:
        conn = Conn(timeout=60)
        while not over.is_set():
            try:
                answer = conn.call("key.sign", {"key": "k%d" % i, "message": b"m"})
                assert count[i] % 50 or openssl_verifies(public[i], answer["signature"], b"m"), "another key signed"
                count[i] += 1
                last[i] = time.monotonic()
            except Refused as refusal:
                errors[refusal.name] = errors.get(refusal.name, 0) + 1
                assert refusal.retryable, refusal
                time.sleep(0.02)
    except Exception as fault:
        faults.append((i, repr(fault)))
def tool(*words):
    return subprocess.run([*words, "-T", tcti], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, check=False)
threads = [threading.Thread(target=load, args=(i,)) for i in range(4)]
for t in threads:
    t.start()
flushed = 0
for turn in range(6):
    time.sleep(0.3)
    for what in ("-t", "-l"):
        flushed += tool("tpm2_flushcontext", what).returncode == 0
    now = time.monotonic()
    while not faults and min(last.get(i, 0) for i in range(4)) < now:
        assert time.monotonic() - now < 5, errors
        time.sleep(0.01)
over.set()
for t in threads:
    t.join(90)
assert not faults, faults
assert flushed >= 6, "the other client did not get through"
print("signatures:", sum(count), "flushes:", flushed, "errors:", errors)
PY
