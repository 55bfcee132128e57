"""Clients that remember what csmd has acknowledged, and who compare it with what is there.

usage: writes.py write TAG COUNT     that many clients write until their connections end; client I tells in the file
                                     writes.I of each change before and after
       writes.py verify FILE...      everything acknowledged in the FILEs is as it was said; what was in the air is whole
                                     or absent
"""

import hashlib
import os
import subprocess
import sys
import threading

import tbs
from csmwire import Closed, Conn, Refused, openssl_verifies


def openssl(*args, given=b""):
    return subprocess.run(["openssl", *args], input=given, check=True, capture_output=True, timeout=60).stdout


def make_ca():
    """ca.pem and ca.key, in the present folder."""
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out",
            "ca.pem", "-subj", "/CN=ca", "-days", "2")


def certificate(conn, name):
    csr = conn.call("key.csr", {"key": name, "subject": "/CN=" + name})["csr"]
    return openssl("x509", "-req", "-inform", "DER", "-outform", "DER", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "1",
                   given=csr)


def make_issuer(conn, name):
    """A key that signs certificates, with its own beside it."""
    conn.call("key.create", {"key": name, "backend": "soft", "use": ["issuer"], "issuer": {"max_life": 30 * tbs.DAY}})
    issuer = issuer_of(conn, name)
    root = issuer.root()
    signature = conn.call("issue.sign", {"key": name, "kind": "certificate", "tbs": root})["signature"]
    conn.call("cert.install", {"key": name, "chain": tbs.signed(root, signature)})


def issuer_of(conn, name):
    return tbs.Issuer(name, conn.call("key.public", {"key": name})["spki"])


def certificate_of(issuer, serial):
    """What issue.sign is asked to sign; the number is in hexadecimal digits."""
    return {"key": issuer.cn, "kind": "certificate", "tbs": issuer.leaf(issuer.spki, serial=int(serial, 16))}


def writer(tag, worker, told):
    def say(*words):
        print(*words, file=told, flush=True)

    def do(kind, name, method, params):
        say("try", kind, name)
        conn.call(method, params)
        say("done", kind, name)

    n = 0
    try:
        conn = Conn()
        issuer = issuer_of(conn, "ca-" + tag)
        while True:
            serial = "41" + os.urandom(15).hex()
            do("serial", issuer.cn + ":" + serial, "issue.sign", certificate_of(issuer, serial))
            name = "%s-%s-%d" % (tag, worker, n)
            do("key", name, "key.create", {"key": name, "alg": "p256" if n % 2 else "ed25519", "backend": "soft"})
            do("secret", name, "secret.set", {"secret": "d/" + name,
                                              "pairs": [{"name": "a", "value": name.encode()},
                                                        {"name": "b", "value": name.encode() * (1 + n % 7 * 300)}]})
            if n % 3 > 0:
                do("cert", name, "cert.install", {"key": name, "chain": certificate(conn, name)})
            if n % 6 == 4:
                do("nocert", name, "cert.delete", {"key": name})
            if n % 3 == 2:
                do("nokey", name, "key.delete", {"key": name})
                do("nosecret", name, "secret.delete", {"secret": "d/" + name})
            n += 1
    except (Closed, ConnectionError, FileNotFoundError):
        pass
    except Refused as end:
        if end.name not in ("shutdown", "unavailable"):
            raise


def write_all(tag, count):
    """True when each of them ended as it should."""
    ended = []
    make_ca()
    with Conn() as conn:
        make_issuer(conn, "ca-" + tag)

    def run(worker):
        with open("writes.%d" % worker, "w", encoding="utf-8") as told:
            writer(tag, worker, told)
        ended.append(worker)

    threads = [threading.Thread(target=run, args=(worker,)) for worker in range(1, count + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(ended) == count


class Verifier:
    def __init__(self):
        self.conn = Conn()
        self.checked = self.signed = 0
        self.issuers = {}

    def secret(self, name):
        try:
            return {p["name"]: p["value"] for p in self.conn.call("secret.get", {"secret": "d/" + name})["pairs"]}
        except Refused as refusal:
            assert refusal.name == "not_found", (name, refusal)
            return None

    def key(self, name):
        try:
            return self.conn.call("key.show", {"key": name})
        except Refused as refusal:
            assert refusal.name == "not_found", (name, refusal)
            return None

    def cert(self, name):
        try:
            return self.conn.call("cert.get", {"key": name})
        except Refused as refusal:
            assert refusal.name == "not_found", (name, refusal)
            return None

    def serial(self, name):
        """A number that is on record is refused; one that is not is from now on."""
        key, number = name.split(":")
        if key not in self.issuers:
            self.issuers[key] = issuer_of(self.conn, key)
        try:
            self.conn.call("issue.sign", certificate_of(self.issuers[key], number))
            return None
        except Refused as refusal:
            assert refusal.name == "exists", (name, refusal)
            return True

    def whole_cert(self, name):
        info = self.cert(name)
        if info is not None:
            assert hashlib.sha256(info["chain"]).hexdigest() == info["fingerprint"], name
            assert self.conn.call("key.public", {"key": name})["spki"] in info["chain"], name

    def whole(self, kind, name):
        if kind == "serial":
            return
        if kind == "cert":
            self.whole_cert(name)
            return
        if kind == "secret":
            value = self.secret(name)
            if value is not None:
                assert value["a"] == name.encode() and set(value) == {"a", "b"}, (name, value)
                assert value["b"][:len(name)] == name.encode() and len(value["b"]) % len(name) == 0
        elif self.key(name) is not None:
            answer = self.conn.call("key.sign", {"key": name, "message": b"still mine"})
            if self.signed % 10 == 0 and answer["scheme"] == "ecdsa-sha256":
                spki = self.conn.call("key.public", {"key": name})["spki"]
                assert openssl_verifies(spki, answer["signature"], b"still mine"), name
            self.signed += 1

    def file(self, path):
        state, air = {}, {}
        for line in open(path, encoding="utf-8"):
            words = line.split()
            if len(words) != 3 or not line.endswith("\n"):
                continue
            what, kind, name = words
            thing = (kind.replace("no", ""), name)
            things = [thing]
            if kind == "nokey":
                things.append(("cert", name))  # goes with it
            for thing in things:
                if what == "try":
                    air[thing] = kind
                else:
                    air.pop(thing, None)
                    state[thing] = not kind.startswith("no")
        for (kind, name), there in state.items():
            if (kind, name) in air:
                continue
            self.checked += 1
            found = {"secret": self.secret, "key": self.key, "cert": self.cert, "serial": self.serial}[kind](name)
            assert (found is not None) == there, (kind, name, there, found)
        for kind, name in list(state) + list(air):
            self.whole(kind, name)


def main():
    if sys.argv[1] == "write":
        sys.exit(0 if write_all(sys.argv[2], int(sys.argv[3])) else 1)
    verifier = Verifier()
    for path in sys.argv[2:]:
        verifier.file(path)
    print("acknowledged:", verifier.checked, "keys that sign:", verifier.signed)


if __name__ == "__main__":
    main()
