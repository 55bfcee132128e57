"""A CA that hangs in each phase in turn, under all four channels of csm-enrol, and a client of csmd that signs meanwhile:
hanging_ca.py PORT PORT-FOR-CONNECT LOAD WINDOWS. beside.py has how it is measured. What it is held against is the same client while
the same server hangs under four others, who are none of csm's."""
import functools
import select
import socket
import ssl
import sys
import threading
import time

import hanging
from beside import Signer, compare, signatures, write_figures
from csmwire import Conn

PORT, FULL, LOAD, WINDOWS = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
SECONDS = 0.3 if WINDOWS == 1 else 0.5
CHANNELS = 4
GOAL = 1.1
SYN_SENT = "02"
LAX = ssl._create_unverified_context()  # pylint: disable=protected-access


def await_that(what, condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


class Ca:
    """Hangs in `phase`; `held` are the connections that do."""

    def __init__(self):
        self.phase, self.held, self.lock = None, set(), threading.Lock()
        hanging.serve(self.play, PORT)

    def play(self, c):
        mine = c.dup()  # TLS takes the other one over
        with self.lock:
            self.held.add(mine)
        try:
            self.phase(c)
        finally:
            with self.lock:
                self.held.discard(mine)
            mine.close()

    def await_hanging(self, heads):
        await_that("not four connections that hang", lambda: len(self.held) >= CHANNELS and len(hanging.heads) >= heads)

    def drop(self):
        with self.lock:
            for c in self.held:
                try:
                    c.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        await_that("connections stay", lambda: not self.held)


class Jobs:
    """Four jobs of csm-enrol, on their way as long as the CA hangs."""

    def __init__(self, profile):
        self.conns = [Conn(timeout=60) for _ in range(CHANNELS)]
        for i, conn in enumerate(self.conns):
            conn.send("cert.enrol", {"key": "k%d" % i, "profile": "%s%d" % (profile, i)})

    def still_hang(self):
        answered = select.select([c.sock for c in self.conns], [], [], 0)[0]
        assert not answered, "answered: %r" % Conn.recv(next(c for c in self.conns if c.sock in answered))

    def end(self):
        for conn in self.conns:
            error = conn.recv()[2]
            assert error is not None and error["name"] == "unavailable", error
            conn.close()


def strangers():
    """The same load, none of it csm's."""
    def ask():
        try:
            c = LAX.wrap_socket(socket.create_connection(("127.0.0.1", PORT)))
            c.sendall(b"GET / HTTP/1.1\r\n\r\n")
            hanging.silent(c)
        except OSError:
            pass
    threads = [threading.Thread(target=ask, daemon=True) for _ in range(CHANNELS)]
    for t in threads:
        t.start()
    return threads


def phase(ca, name, play, has_head):
    ca.phase = play

    def begin(start):
        heads = len(hanging.heads) + CHANNELS * has_head
        started = start()
        ca.await_hanging(heads)
        return started

    def finish(jobs):
        jobs.still_hang()
        assert len(ca.held) == CHANNELS, "a job did not hang all the time"
        ca.drop()
        jobs.end()

    def calm_finish(threads):
        ca.drop()
        for t in threads:
            t.join(30)

    compare(name, lambda: signatures(LOAD, "k", SECONDS), WINDOWS, lambda: begin(lambda: Jobs("p")), finish,
            lambda: begin(strangers), calm_finish, goal=GOAL)


def connecting():
    """Connections to FULL that nobody answers: csm-enrol's, which is a user of its own, and others."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table]
    users = [row[7] for row in rows if row[3] == SYN_SENT and row[2].endswith(":%04X" % FULL)]
    return sum(u != "0" for u in users), users.count("0")


def connect_phase():
    """The queue of a port is full, then the port is closed: whoever tries on is refused."""
    def begin():
        kept = hanging.full_backlog(FULL)[0]
        jobs = Jobs("c")
        await_that("not four connections that hang", lambda: connecting()[0] == CHANNELS)
        return kept, jobs

    def close(kept):
        for s in kept:
            s.close()

    def finish(what):
        kept, jobs = what
        jobs.still_hang()
        assert connecting()[0] == CHANNELS, "a job did not hang all the time"
        close(kept)
        jobs.end()

    def calm():
        kept = hanging.full_backlog(FULL)[0]
        before = connecting()[1]
        waiting = [socket.socket() for _ in range(CHANNELS)]
        for s in waiting:
            s.setblocking(False)
            s.connect_ex(("127.0.0.1", FULL))
        await_that("not four others that hang", lambda: connecting()[1] == before + CHANNELS)
        return kept + waiting

    compare("connect", lambda: signatures(LOAD, "k", SECONDS), WINDOWS, begin, finish, calm, close,
            goal=GOAL)


def main():
    with Conn() as conn:
        for key in ["k"] + ["k%d" % i for i in range(CHANNELS)]:
            conn.call("key.create", {"key": key, "alg": "p256"})
    signatures(LOAD, "k", 0.1)
    signer = Signer("k")
    connect_phase()
    ca = Ca()
    phase(ca, "TLS", hanging.silent, 0)
    phase(ca, "headers", hanging.headers_hang, 1)
    phase(ca, "body", hanging.body_hangs, 1)
    phase(ca, "one byte a second", functools.partial(hanging.body_dribbles, pause=1), 1)
    signer.end()
    write_figures()


main()
