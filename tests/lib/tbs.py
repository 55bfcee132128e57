"""To-be-signed certificates, CRLs and OCSP responses by hand, right or wrong, for tests of what an issuer's key signs.

Nothing of csm's own code; what is right here openssl verifies."""

import hashlib
import os
import time

DAY = 86400


def tlv(tag, *parts):
    body = b"".join(parts)
    n = len(body)
    if n < 0x80:
        return bytes([tag, n]) + body
    size = (n.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + n.to_bytes(size, "big") + body


def seq(*parts):
    return tlv(0x30, *parts)


def integer(v):
    return tlv(2, v.to_bytes(v.bit_length() // 8 + 1, "big"))


def oid(text):
    first, second, *rest = (int(x) for x in text.split("."))
    out = bytearray([40 * first + second])
    for v in rest:
        part = [v & 0x7F]
        while v := v >> 7:
            part.append(v & 0x7F | 0x80)
        out += bytes(reversed(part))
    return tlv(6, bytes(out))


def utf8(text):
    return tlv(12, text.encode())


def name(cn):
    return seq(tlv(0x31, seq(oid("2.5.4.3"), utf8(cn)))) if cn else seq()


def when(at, general=False):
    t = time.gmtime(at)
    if general or t.tm_year >= 2050:
        return tlv(24, time.strftime("%Y%m%d%H%M%SZ", t).encode())
    return tlv(23, time.strftime("%y%m%d%H%M%SZ", t).encode())


ECDSA_SHA256 = seq(oid("1.2.840.10045.4.3.2"))


def ext(number, value, critical=False):
    return seq(oid(number), tlv(1, b"\xff") if critical else b"", tlv(4, value))


def basic(ca=False, path=None, critical=True):
    parts = [tlv(1, b"\xff")] if ca else []
    return ext("2.5.29.19", seq(*parts, integer(path) if path is not None else b""), critical)


def usage(*bits):
    value = 0
    for b in bits:
        value |= 0x80 >> b
    unused = 0
    while value and not value >> unused & 1:
        unused += 1
    return ext("2.5.29.15", tlv(3, bytes([unused, value])), True)


SIGN_CERTS, SIGN_CRL, SIGN = 5, 6, 0


def sans(*texts):
    tags = {"email": 0x81, "dns": 0x82, "uri": 0x86, "ip": 0x87}
    out = []
    for t in texts:
        kind, value = t.split(":", 1)
        out.append(tlv(tags[kind], bytes(int(x) for x in value.split(".")) if kind == "ip" else value.encode()))
    return ext("2.5.29.17", seq(*out))


def ekus(*oids):
    return ext("2.5.29.37", seq(*[oid(o) for o in oids]))


OCSP_SIGNING, SERVER_AUTH = "1.3.6.1.5.5.7.3.9", "1.3.6.1.5.5.7.3.1"


def key_bits(spki):
    """The bytes of the public key itself."""
    at = spki.index(b"\x03", 4)
    while spki[at] != 3 or len(spki) - at != 2 + spki[at + 1]:
        at = spki.index(b"\x03", at + 1)
    return spki[at + 3:]


def key_id(spki):
    return hashlib.sha256(key_bits(spki)).digest()[:20]


def authority(spki):
    return ext("2.5.29.35", seq(tlv(0x80, key_id(spki))))


def subject_id(spki):
    return ext("2.5.29.14", tlv(4, key_id(spki)))


class Issuer:
    def __init__(self, cn, spki, algorithm=ECDSA_SHA256):
        self.cn, self.spki, self.algorithm = cn, spki, algorithm

    def cert(self, cn, spki, exts, life=DAY, serial=None, start=0, issuer=None, version=2, algorithm=None):
        if serial is None:
            serial = int.from_bytes(b"\x40" + os.urandom(15), "big")
        now = int(time.time()) + start
        return seq(tlv(0xA0, integer(version)), integer(serial) if isinstance(serial, int) else serial,
                   algorithm or self.algorithm, issuer or name(self.cn), seq(when(now), when(now + life)), name(cn), spki,
                   tlv(0xA3, seq(*exts)))

    def root(self, path=0, life=10 * 365 * DAY, **more):
        return self.cert(self.cn, self.spki, [basic(True, path), usage(SIGN_CERTS, SIGN_CRL), subject_id(self.spki)],
                         life=life, **more)

    def leaf(self, spki, dns="a.example.org", more=(), usages=(SIGN,), **kw):
        return self.cert(dns, spki, [basic(), usage(*usages), authority(self.spki), sans("dns:" + dns), *more], **kw)

    def crl_parts(self, serials=(), number=1, life=DAY, issuer=None, entry=None, tail=None):
        """Head, entries, tail."""
        now = int(time.time())
        entry = entry or (lambda s: seq(integer(s), when(now)))
        entries = b"".join(entry(s) for s in serials)
        if tail is None:
            tail = tlv(0xA0, seq(authority(self.spki), ext("2.5.29.20", integer(number))))
        front = integer(1) + self.algorithm + (issuer or name(self.cn)) + when(now) + when(now + life)
        if entries:
            front += tlv(0x30, entries)[:-len(entries)]
        whole = tlv(0x30, front, entries, tail)
        return whole[:len(whole) - len(entries) - len(tail)], entries, tail

    def crl(self, *args, **kw):
        return b"".join(self.crl_parts(*args, **kw))

    def ocsp(self, serials, spki=None, cn=None, life=DAY, ext_data=b""):
        now = int(time.time())
        sha1 = seq(oid("1.3.14.3.2.26"), tlv(5))
        name_hash = hashlib.sha1(name(cn or self.cn)).digest()
        key_hash = hashlib.sha1(key_bits(spki or self.spki)).digest()
        singles = [seq(seq(sha1, tlv(4, name_hash), tlv(4, key_hash), integer(s)), tlv(0x80), when(now, True),
                       tlv(0xA0, when(now + life, True))) for s in serials]
        return seq(tlv(0xA2, tlv(4, hashlib.sha1(key_bits(self.spki)).digest())), when(now, True), seq(*singles), ext_data)


def signed(tbs, signature, algorithm=ECDSA_SHA256):
    return seq(tbs, algorithm, tlv(3, b"\0", signature))
