"""What one client feels of what goes on beside it, in short windows, with and without it in turn. Every request has to be
answered, none after more than 250 ms; how much the client's p99 grows is a figure, printed, and
with BESIDE_FIGURES=FILE written there as JSON.

Other work of the machine slows some windows, an attack that hurts slows them all: what counts is the least disturbed window of
each kind, or else the median of the ratios of neighbours.
"""

import json
import os
import socket
import subprocess
import time
import traceback

from csmwire import Conn, percentile

LONGEST_MS = 250
figures = {}


def checked(requests, longest_ms, p99_ms, seconds):
    assert requests > 0, "no request was answered in %.1f s" % seconds
    assert longest_ms < LONGEST_MS, "a request took %.3f s" % (longest_ms / 1e3)
    return p99_ms


def signatures(load, key, seconds):
    """p99 of one client's signatures in ms, made by tests/bench/load."""
    done = subprocess.run([load, "csm-sign", "--key", key, "--seconds", str(seconds)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, timeout=60, check=True)
    result = json.loads(done.stdout)
    return checked(result["requests"], result["max_us"] / 1e3, result["p99_us"] / 1e3, seconds)


class Signer:
    """A process of its own with a client that signs on and on, whatever comes and goes meanwhile, until end() has looked at it."""

    def __init__(self, key):
        self.sock, its = socket.socketpair()
        self.sock.settimeout(60)
        self.pid = os.fork()
        if self.pid == 0:
            self.sock.close()
            try:
                self.sign(key, its)
            except Exception:  # pylint: disable=broad-except
                traceback.print_exc()
            finally:
                os._exit(0)
        its.close()

    @staticmethod
    def sign(key, its):
        conn, n, longest = Conn(timeout=60), 0, 0
        its.setblocking(False)
        while True:
            begin = time.monotonic()
            conn.call("key.sign", {"key": key, "message": b"m%d" % n})
            longest, n = max(longest, time.monotonic() - begin), n + 1
            try:
                its.recv(1)
                its.setblocking(True)
                its.sendall(json.dumps([n, longest]).encode())
                return
            except BlockingIOError:
                pass

    def end(self):
        self.sock.sendall(b"e")
        answer = self.sock.recv(1000)
        os.waitpid(self.pid, 0)
        self.sock.close()
        assert answer, "a signature failed"
        n, longest = json.loads(answer)
        checked(n, longest * 1e3, None, 0)
        print("%d signatures beside all of it, the longest took %.1f ms" % (n, longest * 1e3), flush=True)


def compare(what, window, windows, begin, finish, calm=lambda: None, calm_finish=lambda _: None, goal=2):
    """As many windows beside what begin() starts and finish() ends as beside what calm() does, which is nothing by default; no more
    than it takes to see a ratio below the goal."""
    def beside(start, end):
        under_way = start()
        try:
            return window()
        finally:
            end(under_way)

    idle, hurt = [], []
    for _ in range(windows):
        idle.append(beside(calm, calm_finish))
        hurt.append(beside(begin, finish))
        ratio = min(min(hurt) / min(idle), percentile([h / i for h, i in zip(hurt, idle)], 50))
        if len(hurt) >= min(3, windows) and ratio < goal:
            break
    # A figure, not an assertion: what must hold is that each request is answered, and soon.
    print("%-36s p99 %.3f ms, idle %.3f ms, ratio %.2f, %d windows" % (
        what, min(hurt), min(idle), ratio, len(hurt)), flush=True)
    figures[what] = {"p99_ms": min(hurt), "idle_p99_ms": min(idle), "ratio": ratio, "windows": len(hurt)}


def write_figures():
    path = os.environ.get("BESIDE_FIGURES")
    if path:
        with open(path, "w", encoding="ascii") as out:
            json.dump(figures, out)
