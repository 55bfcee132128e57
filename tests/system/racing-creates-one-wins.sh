#!/bin/bash
# Of 64 racing creates of one name one succeeds, and its public key is the one that signs; on both back ends, and with
# the same request_id all 64 get that one's answer.
# bound: 180
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
py <<'PY'
import threading
from csmwire import Conn, Refused, openssl_verifies
def race(name, extra):
    barrier, wins, losses = threading.Barrier(64), [], []
    def one(i):
        conn = Conn(timeout=60)
        conn.call("ping")
        barrier.wait()
        while True:
            try:
                wins.append(conn.call("key.create", dict(extra, key=name)))
            except Refused as refusal:
                if refusal.name == "busy":
                    continue
                losses.append(refusal.name)
            return
    threads = [threading.Thread(target=one, args=(i,)) for i in range(64)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    return wins, losses
for backend in ("soft", "tpm2"):
    for alg in ("p256",):
        name = "race-%s-%s" % (backend, alg)
        wins, losses = race(name, {"alg": alg, "backend": backend})
        assert len(wins) == 1 and losses == ["exists"] * 63, (len(wins), set(losses))
        conn = Conn()
        assert conn.call("key.show", {"key": name})["public"] == wins[0]["public"]
        spki = conn.call("key.public", {"key": name})["spki"]
        signature = conn.call("key.sign", {"key": name, "message": b"mine"})["signature"]
        assert openssl_verifies(spki, signature, b"mine")
        wins, losses = race(name + "-again", {"alg": alg, "backend": backend, "request_id": name})
        assert len(wins) + len(losses) == 64 and set(losses) <= {"busy", "conflict"}, set(losses)
        assert len({w["public"] for w in wins}) == 1, "two answers for one request_id"
        conn.call("key.delete", {"key": name})
conn.call("domain.create", {"domain": "d"})
barrier, versions = threading.Barrier(32), []
def put(i):
    conn = Conn()
    barrier.wait()
    try:
        versions.append(conn.call("secret.set", {"secret": "d/s", "expect": 0, "pairs": [{"name": "k", "value": b"%d" % i}]}))
    except Refused as refusal:
        assert refusal.name == "conflict", refusal
threads = [threading.Thread(target=put, args=(i,)) for i in range(32)]
for t in threads:
    t.start()
for t in threads:
    t.join(60)
assert [v["version"] for v in versions] == [1], versions
PY
