"""Statements of csm key attest for tests: read, changed, forged and written by a program that shares no code with csm."""
import base64
import os
import subprocess
import tempfile

import msgpack

BEGIN, END = "-----BEGIN %s-----\n", "-----END %s-----\n"


def load(path, label="CSM ATTESTATION"):
    text = open(path).read()
    assert text.startswith(BEGIN % label) and text.endswith(END % label), text
    return msgpack.unpackb(base64.b64decode("".join(text.split("\n")[1:-2])), raw=False)


def save(path, value, label="CSM ATTESTATION"):
    b64 = base64.b64encode(msgpack.packb(value, use_bin_type=True)).decode()
    with open(path, "w") as f:
        f.write(BEGIN % label + "".join(b64[i:i + 64] + "\n" for i in range(0, len(b64), 64)) + END % label)


def b16(b):
    return len(b).to_bytes(2, "big") + b


class Attest:
    """TPMS_ATTEST of TPM2_Certify, part by part."""

    def __init__(self, raw):
        self.magic, self.type = raw[:4], raw[4:6]
        at, self.parts = 6, []
        for what in ("signer", "extra", 25, "name", "qualified"):
            n = what if isinstance(what, int) else 2 + int.from_bytes(raw[at:at + 2], "big")
            self.parts.append(raw[at:at + n])
            at += n
        assert at == len(raw), (at, len(raw))

    def bytes(self):
        return self.magic + self.type + b"".join(self.parts)


def ec_point(pem_public):
    der = base64.b64decode("".join(open(pem_public).read().split("\n")[1:-2]))
    assert der[-65] == 4
    return der[-64:-32], der[-32:]


def with_point(public, pem_public):
    """The P-256 public area with another point."""
    x, y = ec_point(pem_public)
    assert public[-34 * 2:-34 * 2 + 2] == b"\0\x20"
    return public[:-68] + b16(x) + b16(y)


def with_attributes(public, clear=0, set=0):
    attr = int.from_bytes(public[4:8], "big") & ~clear | set
    return public[:4] + attr.to_bytes(4, "big") + public[8:]


def ec_sign(private, data):
    """TPMT_SIGNATURE, ECDSA with SHA-256, by openssl."""
    der = subprocess.run(["openssl", "dgst", "-sha256", "-sign", private], input=data, capture_output=True, check=True,
                         timeout=20).stdout
    n = der[3]
    r, s = der[4:4 + n].lstrip(b"\0"), der[6 + n:].lstrip(b"\0")
    return bytes.fromhex("0018000b") + b16(r.rjust(32, b"\0")) + b16(s.rjust(32, b"\0"))


def der_signature(sig):
    """TPMT_SIGNATURE to what openssl reads."""
    def integer(b):
        b = b.lstrip(b"\0")
        b = b"\0" + b if not b or b[0] & 0x80 else b
        return b"\2" + bytes([len(b)]) + b
    assert sig[:4] == bytes.fromhex("0018000b")
    n = int.from_bytes(sig[4:6], "big")
    body = integer(sig[6:6 + n]) + integer(sig[8 + n:])
    return b"\x30" + bytes([len(body)]) + body


def openssl_verifies(ak_pem, data, sig):
    with tempfile.TemporaryDirectory(dir=os.getcwd()) as d:
        open(d + "/s", "wb").write(der_signature(sig))
        return subprocess.run(["openssl", "dgst", "-sha256", "-verify", ak_pem, "-signature", d + "/s"], input=data,
                              capture_output=True, timeout=20, check=False).returncode == 0
