#!/bin/bash
# A stop does not wait for what cannot come back: reloads that were asked for when it began are answered, what was accepted
# is answered, and the daemon ends by itself.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
py <<'PY'
import os, signal, time
from csmwire import ADMIN, Conn
broker = int(os.environ["CSM_PID"])
supervisor = int(open(os.environ["CSM_NODE_DIR"] + "/csmd.pid").read())
setup = Conn()
setup.call("key.create", {"key": "k", "alg": "rsa2048", "backend": "soft"})
admins = [Conn(ADMIN) for _ in range(8)]
signers = [Conn() for _ in range(4)]
for c in admins + signers:
    c.call("ping")
os.kill(broker, signal.SIGSTOP)
for c in admins:
    c.send("policy.reload")
for c in signers:
    for _ in range(10):
        c.send("key.sign", {"key": "k", "message": b"m"})
os.kill(supervisor, signal.SIGTERM)
time.sleep(0.3)
os.kill(broker, signal.SIGCONT)

def lives(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
start = time.monotonic()
while lives(broker) and time.monotonic() - start < 12:
    time.sleep(0.02)
took = time.monotonic() - start
assert took < 8, "the broker was still there after %.1f s" % took
log = open(os.environ["CSM_NODE_DIR"] + "/csmd.log").read()
assert "ended by signal" not in log, log[-500:]
PY
