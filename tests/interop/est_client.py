"""csm-enrol at est_server.py; csmd's side is by hand."""
import datetime
import hashlib
import os
import subprocess
import sys
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

import enrolbroker

ENROL, SERVER = sys.argv[1:]
NAMES = x509.SubjectAlternativeName([x509.DNSName("node.example.org")])


class Server:
    def __init__(self, name, **env):
        self.folder = os.path.join(os.getcwd(), name)
        os.mkdir(self.folder)
        self.process = subprocess.Popen(["/usr/bin/python3", SERVER, self.folder], stdin=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, env={**os.environ, **env})
        end = time.monotonic() + 20
        while not os.path.exists(self.path("port")):
            assert time.monotonic() < end, "est_server.py does not start"
            time.sleep(0.02)
        self.url = "https://127.0.0.1:" + self.read("port").decode()
        self.root = self.read("root.der")
        self.issuer = x509.load_pem_x509_certificate(self.read("issuer.pem")).public_bytes(serialization.Encoding.DER)

    def path(self, name):
        return os.path.join(self.folder, name)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def log(self):
        return self.read("log").decode().splitlines()

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


def request(key):
    b = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node")])).add_extension(NAMES, critical=False)
    return b.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def good(done, key, what):
    assert "error" not in done, (what, done)
    chain = enrolbroker.certificates(done["chain"])
    # The leaf first, its issuer, not the root.
    assert [c.subject.rfc4514_string() for c in chain] == ["CN=node", "CN=EST issuer"], (what, chain)
    assert chain[0].public_key().public_numbers() == key.public_key().public_numbers(), what
    return done["chain"]


def bad(done, error, why, what):
    assert done.get("error") == error and why in done.get("why", ""), (what, done)
    assert all(" " <= c <= "~" for c in done["why"]) and "chain" not in done, (what, done)


def forms(server, enrol, job, key):
    for form in ("", "reversed", "der", "pem", "crlf", "rekeyed"):
        good(enrol.run({**job, **({"label": form} if form else {})}), key, form)
    chain = enrolbroker.certificates(good(enrol.run({**job, "label": "early"}), key, "early"))
    assert chain[0].not_valid_before <= datetime.datetime.utcnow(), "csmd would not take it yet"
    done = enrol.run({**job, "label": "wait"})
    bad(done, "busy", "approval", "202")
    assert done["retry_after_s"] == 77, done
    done = enrol.run({**job, "label": "busy"})
    bad(done, "unavailable", "503", "503")
    assert 60 < done["retry_after_s"] <= 90, done
    bad(enrol.run({**job, "label": "refuse"}), "denied", "not?[31m you", "403")
    bad(enrol.run({**job, "token": b"estuser:wrong"}), "denied", "who are you?", "a wrong password")
    bad(enrol.run({**job, "token": b"estuser:b4dpassw0rd", "label": "tell"}), "denied", "withheld", "a password in the text")
    bad(enrol.run({**job, "label": "other"}), "protocol", "no certificate for the key", "another key")
    for form in ("garbage", "html", "empty"):
        bad(enrol.run({**job, "label": form}), "protocol", "no certificates", form)
    redirections(server, enrol, job, key)
    bad(enrol.run({**job, "label": "large"}), "too_large", "too large", "an answer without an end")
    bad(enrol.run({**job, "what": "revoke", "serial": "01"}), "unsupported", "EST", "revoke")
    done = enrol.run({**job, "url": "https://nowhere.invalid:1", "timeout_ms": 300})
    assert done["error"] in ("unreachable", "timeout"), ("a name that nobody knows", done)


def redirections(server, enrol, job, key):
    """Within the origin they are followed, with what was sent; to any other the request does not go, nor the password."""
    before = len(server.log())
    good(enrol.run({**job, "label": "redirect"}), key, "a redirection")
    assert [line.split()[2:4] for line in server.log()[before:before + 2]] == [
        ["/.well-known/est/redirect/simpleenroll", "basic"], ["/.well-known/est/simpleenroll", "basic"]], server.log()[before:]
    done = enrol.run({**job, "what": "cacerts", "label": "redirect"})
    assert server.root in done["anchors"] and server.log()[-1].split()[2] == "/.well-known/est/cacerts?again", server.log()[-3:]
    before = len(server.log())
    bad(enrol.run({**job, "label": "away"}), "protocol", "to another server", "a redirection to another origin")
    assert [line.split()[2] for line in server.log()[before:]] == ["/.well-known/est/away/simpleenroll"], server.log()[before:]
    before = len(server.log())
    bad(enrol.run({**job, "label": "circle"}), "protocol", "308", "redirections without an end")
    assert len(server.log()) - before == 6, server.log()[before:]


def trust(server, enrol, job, key):
    done = enrol.run({**job, "what": "cacerts"})
    assert server.root in done["anchors"] and server.issuer in done["anchors"], done
    del job["anchors"]
    pin = hashlib.sha256(server.root).hexdigest()
    before = len(server.log())
    done = enrol.run({**job, "root_sha256": pin})
    good(done, key, "a root by its digest")
    assert done["anchors"] == server.root
    # The first question goes to a server that nobody vouches for: without a credential.
    assert server.log()[before].endswith("cacerts nobody 200"), server.log()[before:]
    before = len(server.log())
    bad(enrol.run({**job, "root_sha256": "00" * 32}), "unreachable", "digest", "another root's digest")
    assert [line.split()[3] for line in server.log()[before:]] == ["nobody"], server.log()[before:]
    bad(enrol.run({**job, "root_sha256": "xy"}), "invalid", "SHA-256", "no digest")
    bad(enrol.run(job), "invalid", "trust", "neither")


def client_keys(server, enrol, job, chain, key):
    """The first certificate renews itself; then keys of each kind."""
    e = {"tls_alg": "p256", "tls_chain": chain}
    plain = {k: v for k, v in job.items() if k != "token"}
    bad(enrol.run({**plain, "what": "renew"}), "denied", "who are you?", "nobody renews")
    for kind, other in (("p256", key), ("p384", ec.generate_private_key(ec.SECP384R1())),
                        ("rsa2048", rsa.generate_private_key(65537, 2048))):
        done = enrol.run({**job, "csr": request(other)})
        e = {"tls_alg": kind, "tls_chain": good(done, other, kind)}
        before, signed = len(server.log()), len(enrol.signed)
        good(enrol.run({**plain, **e, "csr": request(other), "what": "renew"}, other), other, kind)
        assert "simplereenroll cert 200" in server.log()[before], server.log()[before:]
        assert len(enrol.signed) > signed and enrol.signed[-1].startswith("ecdsa" if kind[0] == "p" else "rsa-pss"), enrol.signed
    bad(enrol.run({**plain, **e, "what": "renew"}, refuse_sign=True), "denied", "does not sign", "csmd does not sign")
    bad(enrol.run({**plain, **e, "what": "renew", "timeout_ms": 700}, other, sign_after=1.5), "timeout", "does not sign", "too late")
    good(enrol.run(job), key, "and the channel goes on")


def main():
    key = ec.generate_private_key(ec.SECP256R1())
    for version in ("1.3", "1.2"):
        server = Server("est" + version, **({"EST_TLS12": "1"} if version == "1.2" else {}))
        enrol = enrolbroker.Enrol(ENROL, "--dns", "127.0.0.1:9", env=os.environ)  # nobody there
        job = {"what": "enrol", "protocol": "est", "url": server.url, "anchors": server.root, "token": b"estuser:estpwd",
               "csr": request(key)}
        if version == "1.3":
            forms(server, enrol, job, key)
            trust(server, enrol, dict(job), key)
        client_keys(server, enrol, job, good(enrol.run(job), key, "first"), key)
        assert all(line.startswith("TLSv" + version) for line in server.log()), server.log()
        server.close()
        assert enrol.close() == 0


main()
