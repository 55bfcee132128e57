"""Load of every kind for some seconds; then what csmd holds must be what it held after the warm-up."""

import os
import random
import sys
import threading
import time

from csmwire import ADMIN, Conn, Refused, open_fds, rss_kib

PID = int(os.environ["CSM_PID"])
KEYS = 12


class Soak:
    def __init__(self, seconds):
        self.end = time.monotonic() + seconds
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.done = 0
        self.faults = []

    def request(self, conn, rng, worker):
        key = "k%d" % rng.randrange(KEYS)
        secret = "d/s%d" % rng.randrange(40)
        fresh = "x%d" % worker
        kind = rng.randrange(100)
        if kind < 40:
            conn.call("key.sign", {"key": key, "message": b"m" * rng.randrange(2000)})
        elif kind < 60:
            conn.call("secret.get", {"secret": secret})
        elif kind < 75:
            conn.call("secret.set", {"secret": secret, "pairs": [{"name": "k", "value": b"v" * rng.randrange(1, 3000)}]})
        elif kind < 85:
            conn.call("status")
            conn.call("key.list", {"limit": 5})
        elif kind < 90:
            stream = conn.call("key.sign_init", {"key": key})["stream"]
            conn.call("key.sign_update", {"stream": stream, "data": b"x" * 5000})
            conn.call("key.sign_final", {"stream": stream})
        elif kind < 94:
            conn.call("key.csr", {"key": key, "subject": "/CN=soak", "sans": ["dns:a.example"]})
        elif kind < 97:
            conn.call("unseal", {"sealed": conn.call("seal", {"data": b"s" * 1000})["sealed"]})
        else:
            conn.call("key.create", {"key": fresh, "alg": "p256", "backend": rng.choice(("soft", "tpm2"))})
            conn.call("key.sign", {"key": fresh, "message": b"m"})
            conn.call("key.delete", {"key": fresh})

    def work(self, worker):
        rng = random.Random(worker)
        try:
            while not self.over.is_set():
                with Conn(timeout=60) as conn:
                    for _ in range(rng.randrange(1, 300)):
                        try:
                            self.request(conn, rng, worker)
                        except Refused as refusal:
                            if not refusal.retryable:
                                raise
                            time.sleep(0.01)
                        with self.lock:
                            self.done += 1
                        if self.over.is_set():
                            break
        except Exception as fault:  # pylint: disable=broad-except
            self.faults.append((worker, repr(fault)))

    def run(self, seconds):
        self.over.clear()
        threads = [threading.Thread(target=self.work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        with Conn(ADMIN) as admin:
            while time.monotonic() < end and not self.faults:
                time.sleep(0.2)
                admin.call("policy.reload")
        self.over.set()
        for thread in threads:
            thread.join(90)
        assert not self.faults, self.faults

    @staticmethod
    def held():
        time.sleep(1)
        with Conn(ADMIN) as admin:
            status = admin.call("status")
        return {"fds": open_fds(PID), "threads": len(os.listdir("/proc/%d/task" % PID)), "rss": rss_kib(PID),
                "loaded": status["tpm"]["loaded"], "slots": status["tpm"]["slots"], "locked": status["locked_memory"]}


def main():
    seconds = float(sys.argv[1])
    soak = Soak(seconds)
    with Conn() as conn:
        for i in range(KEYS):
            conn.call("key.create", {"key": "k%d" % i, "alg": ("p256", "p384")[i % 2], "backend": ("soft", "tpm2")[i % 3 == 0]})
        conn.call("domain.create", {"domain": "d"})
        for i in range(40):
            conn.call("secret.set", {"secret": "d/s%d" % i, "pairs": [{"name": "k", "value": b"v" * 3000}]})
    soak.run(min(10.0, seconds / 2))
    before = soak.held()
    soak.run(seconds)
    after = soak.held()
    print("%d requests" % soak.done)
    print("before:", before)
    print("after: ", after)
    assert after["fds"] <= before["fds"] + 4, "descriptors"
    assert after["threads"] <= before["threads"], "threads"
    assert after["loaded"] <= after["slots"], "TPM slots"
    # The store's pages in memory grow with what is written, by less than this.
    assert after["rss"] <= before["rss"] * 1.5 + 8192, "memory"


main()
