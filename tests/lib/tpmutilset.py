"""A set of files as ONAP's tpm-util leaves it, made from its description alone: the structures of tpm2-tss as they lie in
memory, wrapped with a seed of zeros and an inner key that stands beside them.

    tpmutilset.py KEY.pem PREFIX [raw|raw3|standard] [seed]   PREFIX.pub, .priv, .seed, .inner; "seed": a seed that is not zero
    tpmutilset.py --numbers KEY.pem                           the private numbers, a line "name hex" each
"""
import hashlib
import hmac
import os
import struct
import sys

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

SIZES = {"raw": (360, 912, 258, 68), "raw3": (616, 1552, 514, 66)}


def b2(data):
    return struct.pack(">H", len(data)) + data


def kdfa(key, label, context, bits):
    text = struct.pack(">I", 1) + label + b"\0" + context + struct.pack(">I", bits)
    return hmac.new(key, text, hashlib.sha256).digest()[:bits // 8]


def cfb(key, data):
    e = Cipher(algorithms.AES(key), modes.CFB(bytes(16))).encryptor()
    return e.update(data) + e.finalize()


def area(n, bits):
    """TPMT_PUBLIC: RSA, SHA-256, userWithAuth and sign, no policy, no cipher, no scheme, the usual exponent."""
    return struct.pack(">HHIHHHHI", 1, 0xb, 0x40040, 0, 0x10, 0x10, bits, 0) + b2(n)


def wrap(key, seed, inner):
    numbers = key.private_numbers()
    bits = key.key_size
    n = numbers.public_numbers.n.to_bytes(bits // 8, "big")
    public = area(n, bits)
    name = b"\0\x0b" + hashlib.sha256(public).digest()
    sensitive = b2(struct.pack(">HHH", 1, 0, 0) + b2(numbers.p.to_bytes(bits // 16, "big")))
    data = cfb(inner, b2(hashlib.sha256(sensitive + name).digest()) + sensitive)
    data = cfb(kdfa(seed, b"STORAGE", name, 128), data)
    return n, public, b2(hmac.new(kdfa(seed, b"INTEGRITY", b"", 256), data + name, hashlib.sha256).digest()) + data


def raw_public(n, bits, size):
    out = bytearray(size)
    struct.pack_into("<H", out, 0, 0x13a)
    struct.pack_into("<HHI", out, 4, 1, 0xb, 0x40040)
    struct.pack_into("<H", out, 80, 0x10)
    struct.pack_into("<H", out, 86, 0x10)
    struct.pack_into("<HxxI", out, 92, bits, 0)
    struct.pack_into("<H", out, 100, len(n))
    out[102:102 + len(n)] = n
    return bytes(out)


def raw(data, size):
    return (struct.pack("<H", len(data)) + data).ljust(size, b"\0")


def main():
    with open(sys.argv[2 if sys.argv[1] == "--numbers" else 1], "rb") as f:
        key = load_pem_private_key(f.read(), None)
    if sys.argv[1] == "--numbers":
        numbers = key.private_numbers()
        names = ("p", "q", "d", "dmp1", "dmq1", "iqmp") if isinstance(key, rsa.RSAPrivateKey) else ("private_value",)
        for name in names:
            v = getattr(numbers, name)
            print("%s:%s %s" % (sys.argv[2].split("/")[-1], name, v.to_bytes((v.bit_length() + 7) // 8, "big").hex()))
        return
    prefix, form = sys.argv[2], sys.argv[3]
    seed = os.urandom(32) if sys.argv[4:] == ["seed"] else bytes(16)
    inner = os.urandom(16)
    n, public, duplicate = wrap(key, seed, inner)
    # The seed for a parent that is not here.
    parts = {"pub": public, "priv": duplicate, "seed": os.urandom(256), "inner": inner}
    for i, (name, data) in enumerate(parts.items()):
        with open("%s.%s" % (prefix, name), "wb") as f:
            if form == "standard":
                f.write(b2(data))
            else:
                f.write(raw_public(n, key.key_size, SIZES[form][0]) if name == "pub" else raw(data, SIZES[form][i]))


main()
