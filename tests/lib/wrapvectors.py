"""Vectors of wrapped keys, made without csm's code: wrapvectors.py >tests/unit/golden/wrapped-key.txt

A line "name hex" each: the storage key's private number and TPM2B_PUBLIC, and for each kind the key's PKCS#8 and its
wrapped form. The keys are drawn anew at each run."""
import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

CURVES = {"p256": (ec.SECP256R1(), 3, 32), "p384": (ec.SECP384R1(), 4, 48), "p521": (ec.SECP521R1(), 5, 66)}


def b2(data):
    return struct.pack(">H", len(data)) + data


def point(key, size):
    n = key.public_key().public_numbers()
    return b2(n.x.to_bytes(size, "big")) + b2(n.y.to_bytes(size, "big"))


def kdfa(key, label, context, bits):
    text = struct.pack(">I", 1) + label + b"\0" + context + struct.pack(">I", bits)
    return hmac.new(key, text, hashlib.sha256).digest()[:bits // 8]


def area(kind, attributes, cipher, unique):
    head = struct.pack(">HHIH", 1 if kind.startswith("rsa") else 0x23, 0xb, attributes, 0)
    head += struct.pack(">HHH", 6, 128, 0x43) if cipher else struct.pack(">H", 0x10)
    head += struct.pack(">H", 0x10)
    if kind.startswith("rsa"):
        return head + struct.pack(">HI", int(kind[3:]), 0) + unique
    return head + struct.pack(">HH", CURVES[kind][1], 0x10) + unique


def name_of(public):
    return b"\0\x0b" + hashlib.sha256(public).digest()


def wrap(storage, kind, key):
    if kind.startswith("rsa"):
        bits = int(kind[3:])
        public = area(kind, 0x60440, False, b2(key.public_key().public_numbers().n.to_bytes(bits // 8, "big")))
        number, tag = key.private_numbers().p.to_bytes(bits // 16, "big"), 1
    else:
        size = CURVES[kind][2]
        public = area(kind, 0x40440, False, point(key, size))
        number, tag = key.private_numbers().private_value.to_bytes(size, "big"), 0x23
    sensitive = b2(struct.pack(">HHH", tag, 0, 0) + b2(number))
    sender = ec.generate_private_key(ec.SECP256R1())
    z = sender.exchange(ec.ECDH(), storage.public_key())
    x = [k.public_key().public_numbers().x.to_bytes(32, "big") for k in (sender, storage)]
    seed = hashlib.sha256(struct.pack(">I", 1) + z + b"DUPLICATE\0" + x[0] + x[1]).digest()
    e = Cipher(algorithms.AES(kdfa(seed, b"STORAGE", name_of(public), 128)), modes.CFB(bytes(16))).encryptor()
    data = e.update(sensitive) + e.finalize()
    mac = hmac.new(kdfa(seed, b"INTEGRITY", b"", 256), data + name_of(public), hashlib.sha256).digest()
    return b"CSMWRAP\1" + b2(name_of(storage_area(storage))) + b2(public) + b2(b2(mac) + data) + b2(point(sender, 32))


def storage_area(storage):
    return area("p256", 0x30440, True, point(storage, 32))


def main():
    storage = ec.generate_private_key(ec.SECP256R1())
    print("storage.private", storage.private_numbers().private_value.to_bytes(32, "big").hex())
    print("storage.public", b2(storage_area(storage)).hex())
    for kind in ("p256", "p384", "p521", "rsa2048", "rsa3072"):
        key = rsa.generate_private_key(65537, int(kind[3:])) if kind.startswith("rsa") else ec.generate_private_key(
            CURVES[kind][0])
        print(kind + ".key", key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()).hex())
        print(kind + ".wrapped", wrap(storage, kind, key).hex())


main()
