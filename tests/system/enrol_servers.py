"""Servers that hang, and servers that nobody should trust, before csm-enrol; csmd's side is by hand."""
import datetime
import ipaddress
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import enrolbroker
from hanging import (body_dribbles, body_hangs, full_backlog, headers_dribble, headers_hang, interim_for_ever, listening, serve,
                     silent, tls, tls_dribbles)

TOKEN = b"SecretToken4711"
DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM
TIMEOUT_MS = 1000
DAY = datetime.timedelta(days=1)
seen = []  # what any server was sent


def name_of(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def issue(subject, key, issuer, issuer_key, ca=False, names=("127.0.0.1",), days=30, eku=ExtendedKeyUsageOID.SERVER_AUTH):
    now = datetime.datetime.utcnow()
    b = (x509.CertificateBuilder().subject_name(name_of(subject)).issuer_name(name_of(issuer)).public_key(key.public_key())
         .serial_number(x509.random_serial_number()).not_valid_before(now - 40 * DAY).not_valid_after(now + days * DAY)
         .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True))
    if not ca:
        sans = [x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
        b = b.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        b = b.add_extension(x509.ExtendedKeyUsage([eku]), critical=False)
    return b.sign(issuer_key, hashes.SHA256())


ROOT_KEY, KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
ROOT = issue("root", ROOT_KEY, "root", ROOT_KEY, ca=True)
OTHER = issue("root", KEY, "root", KEY, ca=True)


def write(name, *data):
    with open(name, "wb") as f:
        f.write(b"".join(data))
    return name


write("key.pem", KEY.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def certificate(name, **how):
    return write(name + ".pem", issue("server", KEY, "root", ROOT_KEY, **how).public_bytes(PEM))


def hanging(job, dns):
    """On four channels at once: all end, as a timeout, and not before their time."""
    kept, full = full_backlog()
    cases = [("connect", {"url": full}), ("dns", {"url": "https://silent.csm.test"}), ("srv", {"domain": "silent.test"})]
    cases += [(play.__name__, {"url": serve(play)}) for play in (
        silent, tls_dribbles, headers_hang, headers_dribble, interim_for_ever, body_hangs, body_dribbles)]
    enrol = enrolbroker.Enrol(sys.argv[1], "--dns", dns)
    failed = []

    def run(channel):
        for i, (name, where) in enumerate(cases):
            if i % 4 != channel:
                continue
            begun = time.monotonic()
            try:
                done = enrol.run({**job, **where, "timeout_ms": TIMEOUT_MS}, channel=channel)
                took = time.monotonic() - begun
                if done.get("error") != "timeout" or took < TIMEOUT_MS / 1000 * 0.9 or took > 20:
                    failed.append((name, took, done))
            except Exception as error:  # pylint: disable=broad-except
                failed.append((name, repr(error)))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not failed and not any(t.is_alive() for t in threads), failed
    for s in kept:
        s.close()
    return enrol


# ---- names ----

class Dns(threading.Thread):
    """Answers what it knows, and nothing of names that have "silent" in them."""

    def __init__(self, srv):
        super().__init__(daemon=True)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.sock.getsockname()[1]
        self.srv = srv
        self.start()

    def run(self):
        while True:
            q, peer = self.sock.recvfrom(4096)
            labels, at = [], 12
            while q[at]:
                labels.append(q[at + 1:at + 1 + q[at]])
                at += 1 + q[at]
            question, kind = q[12:at + 5], struct.unpack(">H", q[at + 1:at + 3])[0]
            name = b".".join(labels).decode().lower()
            if "silent" in name:
                continue
            answers = []
            if kind == 33:
                for priority, weight, port, target in self.srv.get(name, ()):
                    host = b"".join(bytes([len(p)]) + p.encode() for p in target.split(".")) + b"\0"
                    answers.append(struct.pack(">HHH", priority, weight, port) + host)
            elif kind == 1 and name.endswith(".csm.test"):
                answers.append(socket.inet_aton("127.0.0.1"))
            # Without EDNS; a name without anything exists all the same.
            self.sock.sendto(q[:2] + struct.pack(">HHHHH", 0x8180, 1, len(answers), 0, 0) + question + b"".join(
                b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(a)) + a for a in answers), peer)


def answering(c):
    c = tls(c)
    c.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")


def discovered(job, srv, dns):
    """By SRV: in the order of priority, the next one where nobody listens, none outside of the domain, by its own name."""
    gone = listening()
    dead = gone.getsockname()[1]
    gone.close()
    good = int(serve(answering).rsplit(":", 1)[1])
    srv["_csm._tcp.csm.test"] = [(20, 0, good, "ca.csm.test"), (10, 5, dead, "ca.csm.test"), (0, 0, good, "ca.elsewhere.test")]
    srv["_csm._tcp.named.csm.test"] = [(0, 0, good, "other.named.csm.test")]
    srv["_csm._tcp.outside.test"] = [(0, 0, good, "ca.csm.test")]
    enrol = enrolbroker.Enrol(sys.argv[1], "--dns", dns)
    certificate("good", names=("127.0.0.1", "ca.csm.test"))
    usage = {**job, "what": "usage", "body": b"{}"}
    done = enrol.run({**usage, "domain": "csm.test"})
    assert "error" not in done, done
    for domain, why in (("outside.test", "outside"), ("nothing.csm.test", "_csm._tcp.nothing"), ("named.csm.test", "name"),
                        ("bad domain", "none")):
        done = enrol.run({**usage, "domain": domain})
        assert done.get("error") in ("unreachable", "invalid") and why in done["why"], (domain, done)
    done = enrol.run(usage)
    assert done.get("error") == "invalid", done
    assert enrol.close() == 0
    # The environment comes before DNS, and the job's URL before both.
    enrol = enrolbroker.Enrol(sys.argv[1], "--dns", dns, env={"CSM_SERVER": "https://ca.csm.test:%d" % good})
    done = enrol.run({**usage, "domain": "outside.test"})
    assert "error" not in done, done
    done = enrol.run({**usage, "url": "https://ca.csm.test:%d" % dead})
    assert done.get("error") == "unreachable", done
    assert enrol.close() == 0


# ---- servers that nobody should trust ----

def openssl_server(cert, *options):
    port = listening()
    number = port.getsockname()[1]
    port.close()
    out = open("s_server.%d" % number, "wb")
    seen.append(out.name)
    process = subprocess.Popen(
        ["stdbuf", "-o0", "openssl", "s_server", "-accept", "127.0.0.1:%d" % number, "-cert", cert, "-key", "key.pem", "-quiet", *options],
        stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 10
    while socket.socket().connect_ex(("127.0.0.1", number)) != 0:
        assert time.monotonic() < end and process.poll() is None, options
        time.sleep(0.02)
    return process, "https://127.0.0.1:%d" % number


def untrusted(job, enrol):
    good = certificate("good")
    cases = [
        ("expired", certificate("expired", days=-1), ()),
        ("another host's", certificate("host", names=("127.0.0.2", "localhost")), ()),
        ("a client's", certificate("client", eku=ExtendedKeyUsageOID.CLIENT_AUTH), ()),
        ("another CA's", write("other.pem", issue("server", KEY, "root", KEY).public_bytes(PEM)), ()),
        ("its own", write("own.pem", OTHER.public_bytes(PEM)), ()),
        ("TLS 1.1", good, ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")),
        ("wants a certificate", good, ("-Verify", "1", "-verify_return_error", "-tls1_2")),
    ]
    for what, cert, options in cases:
        process, url = openssl_server(cert, *options)
        done = enrol.run({**job, "url": url})
        assert done.get("error") == "unreachable", (what, done)
        process.kill()
        process.wait()
    # The negative of all these: one that is to be trusted gets the request, token and all.
    process, url = openssl_server(good)
    done = enrol.run({**job, "url": url, "timeout_ms": TIMEOUT_MS})
    assert done.get("error") == "timeout", done
    process.kill()
    process.wait()
    told = [open(name, "rb").read() for name in seen if isinstance(name, str)]
    assert TOKEN in told[-1] and not any(TOKEN in t for t in told[:-1]), told


# ---- nginx, which wants to know who comes ----

def nginx(job, enrol):
    port = listening()
    number = port.getsockname()[1]
    port.close()
    write("root.pem", ROOT.public_bytes(PEM))
    write("nginx.conf", ("""daemon off; pid nginx.pid; error_log error.log; worker_processes 1; user root;
events {} http { access_log off; client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp;
scgi_temp_path tmp; log_format who '$ssl_protocol $ssl_client_s_dn $status $request';
server { listen 127.0.0.1:%d ssl; ssl_certificate good.pem; ssl_certificate_key key.pem; ssl_client_certificate root.pem;
ssl_verify_client on; ssl_protocols TLSv1.2 TLSv1.3; access_log who.log who; location / { return 204; } } }""" % number).encode())
    os.mkdir("tmp")
    process = subprocess.Popen([shutil.which("nginx") or "/usr/sbin/nginx", "-p", os.getcwd(), "-c", "nginx.conf"],
                               stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 10
    while socket.socket().connect_ex(("127.0.0.1", number)) != 0:
        assert time.monotonic() < end and process.poll() is None, open("error.log").read()
        time.sleep(0.02)
    usage = {**{k: v for k, v in job.items() if k != "token"}, "what": "usage", "body": b"{}", "url": "https://127.0.0.1:%d" % number}
    mine = ec.generate_private_key(ec.SECP256R1())
    chain = issue("node 7", mine, "root", ROOT_KEY, eku=ExtendedKeyUsageOID.CLIENT_AUTH).public_bytes(DER)
    try:
        done = enrol.run({**usage, "tls_chain": chain, "tls_alg": "p256"}, mine)
        assert "error" not in done, done
        while not (who := open("who.log").read()):  # which nginx writes when it has answered
            assert time.monotonic() < end + 10
            time.sleep(0.02)
        assert who.startswith("TLSv1.3 CN=node 7 204 POST /v1/cms/usage"), who
        done = enrol.run(usage)
        assert done.get("error") == "invalid" and "400" in done["why"], done
        # A key that is not the certificate's gives a signature that nginx does not take.
        done = enrol.run({**usage, "tls_chain": chain, "tls_alg": "p256"}, KEY)
        assert done.get("error") == "unreachable", done
    finally:
        process.terminate()
        process.wait(10)


def main():
    csr = x509.CertificateSigningRequestBuilder().subject_name(name_of("node")).sign(KEY, hashes.SHA256()).public_bytes(DER)
    job = {"what": "enrol", "protocol": "cms", "anchors": ROOT.public_bytes(DER), "csr": csr, "token": TOKEN}
    certificate("good")
    srv = {}
    dns = Dns(srv).address
    enrol = hanging(job, dns)
    untrusted(job, enrol)
    nginx(job, enrol)
    assert enrol.close() == 0
    discovered(job, srv, dns)


main()
