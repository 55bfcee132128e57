"""csmd's side of csm-enrol's channels, by hand: jobs are handed out in turn, signatures are made with a key that is here."""
import os
import socket
import subprocess
import threading
import time

import msgpack
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

CHANNELS = 4


class Enrol:
    """A csm-enrol, and what it is asked to do: run(job) gives its enrol.done."""

    def __init__(self, program, *options, env=None):
        pairs = [socket.socketpair() for _ in range(CHANNELS)]
        theirs = [fcntl_dup(b.fileno()) for _, b in pairs]

        def place():
            for i, fd in enumerate(theirs):
                os.dup2(fd, 3 + i)

        self.process = subprocess.Popen([program, *options], preexec_fn=place, close_fds=False, env=env or {},
                                        stdin=subprocess.DEVNULL)
        for (_, b), fd in zip(pairs, theirs):
            b.close()
            os.close(fd)
        self.channels = [Channel(a) for a, _ in pairs]
        self.next_id = 1
        self.signed = []

    def run(self, job, key=None, channel=0, refuse_sign=None, sign_after=0):
        job = {"id": self.next_id, "timeout_ms": 20000, **job}
        self.next_id += 1
        return self.channels[channel].run(job, key, self.signed, refuse_sign, sign_after)

    def close(self):
        for c in self.channels:
            c.sock.close()
        return self.process.wait(10)


def fcntl_dup(fd):
    import fcntl
    return fcntl.fcntl(fd, fcntl.F_DUPFD, 20)


class Channel:
    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(60)
        self.unpacker = msgpack.Unpacker(raw=False, max_buffer_size=4 << 20)
        self.lock = threading.Lock()

    def recv(self):
        while True:
            try:
                return next(self.unpacker)
            except StopIteration:
                pass
            data = self.sock.recv(65536)
            assert data, "csm-enrol has closed its channel"
            self.unpacker.feed(data)

    def answer(self, msgid, result, error=None):
        self.sock.sendall(msgpack.packb([1, msgid, error, result], use_bin_type=True))

    def run(self, job, key, signed, refuse_sign, sign_after):
        with self.lock:
            kind, msgid, method, params = self.recv()
            assert (kind, method, params) == (0, "enrol.next", [{}]), (kind, method, params)
            self.answer(msgid, job)
            while True:
                kind, msgid, method, params = self.recv()
                assert kind == 0 and params[0]["job"] == job["id"], (kind, params)
                if method == "enrol.done":
                    self.answer(msgid, {})
                    return params[0]
                assert method == "enrol.sign", method
                time.sleep(sign_after)
                if refuse_sign:
                    self.answer(msgid, None, {"code": 9, "name": "denied", "message": "no", "retryable": False})
                    continue
                signed.append(params[0]["scheme"])
                self.answer(msgid, {"scheme": params[0]["scheme"],
                                    "signature": sign(key, params[0]["scheme"], params[0]["digest"])})


def sign(key, scheme, digest):
    kind, _, md = scheme.rpartition("-")
    md = utils.Prehashed({"sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}[md]())
    if kind == "ecdsa":
        return key.sign(digest, ec.ECDSA(md))
    if kind == "rsa-pss":
        return key.sign(digest, padding.PSS(padding.MGF1(md._algorithm), md._algorithm.digest_size), md)
    return key.sign(digest, padding.PKCS1v15(), md)


def load_key(path):
    with open(path, "rb") as f:
        return serialization.load_pem_private_key(f.read(), None)


def certificates(der):
    """Those that stand one after the other."""
    from cryptography import x509
    found = []
    while der:
        n = int.from_bytes(der[2:4], "big") + 4
        found.append(x509.load_der_x509_certificate(der[:n]))
        der = der[n:]
    return found
