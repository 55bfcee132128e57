#!/bin/bash
# The TPM killed and started again while eight clients sign: only retryable errors, and each client signs again within
# five seconds of the TPM's return.
# alone
# bound: 240
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
export NODE_LIB=$top/scripts/node-lib.sh
py - "$(count 4 40)" <<'PY'
import os, subprocess, sys, threading, time
from csmwire import Conn, Refused, openssl_verifies
node, lib = os.environ["CSM_NODE_DIR"], os.environ["NODE_LIB"]
def shell(text):
    subprocess.run(["bash", "-c", '. "$1"; ' + text, "sh", lib, node], check=True, timeout=60,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
conn = Conn()
keys = ["k%d" % i for i in range(8)]
public = {}
for key in keys:
    conn.call("key.create", {"key": key, "backend": "tpm2"})
    public[key] = conn.call("key.public", {"key": key})["spki"]
over, last, faults, errors, count = threading.Event(), {}, [], {}, [0] * 8
def load(i):
    try:
        conn = Conn(timeout=60)
        while not over.is_set():
            try:
                answer = conn.call("key.sign", {"key": keys[i], "message": b"m%d" % i})
                last[i] = time.monotonic()
                count[i] += 1
                if count[i] % 200 == 1:
                    assert openssl_verifies(public[keys[i]], answer["signature"], b"m%d" % i), "bad signature"
            except Refused as refusal:
                errors[refusal.name] = errors.get(refusal.name, 0) + 1
                assert refusal.retryable, refusal
                time.sleep(0.02)
    except Exception as fault:
        faults.append((i, repr(fault)))
threads = [threading.Thread(target=load, args=(i,)) for i in range(8)]
for t in threads:
    t.start()
slowest = 0
for turn in range(int(sys.argv[1])):
    time.sleep(1)
    shell('kill -9 "$(node_pid "$2" swtpm)"; node_await 5 node_gone "$(node_pid "$2" swtpm)"')
    time.sleep(0.7)
    shell('node_swtpm_start "$2"')
    back = time.monotonic()
    while not faults and min(last.get(i, 0) for i in range(8)) < back:
        assert time.monotonic() - back < 5, "not signing 5 s after the TPM is back: %s" % errors
        time.sleep(0.01)
    slowest = max(slowest, time.monotonic() - back)
over.set()
for t in threads:
    t.join(90)
assert not faults, faults
assert not any(t.is_alive() for t in threads)
print("signatures: %d, errors: %s, slowest return: %.2f s" % (sum(count), errors, slowest))
PY
expect_equal "lockout counter" "$(status_field tpm.lockout_counter)" 0
