#!/bin/bash
# 100 reloads under load: no connection ends, no request fails.
# bound: 180
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
py - "$(count 100 1000)" <<'PY'
import os, sys, threading, time
from csmwire import Conn, ADMIN
reloads = int(sys.argv[1])
setup = Conn()
setup.call("key.create", {"key": "k"})
setup.call("domain.create", {"domain": "d"})
setup.call("secret.set", {"secret": "d/s", "pairs": [{"name": "k", "value": b"v"}]})
over, faults, done = threading.Event(), [], []
def load(i):
    n = 0
    try:
        conn = Conn()
        while not over.is_set():
            if i % 3 == 0:
                conn.call("key.sign", {"key": "k", "message": b"m"})
            elif i % 3 == 1:
                conn.call("secret.get", {"secret": "d/s"})
            else:
                conn.call("secret.set", {"secret": "d/s%d" % i, "pairs": [{"name": "k", "value": b"%d" % n}]})
            n += 1
    except Exception as fault:
        faults.append((i, n, repr(fault)))
    done.append(n)
threads = [threading.Thread(target=load, args=(i,)) for i in range(9)]
for t in threads:
    t.start()
policy = os.environ["CSM_NODE_DIR"] + "/policy.yaml"
admin = Conn(ADMIN)
for n in range(reloads):
    with open(policy + ".new", "w") as f:
        f.write("version: 1\ndefault: uid-namespaces\nidentities:\n  x%d: {uid: %d}\n" % (n, n))
    os.rename(policy + ".new", policy)
    admin.call("policy.reload")
    time.sleep(0.005)
over.set()
for t in threads:
    t.join(30)
assert not faults, faults[:3]
assert len(done) == 9 and min(done) > 0, done
print("requests:", sum(done), "reloads:", reloads)
PY
