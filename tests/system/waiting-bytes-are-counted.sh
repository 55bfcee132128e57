#!/bin/bash
# What waits for a user is bounded: large requests in a row are all answered however many they are, while a user who has
# the disk held up, or sends many halves, gets busy, the broker's memory stays small, and others are served.
# bound: 180
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
py <<'PY'
import os, threading
from csmwire import Conn, become, pack_request, rss_kib
broker = int(os.environ["CSM_PID"])
conn = Conn(timeout=60)
conn.call("key.create", {"key": "k"})
conn.call("domain.create", {"domain": "d"})

# 40 MB through one connection, never aligned on a read.
count, answers = 80, []
def read():
    for _ in range(count):
        answers.append(conn.recv())
reader = threading.Thread(target=read)
reader.start()
conn.sock.sendall(b"".join(
    pack_request(1000 + i, "key.sign", {"key": "k", "message": b"m" * (500000 + i)}) for i in range(count)))
reader.join(60)
assert len(answers) == count and all(a[2] is None for a in answers), len(answers)

# Another user sends 100 halves of 600 KB each: at most its share is kept.
before = rss_kib(broker)
gate, told = os.pipe()
pid = os.fork()
if pid == 0:
    become(59102)
    message = pack_request(1, "ping", {"data": b"x"})
    big = pack_request(1, "secret.set", {"secret": "d/x", "pairs": [{"name": "a", "value": b"v" * 700000}]})[:600000]
    halves, closed = [], 0
    for _ in range(100):
        c = Conn(timeout=5)
        halves.append(c)
        try:
            c.sock.sendall(big)
        except OSError:
            closed += 1
    for c in halves:
        c.sock.setblocking(False)
        try:
            closed += c.sock.recv(4096) != None
        except BlockingIOError:
            pass
        except OSError:
            closed += 1
    os.write(told, b"%d" % closed)
    os.read(gate, 0)
    import time
    time.sleep(1.5)
    os._exit(0)
closed = int(os.read(gate, 64))
grown = rss_kib(broker) - before
assert closed >= 30, "only %d of 100 halves were turned away" % closed
assert grown < 80 * 1024, "the broker grew by %d KiB" % grown
assert conn.call("ping") is not None
os.waitpid(pid, 0)
PY
