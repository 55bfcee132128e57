#!/usr/bin/python3
"""An EST client (RFC 7030 with RFC 8951), written from the text of the RFCs. It knows nothing of csm.

usage: est_by_rfc.py --url https://HOST:PORT --anchor FILE [options] cacerts|csrattrs|simpleenroll|simplereenroll [CSR.der]

Prints what came: certificates in PEM, or the attributes, one a line. Exits with 1, and the status and reason on standard
error, when the server refuses; with 3 when what it answers is not what the RFCs say.
"""
import argparse
import base64
import http.client
import ssl
import sys
import textwrap
import urllib.parse

OIDS = {"1.2.840.10045.2.1": "ecPublicKey", "1.2.840.10045.3.1.7": "prime256v1", "1.2.840.10045.4.3.2": "ecdsa-with-SHA256",
        "1.3.132.0.34": "secp384r1", "1.2.840.10045.4.3.3": "ecdsa-with-SHA384",
        "1.2.840.113549.1.7.2": "signedData", "1.2.840.113549.1.7.1": "data"}


class Wrong(Exception):
    """The server does not keep to the RFCs."""


def need(condition, what):
    if not condition:
        raise Wrong(what)


def element(der, at=0):
    """One element of DER: tag, its contents, its whole bytes, where the next one begins."""
    need(at + 2 <= len(der), "DER: cut off")
    tag, length, start = der[at], der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        need(1 <= count <= 4, "DER: length")
        length = int.from_bytes(der[start:start + count], "big")
        start += count
        need(length >= 0x80, "DER: a long length for a short one")
    end = start + length
    need(end <= len(der), "DER: cut off")
    return tag, der[start:end], der[at:end], end


def elements(der):
    """All elements of the contents of one."""
    at, out = 0, []
    while at < len(der):
        tag, contents, whole, at = element(der, at)
        out.append((tag, contents, whole))
    return out


def oid(contents):
    parts, value = [contents[0] // 40, contents[0] % 40], 0
    for byte in contents[1:]:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            parts.append(value)
            value = 0
    name = ".".join(map(str, parts))
    return OIDS.get(name, name)


def certs_only(der):
    """RFC 7030 4.1.3, RFC 5652: SignedData without content and signers. The certificates."""
    tag, contents, _, end = element(der)
    need(tag == 0x30 and end == len(der), "not one SEQUENCE")
    kind, outer = elements(contents)
    need(kind[0] == 6 and oid(kind[1]) == "signedData", "not SignedData")
    need(outer[0] == 0xA0, "no [0] around SignedData")
    (signed,) = elements(outer[1])
    version, hashes, content, certs, *rest = elements(signed[1])
    need(version[:2] == (2, b"\x01"), "the version is not 1")
    need(hashes[:2] == (0x31, b""), "hashes of nobody's signature")
    inner = elements(content[1])
    need(len(inner) == 1 and oid(inner[0][1]) == "data", "content in a certs-only form")
    need(certs[0] == 0xA0, "no certificates")
    need([row[:2] for row in rest if row[0] != 0xA1] == [(0x31, b"")], "signers in a certs-only form")
    return [whole for tag, _, whole in elements(certs[1]) if tag == 0x30]


def attributes(der):
    """RFC 7030 4.5.2: CsrAttrs."""
    tag, contents, _, end = element(der)
    need(tag == 0x30 and end == len(der), "CsrAttrs is not one SEQUENCE")
    out = []
    for tag, value, _ in elements(contents):
        if tag == 6:
            out.append(oid(value))
            continue
        need(tag == 0x30, "neither OID nor attribute")
        kind, values = elements(value)
        need(kind[0] == 6 and values[0] == 0x31, "not an attribute")
        out.append(oid(kind[1]) + " " + " ".join(oid(v) if t == 6 else v.hex() for t, v, _ in elements(values[1])))
    return out


class Client:
    def __init__(self, args):
        url = urllib.parse.urlsplit(args.url)
        self.args = args
        context = ssl.create_default_context(cafile=args.anchor)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if args.cert:
            context.load_cert_chain(args.cert, args.key)
        self.connection = http.client.HTTPSConnection(url.hostname, url.port, context=context, timeout=20)
        self.path = "/.well-known/est/" + (urllib.parse.quote(args.label) + "/" if args.label else "")

    def ask(self, method, operation, body=None):
        headers = {}
        if body is not None:
            headers["Content-Type"] = self.args.type
            if not self.args.rfc8951:
                headers["Content-Transfer-Encoding"] = "base64"
        if self.args.password:
            pair = (self.args.user + ":" + self.args.password).encode()
            headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        self.connection.request(method, self.path + operation, body, headers)
        answer = self.connection.getresponse()
        return answer, answer.read()

    def encode(self, der):
        text = base64.b64encode(der).decode()
        if self.args.lines:
            end = "\r\n" if self.args.crlf else "\n"
            text = end.join(textwrap.wrap(text, self.args.lines)) + end
        return text.encode()

    @staticmethod
    def decode(body):
        """RFC 8951 3.1: white space means nothing, and nothing else but base64 stands there."""
        packed = bytes(c for c in body if c not in b" \t\r\n")
        return base64.b64decode(packed, validate=True)


def kind_of(answer, wanted, **params):
    kind, *rest = [part.strip() for part in (answer.headers["Content-Type"] or "").split(";")]
    got = dict(part.lower().split("=", 1) for part in rest if "=" in part)
    need(kind.lower() == wanted, f"Content-Type {kind}, not {wanted}")
    for name, value in params.items():
        need(got.get(name.replace("_", "-")) == value, f"no {name}={value} in the Content-Type")


def show_certs(certs):
    for der in certs:
        print(ssl.DER_cert_to_PEM_cert(der), end="")


def run(args):
    client = Client(args)
    if args.operation in ("cacerts", "csrattrs"):
        answer, body = client.ask("GET", args.operation)
    else:
        with open(args.csr, "rb") as f:
            answer, body = client.ask("POST", args.operation, client.encode(f.read()))
    if answer.status == 401:
        need("basic" in (answer.headers["WWW-Authenticate"] or "").lower(), "401 without a challenge for Basic")
    if answer.status in (202, 429, 503):
        need((answer.headers["Retry-After"] or "").isdigit(), f"{answer.status} without Retry-After")
    if answer.status in (204, 404) and args.operation == "csrattrs":
        print(answer.status)
        return 0
    if answer.status != 200:
        print(answer.status, body.decode(errors="replace").strip(), file=sys.stderr)
        return 1
    if args.operation == "csrattrs":
        kind_of(answer, "application/csrattrs")
        print("\n".join(attributes(client.decode(body))))
        return 0
    if args.operation == "cacerts":
        kind_of(answer, "application/pkcs7-mime")
        certs = certs_only(client.decode(body))
        need(certs, "no certificate")
    else:
        kind_of(answer, "application/pkcs7-mime", smime_type="certs-only")
        certs = certs_only(client.decode(body))
        need(len(certs) == 1, f"{len(certs)} certificates where the one that was issued has to be alone (4.2.3)")
    show_certs(certs)
    return 0


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--url", required=True)
    p.add_argument("--anchor", required=True)
    p.add_argument("--label")
    p.add_argument("--user", default="est")
    p.add_argument("--password")
    p.add_argument("--cert")
    p.add_argument("--key")
    p.add_argument("--lines", type=int, default=0, help="break the base64 after so many characters")
    p.add_argument("--crlf", action="store_true")
    p.add_argument("--rfc8951", action="store_true", help="send no Content-Transfer-Encoding")
    p.add_argument("--type", default="application/pkcs10")
    p.add_argument("operation", choices=["cacerts", "csrattrs", "simpleenroll", "simplereenroll"])
    p.add_argument("csr", nargs="?")
    try:
        return run(p.parse_args())
    except (Wrong, ValueError) as e:
        print(f"not as the RFCs say: {e}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
