"""Peers that are slow, silent, deaf, or flood: what others feel of them, and when csmd is through with them. Every
request of others has to be answered, none after more than 250 ms; how much their p99 grows is printed.

beside.py has how.
"""

import os
import select
import signal
import socket
import subprocess
import time

from beside import compare, signatures, write_figures
from csmwire import ADMIN, Closed, Conn, Refused, become, pack_request, rss_kib

PID = int(os.environ["CSM_PID"])
LOAD = os.environ["CSM_NODE_DIR"] + "/load"  # a copy that every uid can reach
PEERS = int(os.environ.get("SLOW_PEERS") or (1000 if os.environ.get("CSM_LONG") else 100))
WINDOWS, SECONDS = (10, 0.5) if PEERS >= 1000 else (2, 0.3)
PER_UID = 250
KEPT = 256  # of one uid, by default
CROWD, FLOODER = 59102, 59110


def bounded(what, begin, finish):
    compare(what, lambda: signatures(LOAD, "k", SECONDS), WINDOWS, begin, finish)


class Crowd:
    """Other users' processes that hold connections, on each of which `first` was sent and no more."""

    def __init__(self, n, first=b""):
        self.members = [self.member(CROWD + i // PER_UID, min(PER_UID, n - i), first) for i in range(0, n, PER_UID)]
        for sock, _ in self.members:
            assert sock.recv(1) == b"+", "a crowd was not let in"

    @staticmethod
    def member(uid, n, first):
        sock, its = socket.socketpair()
        sock.settimeout(60)
        pid = os.fork()
        if pid == 0:
            sock.close()
            try:
                become(uid)
                held = [Conn(timeout=20) for _ in range(n)]
                for conn in held:
                    if first:
                        conn.call("ping")
                        conn.send_raw(first)
                its.send(b"+")
                its.recv(1)
            finally:
                os._exit(0)
        its.close()
        return sock, pid

    def end(self):
        # Each has the ends of those before it: all are closed before one is waited for.
        for sock, _ in self.members:
            sock.close()
        for _, pid in self.members:
            os.waitpid(pid, 0)


class Storm:
    """A user who connects, asks, and goes, again and again, with so many seconds between."""

    def __init__(self, uid, pause):
        self.pid = os.fork()
        if self.pid == 0:
            become(uid)
            while True:
                try:
                    with Conn(timeout=5) as conn:
                        conn.call("ping")
                except (Closed, Refused, OSError, AssertionError):
                    pass
                if pause > 0:
                    time.sleep(pause)

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Flood:
    """One user with so many connections: those that are kept ask for signatures without end, 64 in flight each; the
    rest is told busy, and comes again after the second that it is told."""

    def __init__(self, n):
        kept = min(n, KEPT)
        self.load = subprocess.Popen(["setpriv", "--reuid", str(FLOODER), "--regid", str(FLOODER), "--clear-groups", LOAD,
                                      "csm-sign", "--key", "f", "--backend", "soft", "--clients", str(kept), "--depth",
                                      "64", "--epoll", "--seconds", "60", "--gate"],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        # All its connections are in before others of its uid could take their places; it goes on until it is ended.
        assert select.select([self.load.stdout], [], [], 20)[0] and self.load.stdout.readline() == b"ready\n", "no flood"
        self.storm = Storm(FLOODER, 1 / (n - kept)) if n > kept else None
        time.sleep(0.3)

    def end(self):
        if self.storm is not None:
            self.storm.end()
        assert self.load.poll() is None, "the flood ended by itself"
        self.load.terminate()
        self.load.wait(20)
        self.load.stdin.close()
        self.load.stdout.close()


def connections():
    with Conn(ADMIN) as admin:
        return admin.call("status")["connections"]


MESSAGE = pack_request(1, "ping", {"data": b"x" * 60})


def open_halves():
    halves = [Conn() for _ in range(50)]
    for conn in halves:
        conn.call("ping")
        conn.send_raw(MESSAGE[:10])
    return halves


def close_all(conns):
    for conn in conns:
        conn.close()


def ended(conn, byte):
    """Send one byte more; True when csmd has closed the connection."""
    try:
        conn.send_raw(byte)
        conn.sock.setblocking(False)
        return conn.sock.recv(4096) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        conn.sock.setblocking(True)


def deadlines():
    """Without a first message a connection ends in ten seconds; half a message too, though a byte comes now and then."""
    crowd, start = Crowd(PEERS), time.monotonic()
    assert connections() > PEERS  # the administrator gets in
    waiting, at = open_halves(), 10
    while waiting:
        assert time.monotonic() - start < 25, "%d half messages are still waited for" % len(waiting)
        time.sleep(1)
        waiting = [conn for conn in waiting if not ended(conn, MESSAGE[at:at + 1])]
        at = min(at + 1, len(MESSAGE) - 2)
        if waiting and time.monotonic() - start < 8:
            assert len(waiting) == 50, "ended before its time"
    time.sleep(max(0, start + 12 - time.monotonic()))
    left = connections()
    assert left < 40, "silent connections stay: %d" % left
    crowd.end()


def attacks():
    bounded("%d silent connections" % PEERS, lambda: Crowd(PEERS), Crowd.end)
    bounded("%d half messages" % PEERS, lambda: Crowd(PEERS, MESSAGE[:10]), Crowd.end)
    bounded("a flood of one uid, %d connections" % PEERS, lambda: Flood(PEERS), Flood.end)
    bounded("connections of one uid come and go", lambda: Storm(FLOODER, 0), Storm.end)


def open_deaf():
    conns = [Conn() for _ in range(20)]
    for conn in conns:
        conn.sock.setblocking(False)
        for n in range(200):
            try:
                conn.sock.send(pack_request(n, "secret.get", {"secret": "d/big"}))
            except BlockingIOError:
                break
    # What fits into the buffers is made; then nothing more.
    time.sleep(0.3)
    return conns


def deaf():
    """Readers that do not read: what they ask for is not made without end."""
    bounded("20 deaf readers", open_deaf, close_all)
    before = rss_kib(PID)
    conns = open_deaf()
    grown = rss_kib(PID) - before
    print("20 deaf readers hold %d KiB" % grown)
    assert grown < 120 * 1024, grown
    close_all(conns)


def main():
    with Conn() as conn:
        conn.call("key.create", {"key": "k", "alg": "p256"})
        conn.call("domain.create", {"domain": "d"})
        conn.call("secret.set", {"secret": "d/big", "pairs": [{"name": "k", "value": b"x" * 500000}]})
    before = rss_kib(PID)
    spoken = Conn()
    spoken.call("ping")
    attacks()
    deadlines()
    deaf()
    assert rss_kib(PID) - before < 160 * 1024, rss_kib(PID) - before
    # A connection that has spoken once may be silent for ever.
    spoken.call("ping")
    write_figures()


main()
