"""The session after which the memory of csmd is searched: every kind of key made and used, secrets set, got, refused, deleted,
requests repeated; each value that must not be found is written down as a needle (a line "name hex").

memsession.py make NEEDLES      keys and secrets, everything once
memsession.py load SECONDS      use all of it from eight connections at once
memsession.py once              each key and secret once more
memsession.py delete            delete half of it
"""

import os
import random
import sys
import threading
import time

from csmwire import ADMIN, Conn, Refused, reload

ALGS = ("p256", "p384", "p521", "rsa2048", "rsa3072", "rsa4096", "ed25519")
SIZES = {"short": 40, "block": 4000, "long": 300000}
needles = None


def value(name, n):
    """The same bytes each time for one node and name: the test's own memory of them is the file."""
    path = "keep/" + name
    if not os.path.exists(path):
        with open(path, "wb") as out:
            # A short one without repeats: the search leaves out what has few different bytes.
            out.write(os.urandom(n) if n > 16 else bytes(random.SystemRandom().sample(range(256), n)))
        with open(path, "rb") as made:
            data = made.read()
        # The beginning and the end of a long one.
        note(name, data[:2048])
        if n > 4096:
            note(name + ":end", data[-2048:])
    with open(path, "rb") as made:
        return made.read()


def note(name, data):
    with open(needles, "a", encoding="ascii") as out:
        out.write("%s %s\n" % (name, data.hex()))


def fails(conn, method, params):
    try:
        conn.call(method, params)
    except Refused:
        return
    raise AssertionError("not refused: " + method)


def seal(conn, name):
    data = value("sealed:" + name, 2000)
    sealed = conn.call("seal", {"data": data, "context": b"x"})["sealed"]
    assert conn.call("unseal", {"sealed": sealed, "context": b"x"})["data"] == data
    fails(conn, "unseal", {"sealed": sealed, "context": b"y"})


def use_key(conn, alg):
    conn.call("key.sign", {"key": alg, "message": b"m" * 100})
    if alg != "ed25519":
        stream = conn.call("key.sign_init", {"key": alg})["stream"]
        conn.call("key.sign_update", {"stream": stream, "data": b"d" * 5000})
        conn.call("key.sign_final", {"stream": stream})
    conn.call("key.csr", {"key": alg, "subject": "/CN=x"})


def decrypt(conn, ciphertext):
    if os.path.exists("keep/ciphertext"):
        with open("keep/ciphertext", "rb") as made:
            ciphertext = made.read()
    plain = conn.call("key.decrypt", {"key": "rsa2048", "ciphertext": ciphertext})["plaintext"]
    assert plain == value("plaintext", 100)
    fails(conn, "key.decrypt", {"key": "rsa2048", "ciphertext": b"\1" * 256})


def derive(conn):
    with open("keep/peer.der", "rb") as made:
        peer = made.read()
    shared = conn.call("key.derive", {"key": "derive", "peer": peer})["shared"]
    with open("keep/shared", "rb") as known:
        assert shared == known.read()


def put(conn, name, params=None):
    pairs = [{"name": "plain", "value": value("value:" + name, SIZES[name])},
             {"name": "pin", "type": "text", "value": value("pin:" + name, 8).hex().encode()}]
    conn.call("secret.set", {"secret": "d/" + name, "pairs": pairs, **(params or {})})


def get(conn, name):
    pairs = {p["name"]: p["value"] for p in conn.call("secret.get", {"secret": "d/" + name})["pairs"]}
    assert pairs["plain"] == value("value:" + name, SIZES[name])
    assert conn.call("secret.get", {"secret": "d/" + name, "key": "pin"})["pairs"][0]["value"] == value(
        "pin:" + name, 8).hex().encode()
    conn.call("secret.list", {"domain": "d"})


def refused(conn):
    """Values on the ways that end in an error."""
    pairs = [{"name": "k", "value": value("value:refused", 500)}]
    fails(conn, "secret.set", {"secret": "d/short", "pairs": pairs, "expect": 999})
    fails(conn, "secret.set", {"secret": "no-such-domain/s", "pairs": pairs})
    fails(conn, "secret.set", {"secret": "elsewhere:d/s", "pairs": pairs})
    fails(conn, "secret.set", {"secret": "d/s", "pairs": pairs + pairs})
    fails(conn, "secret.set", {"secret": "d/s", "pairs": pairs, "request_id": "short-1"})
    fails(conn, "secret.set", {"secret": "d/s", "pairs": [dict(pairs[0], type="what")]})
    fails(conn, "secret.set", {"secret": "d/s", "pairs": [dict(pairs[0], more=1)]})
    # A connection that ends in the middle of a value.
    with Conn() as half:
        half.send("ping")
        half.recv()
        half.send_raw(b"\x94\x00\x07\xaasecret.set\x91\x82\xa6secret\xa3d/s\xa5pairs\x91\x82\xa4name\xa1k\xa5value\xc5\x07\xd0")
        half.send_raw(value("value:half", 1000))
        time.sleep(0.1)


def make():
    conn = Conn()
    for alg in ALGS:
        conn.call("key.create", {"key": alg, "alg": alg, "backend": "soft"})
    conn.call("key.create", {"key": "derive", "alg": "p256", "use": ["derive"], "backend": "soft"})
    conn.call("domain.create", {"domain": "d"})
    for name in SIZES:
        put(conn, name, {"request_id": name + "-1"})
        put(conn, name, {"request_id": name + "-1"})  # the retry
        get(conn, name)
    refused(conn)
    seal(conn, "one")
    note("random", conn.call("random", {"bytes": 200})["random"])


def once():
    conn = Conn()
    for alg in ALGS:
        use_key(conn, alg)
    decrypt(conn, b"")
    derive(conn)
    for name in SIZES:
        put(conn, name)
        get(conn, name)
    refused(conn)
    seal(conn, "one")
    Conn(ADMIN).call("status")
    reload()


def load(seconds):
    until = time.monotonic() + seconds
    faults = []

    def one(turn):
        conn = Conn()
        try:
            while time.monotonic() < until:
                turn(conn)
        except Exception as fault:  # pylint: disable=broad-except
            faults.append(repr(fault))

    def churn(conn):
        conn.call("key.create", {"key": "brief", "alg": "p256", "backend": "soft"})
        conn.call("key.sign", {"key": "brief", "message": b"m"})
        conn.call("key.delete", {"key": "brief"})

    turns = [lambda c, a=a: use_key(c, a) for a in ALGS]
    turns += [lambda c: decrypt(c, b""), derive, churn, lambda c: seal(c, "one")]
    turns += [lambda c, n=n: put(c, n) for n in SIZES] + [lambda c, n=n: get(c, n) for n in SIZES]
    threads = [threading.Thread(target=one, args=(turn,)) for turn in turns]
    for t in threads:
        t.start()
    for t in threads:
        t.join(seconds + 60)
    assert not faults, faults


def delete():
    conn = Conn()
    for alg in ALGS[::2]:
        conn.call("key.delete", {"key": alg})
    conn.call("secret.delete", {"secret": "d/short"})
    conn.call("domain.delete", {"domain": "d", "request_id": "gone"})


what, needles = sys.argv[1], os.path.abspath("keep/needles")
if what == "load":
    load(float(sys.argv[2]))
else:
    {"make": make, "once": once, "delete": delete}[what]()
