#!/bin/bash
# Half a message, 1,000 connections that send nothing, readers that do not read: every request of others is answered, none
# after more than 250 ms (how much slower they become is a figure of `make bench`), memory is bounded, deadlines end them,
# the administrator gets in.
# alone
# bound: 240
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
ulimit -n 8192
py <<'PY'
import os, socket, threading, time
import resource
from csmwire import Closed, Conn, ADMIN, Refused, become, pack_request, percentile, rss_kib, open_fds
PID = int(os.environ["CSM_PID"])
setup = Conn()
setup.call("key.create", {"key": "k", "alg": "p256"})
setup.call("domain.create", {"domain": "d"})
setup.call("secret.set", {"secret": "d/big", "pairs": [{"name": "k", "value": b"x" * 500000}]})

def served(what, seconds=3):
    conn, times, end = Conn(), [], time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.perf_counter()
        assert len(conn.call("key.sign", {"key": "k", "digest": b"d" * 32})["signature"]) > 60
        times.append(time.perf_counter() - start)
    print("%-26s %6d answered, p99 %.3f ms, none over %.1f ms" % (
        what, len(times), percentile(times, 99) * 1e3, max(times) * 1e3), flush=True)
    assert max(times) < 0.25, "%s: a request took %.3f s" % (what, max(times))

served("idle", 2)
rss = rss_kib(PID)

# 1,000 connections of another user that send nothing: the first 256 are kept, the rest told busy and closed.
mine, its = socket.socketpair()
child = os.fork()
if child == 0:
    mine.close()
    become(59102)
    quiet, busy = [], 0
    for _ in range(1000):
        c = Conn(timeout=5)
        quiet.append(c)
    time.sleep(0.5)
    for c in quiet:
        c.sock.setblocking(False)
        try:
            data = c.sock.recv(4096)
            busy += 1
        except BlockingIOError:
            pass
        except ConnectionResetError:
            busy += 1
    its.send(b"%d" % busy)
    its.recv(1)
    os._exit(0)
its.close()
mine.settimeout(60)
refused = int(mine.recv(64))
assert refused >= 1000 - 256, refused
served("1,000 silent connections")
with Conn(ADMIN) as admin:
    assert admin.call("status")["connections"] >= 1
# Without a first message they are ended after their ten seconds.
time.sleep(11)
with Conn(ADMIN) as admin:
    left = admin.call("status")["connections"]
assert left < 40, "silent connections stay: %d" % left
mine.send(b".")
os.waitpid(child, 0)

# Half a message: ended after its ten seconds, though it sends a byte now and then.
message = pack_request(1, "ping", {"data": b"x" * 60})
halves = [Conn() for _ in range(50)]
for c in halves:
    c.call("ping")
    c.send_raw(message[:10])
start = time.monotonic()
served("50 half messages")
at = 10
gone = set()
while len(gone) < len(halves):
    assert time.monotonic() - start < 25, "%d half messages are still waited for" % (len(halves) - len(gone))
    time.sleep(1)
    for c in halves:
        if c in gone:
            continue
        try:
            c.send_raw(message[at:at + 1])
            c.sock.setblocking(False)
            if c.sock.recv(4096) == b"":
                gone.add(c)
        except BlockingIOError:
            pass
        except OSError:
            gone.add(c)
        finally:
            c.sock.setblocking(True)
    at = min(at + 1, len(message) - 2)
assert time.monotonic() - start > 8, "ended before its time"

# Idle connections that have spoken stay.
spoken = Conn()
spoken.call("ping")

# Readers that do not read: what they ask for is not made without end.
deaf = [Conn() for _ in range(20)]
for c in deaf:
    c.sock.setblocking(False)
    for n in range(200):
        try:
            c.sock.send(pack_request(n, "secret.get", {"secret": "d/big"}))
        except BlockingIOError:
            break
served("20 deaf readers")
grown = rss_kib(PID) - rss
print("grown by %d KiB" % grown)
assert grown < 160 * 1024, grown
for c in deaf:
    c.close()
time.sleep(12)
assert spoken.call("ping") is not None
PY
