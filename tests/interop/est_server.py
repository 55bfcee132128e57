#!/usr/bin/python3
"""An EST server written from RFC 7030 and RFC 8951, on Python's own TLS and the cryptography package: it has nothing of csm's.

usage: est_server.py FOLDER        the folder gets root.pem, root.der, port and log; ends with its standard input

The label of the path says in which of the permitted forms it answers:
  (none)   the certificate alone, base64 in lines         reversed  root, issuer, certificate in that order, one line
  der      DER without base64                             pem       between PEM lines
  crlf     base64 in lines that end with CR LF            wait      202 and Retry-After
  rekeyed  cacerts has a new root, and each root by the other's key (RFC 7030 4.1.3)
  busy     503 and Retry-After                            refuse    403 and a text
  other    a certificate for another key                  garbage   200 and no PKCS#7
  html     200 and a page                                 empty     200 and nothing
  redirect 302 and 301 to the same without the label      large     200 and without an end
  away     307 to the same under another name of the host circle    308 to itself
  tell     401 with the password in its text              early     valid in three seconds, by a clock that is ahead

Who asks: HTTP Basic with the user estuser and the password estpwd, or a client certificate of this CA."""
import base64
import datetime
import http.server
import ipaddress
import os
import ssl
import sys
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

FOLDER = sys.argv[1]
NOW = datetime.datetime.utcnow()
DER = serialization.Encoding.DER
PEM = serialization.Encoding.PEM


def path(name):
    return os.path.join(FOLDER, name)


def name_of(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def issue(subject, public, issuer, issuer_key, ca=False, san=None, server=False, begin=NOW - datetime.timedelta(minutes=5)):
    b = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
         .serial_number(x509.random_serial_number()).not_valid_before(begin)
         .not_valid_after(NOW + datetime.timedelta(days=30 if not ca else 300))
         .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
         .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
         .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False))
    if ca:
        b = b.add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
    else:
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if server else [])
        b = b.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    if san is not None:
        b = b.add_extension(san, critical=False)
    return b.sign(issuer_key, hashes.SHA256())


ROOT_KEY, CA_KEY, TLS_KEY, OTHER_KEY, NEW_KEY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(5))
ROOT = issue(name_of("EST root"), ROOT_KEY.public_key(), name_of("EST root"), ROOT_KEY, ca=True)
NEW_ROOT, NEW_BY_OLD, OLD_BY_NEW = (issue(ROOT.subject, of.public_key(), ROOT.subject, by, ca=True)
                                    for of, by in ((NEW_KEY, NEW_KEY), (NEW_KEY, ROOT_KEY), (ROOT_KEY, NEW_KEY)))
CA = issue(name_of("EST issuer"), CA_KEY.public_key(), ROOT.subject, ROOT_KEY, ca=True)
TLS = issue(name_of("est server"), TLS_KEY.public_key(), CA.subject, CA_KEY, server=True,
            san=x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.DNSName("est.csm.test"),
                                             x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]))


def of_request(csr, **more):
    public = csr.public_key()
    try:
        san = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        san = None
    return issue(csr.subject, public, CA.subject, CA_KEY, san=san, **more)


def lines(data, end):
    text = base64.b64encode(data)
    return b"".join(text[i:i + 64] + end for i in range(0, len(text), 64))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def note(self, status):
        peer = self.connection.getpeercert()
        who = "cert" if peer else "basic" if self.headers.get("Authorization") else "nobody"
        with open(path("log"), "a", encoding="ascii") as log:
            log.write("%s %s %s %s %d\n" % (self.connection.version(), self.command, self.path, who, status))

    def answer(self, status, body=b"", kind=None, **headers):
        self.note(status)
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def certificates(self, form, certs):
        kind = "application/pkcs7-mime; smime-type=certs-only"
        data = pkcs7.serialize_certificates(certs, DER)
        if form == "der":
            self.answer(200, data, kind)
        elif form == "pem":
            self.answer(200, pkcs7.serialize_certificates(certs, PEM), kind)
        elif form == "crlf":
            self.answer(200, lines(data, b"\r\n"), kind, Content_Transfer_Encoding="base64")
        elif form == "reversed":
            self.answer(200, base64.b64encode(data), kind)
        else:
            self.answer(200, lines(data, b"\n"), kind, Content_Transfer_Encoding="BASE64")

    def operation(self):
        parts = self.path.split("?")[0].split("/")
        if parts[:3] != ["", ".well-known", "est"] or len(parts) not in (4, 5):
            return None, None
        return parts[-1], parts[3] if len(parts) == 5 else ""

    def known(self, needs_certificate):
        if self.connection.getpeercert():
            return True
        given = self.headers.get("Authorization", "")
        wanted = "Basic " + base64.b64encode(b"estuser:estpwd").decode()
        return not needs_certificate and given == wanted

    def do_GET(self):
        operation, form = self.operation()
        if operation == "csrattrs":
            self.answer(204)
        elif operation != "cacerts":
            self.answer(404, b"no such operation\n", "text/plain")
        elif form == "redirect":
            self.answer(301, Location="cacerts?again" if "?" not in self.path else self.path.replace("redirect/", ""))
        else:
            self.certificates(form, [CA, ROOT] if form != "rekeyed" else [OLD_BY_NEW, NEW_BY_OLD, NEW_ROOT, CA, ROOT])

    def do_POST(self):
        operation, form = self.operation()
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if operation not in ("simpleenroll", "simplereenroll"):
            return self.answer(404, b"no such operation\n", "text/plain")
        if self.headers["Content-Type"].split(";")[0] != "application/pkcs10":
            return self.answer(415, b"application/pkcs10 is wanted\n", "text/plain")
        if not self.known(operation == "simplereenroll"):
            given = base64.b64decode(self.headers.get("Authorization", "Basic ").split(" ")[1]) if form == "tell" else b""
            return self.answer(401, b"who are you%s?\n" % given, "text/plain", WWW_Authenticate='Basic realm="est"')
        csr = x509.load_der_x509_csr(base64.b64decode(data))
        if not csr.is_signature_valid:
            return self.answer(400, b"the request's signature is wrong\n", "text/plain")
        return self.enrolled(form, csr)

    def enrolled(self, form, csr):
        if form == "wait":
            return self.answer(202, b"later\n", "text/plain", Retry_After="77")
        if form == "busy":
            return self.answer(503, b"", None, Retry_After=(
                datetime.datetime.utcnow() + datetime.timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT"))
        if form == "refuse":
            return self.answer(403, b"not\x1b[31m you\r\n", "text/plain")
        if form == "garbage":
            return self.answer(200, base64.b64encode(b"no PKCS#7"), "application/pkcs7-mime")
        if form == "html":
            return self.answer(200, b"<html>hello</html>", "text/html")
        if form == "empty":
            return self.answer(200, b"", "application/pkcs7-mime")
        if form == "redirect":
            return self.answer(302, b"moved\n", "text/plain", Location=self.path.replace("redirect/", ""))
        if form == "away":
            return self.answer(307, Location="https://localhost:%d%s" % (
                self.server.server_address[1], self.path.replace("away/", "")))
        if form == "circle":
            return self.answer(308, Location="https://%s%s" % (self.headers["Host"], self.path))
        if form == "large":
            self.note(200)
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"A" * 65536)
            except OSError:
                self.close_connection = True
                return None
        if form == "other":
            return self.certificates("", [issue(csr.subject, OTHER_KEY.public_key(), CA.subject, CA_KEY)])
        if form == "early":
            ahead = datetime.datetime.utcnow().replace(microsecond=0) + datetime.timedelta(seconds=3)
            return self.certificates("", [of_request(csr, begin=ahead)])
        leaf = of_request(csr)
        return self.certificates(form, [ROOT, CA, leaf] if form == "reversed" else [leaf])


def write(name, data):
    with open(path(name + ".tmp"), "wb") as f:
        f.write(data)
    os.rename(path(name + ".tmp"), path(name))


def main():
    write("tls.pem", TLS.public_bytes(PEM) + CA.public_bytes(PEM))
    write("tls.key", TLS_KEY.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    write("root.pem", ROOT.public_bytes(PEM))
    write("root.der", ROOT.public_bytes(DER))
    write("issuer.pem", CA.public_bytes(PEM))
    # For who wants to show a certificate at the first contact, and for other servers.
    client_key = ec.generate_private_key(ec.SECP256R1())
    write("client.der", issue(name_of("first"), client_key.public_key(), CA.subject, CA_KEY).public_bytes(DER))
    write("client.key", client_key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path("tls.pem"), path("tls.key"))
    context.load_verify_locations(path("root.pem"))
    context.verify_mode = ssl.CERT_OPTIONAL
    if os.environ.get("EST_TLS12"):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # Each handshake in its connection's own thread.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    write("port", b"%d" % server.server_address[1])
    sys.stdin.read()


main()
