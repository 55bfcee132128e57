"""Another client of the TPM, which puts a key of its own where a key was; and one that does not look.

    foreignkey.py commands PUBLIC          FlushContext of HANDLE, then LoadExternal of a new P-256 key pair under the NULL
                                           hierarchy, which gets the handle that has become free, as commands in hexadecimal;
                                           the key's public half to the file PUBLIC (PEM)
    foreignkey.py careless SOCKET FILE     loads a key pair of its own, and signs FILE with a password session and nothing else:
                                           the signature (DER) to standard output
"""
import hashlib, socket, struct, subprocess, sys

ECC, SHA256, NONE, ECDSA, P256, NULL = 0x0023, 0x000b, 0x0010, 0x0018, 0x0003, 0x40000007


def tpm2b(b):
    return struct.pack(">H", len(b)) + b


def openssl(*words, data=b""):
    return subprocess.run(["openssl", *words], input=data, check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL).stdout


def key_pair():
    """A public half in PEM, and the LoadExternal that takes it into a TPM."""
    key = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    point = openssl("pkey", "-pubout", "-outform", "DER", data=key)[-64:]
    der = openssl("ec", "-no_public", "-outform", "DER", data=key)
    number = der[der.index(b"\x04\x20") + 2:][:32]
    sensitive = struct.pack(">HHH", ECC, 0, 0) + tpm2b(number)  # no authValue, no seed
    public = struct.pack(">HHI", ECC, SHA256, 0x00040440) + tpm2b(b"")  # sign, noDA, userWithAuth; no policy
    public += struct.pack(">HHHH", NONE, NONE, P256, NONE) + tpm2b(point[:32]) + tpm2b(point[32:])
    body = tpm2b(sensitive) + tpm2b(public) + struct.pack(">I", NULL)
    return openssl("pkey", "-pubout", data=key), struct.pack(">HII", 0x8001, 10 + len(body), 0x00000167) + body


def ask(tpm, command):
    tpm.sendall(command)
    answer = tpm.recv(4096)
    code = struct.unpack(">I", answer[6:10])[0]
    if code != 0:
        sys.exit("the TPM answers 0x%x" % code)
    return answer[10:]


def der_number(b):
    b = b.lstrip(b"\0")
    b = b"\0" + b if not b or b[0] & 0x80 else b
    return b"\x02" + bytes([len(b)]) + b


def careless(path, file):
    tpm = socket.socket(socket.AF_UNIX)
    tpm.connect(path)
    handle = ask(tpm, key_pair()[1])[:4]
    body = handle + struct.pack(">IIHBH", 9, 0x40000009, 0, 0, 0)  # a password session, the empty password
    body += tpm2b(hashlib.sha256(open(file, "rb").read()).digest()) + struct.pack(">HH", ECDSA, SHA256)
    body += struct.pack(">HIH", 0x8024, NULL, 0)
    answer = ask(tpm, struct.pack(">HII", 0x8002, 10 + len(body), 0x0000015d) + body)[8:]
    n = struct.unpack(">H", answer[:2])[0]
    m = struct.unpack(">H", answer[2 + n:4 + n])[0]
    numbers = der_number(answer[2:2 + n]) + der_number(answer[4 + n:4 + n + m])
    sys.stdout.buffer.write(b"\x30" + bytes([len(numbers)]) + numbers)


if sys.argv[1] == "commands":
    pem, load = key_pair()
    with open(sys.argv[2], "wb") as f:
        f.write(pem)
    print(struct.pack(">HII", 0x8001, 14, 0x00000165).hex() + "HANDLE," + load.hex())
else:
    careless(*sys.argv[2:])
