"""What issuer-signs-only-what-it-may.sh asks of csmd, and what it has to answer."""
import ctypes
import glob
import hashlib
import json
import os
import sys
import threading
import time

import tbs
from csmwire import Conn, Refused, openssl_verifies, pack_request
from tbs import DAY, Issuer, ext, oid, seq, tlv

conn = Conn()
CA, WEB, DEEP = (open(f"{n}.der", "rb").read() for n in ("ca", "web", "deep"))
ca = Issuer("csm test root", CA)
SERIAL = int.from_bytes(b"\x41" + hashlib.sha256(b"the first").digest()[:15], "big")


def ask(body, kind="certificate", key="ca", **more):
    return conn.call("issue.sign", {"key": key, "kind": kind, "tbs": body, **more})["signature"]


def refused(what, error, words, body, kind="certificate", key="ca", **more):
    try:
        ask(body, kind, key, **more)
    except Refused as e:
        if e.name != error or words not in str(e):
            sys.exit(f"FAILED: {what}: '{e}', not {error} with '{words}'")
        return
    sys.exit(f"FAILED: {what}: signed")


def save(name, body, signature):
    with open(name, "wb") as f:
        f.write(tbs.signed(body, signature))


def certificates():
    leaf = ca.leaf
    refused("nothing installed yet", "state", "no certificate is installed", leaf(WEB))
    refused("another key's root", "denied", "another key", Issuer("csm test root", WEB).root())
    refused("a root without CA:TRUE", "denied", "not a CA's", ca.cert(ca.cn, CA, [tbs.basic(), tbs.usage(0)]))
    refused("a root of any length", "denied", "path length", ca.root(path=None))
    refused("a longer path than the rules", "denied", "path length", ca.root(path=1))
    refused("a root for a century", "denied", "its life is longer", ca.root(life=100 * 365 * DAY))
    root = ca.root(life=20 * 365 * DAY)
    save("root.cert", root, ask(root))
    with open("root.cert", "rb") as f:
        conn.call("cert.install", {"key": "ca", "chain": f.read()})
    refused("its root once more", "denied", "path length", ca.root(life=DAY))

    first = leaf(WEB, serial=SERIAL)
    save("leaf.cert", first, ask(first))
    refused("a used serial number", "exists", "serial number", leaf(WEB, serial=SERIAL))
    refused("bytes behind it", "invalid", "DER", first + b"\0")
    refused("half of it", "invalid", "DER", first[:-1])
    refused("nothing", "invalid", "DER", b"")
    refused("BER", "invalid", "DER", b"\x30\x80" + first[4:] + b"\0\0")
    refused("a length too long", "invalid", "DER", b"\x30\x83\0" + first[2:])
    refused("a default that is written out", "invalid", "DER", ca.cert(
        "a.example.org", WEB, [seq(oid("2.5.29.19"), tlv(1, b"\0"), tlv(4, seq())), tbs.authority(CA)]))
    refused("BER in an extension", "invalid", "DER", leaf(WEB, more=[ext("1.2.3.4", b"\x30\x80\0\0")]))
    refused("a CA", "denied", "path length of this issuer", ca.cert(
        "sub", DEEP, [tbs.basic(True, 0), tbs.usage(5), tbs.authority(CA)]))
    refused("keyCertSign without CA", "denied", "keyCertSign", leaf(WEB, usages=(0, 5)))
    refused("cRLSign without CA", "denied", "cRLSign", leaf(WEB, usages=(6,)))
    refused("an old Netscape CA", "denied", "not for certificates", leaf(
        WEB, more=[ext("2.16.840.1.113730.1.1", tlv(3, b"\x02\x04"))]))
    refused("a life over the maximum", "denied", "its life is longer", leaf(WEB, life=401 * DAY))
    refused("next year's", "denied", "future", leaf(WEB, start=300 * DAY))
    refused("backwards", "invalid", "ends before", leaf(WEB, life=-DAY))
    refused("a name outside", "denied", "constraints", leaf(WEB, dns="a.example.com"))
    refused("a name that is excluded", "denied", "constraints", leaf(WEB, dns="a.bad.example.org"))
    refused("a host in the CN", "denied", "constraints", ca.cert(
        "a.example.com", WEB, [tbs.basic(), tbs.authority(CA), tbs.sans("dns:a.example.org")]))
    refused("a name of another kind", "denied", "no rule can speak of", ca.cert(
        "x", WEB, [tbs.authority(CA), ext("2.5.29.17", seq(tlv(0xA4, tbs.name("x"))))]))
    refused("a critical extension", "denied", "1.2.3.4", leaf(WEB, more=[ext("1.2.3.4", tlv(5), True)]))
    refused("an extension twice", "invalid", "twice", leaf(WEB, more=[tbs.basic()]))
    refused("an OCSP responder for a year", "denied", "OCSP", leaf(WEB, more=[tbs.ekus(tbs.OCSP_SIGNING)], life=365 * DAY))
    refused("a short serial number", "invalid", "serial", leaf(WEB, serial=1))
    refused("a negative serial number", "invalid", "serial", leaf(WEB, serial=tlv(2, b"\x81" + bytes(15))))
    refused("a long serial number", "invalid", "serial", leaf(WEB, serial=1 << 160))
    refused("another issuer's", "denied", "its issuer", leaf(WEB, issuer=tbs.name("another")))
    refused("another key identifier", "denied", "authority", ca.cert("a.example.org", WEB, [tbs.authority(WEB)]))
    refused("no key identifier", "invalid", "authority", ca.cert("a.example.org", WEB, []))
    refused("version 1", "invalid", "", leaf(WEB, version=0))
    refused("another algorithm", "invalid", "algorithm", leaf(WEB, algorithm=seq(
        oid("1.2.840.113549.1.1.11"), tlv(5))))
    refused("SHA-1", "invalid", "algorithm", leaf(WEB, algorithm=seq(oid("1.2.840.10045.4.1"))))
    refused("another scheme asked for", "invalid", "scheme", leaf(WEB), scheme="ecdsa-sha512")
    weak = seq(seq(oid("1.2.840.113549.1.1.1"), tlv(5)), tlv(3, b"\0", seq(tbs.integer((1 << 1023) + 1), tbs.integer(65537))))
    refused("a weak key", "denied", "weak key", leaf(weak))
    refused("another key than meant", "conflict", "", leaf(WEB), spki_sha256="00" * 32)
    refused("a key that is no issuer's", "unsupported", "not an issuer's", leaf(WEB), key="web")


def lists():
    refused("a list as a certificate", "invalid", "", ca.crl())
    refused("a certificate as a list", "invalid", "", ca.leaf(WEB), "crl")
    refused("an OCSP response as a certificate", "invalid", "", ca.ocsp([SERIAL]))
    refused("a certificate as an OCSP response", "invalid", "", ca.leaf(WEB), "ocsp")
    refused("another kind", "invalid", "kind", ca.leaf(WEB), "message")
    body = ca.crl([SERIAL, 77], number=7)
    save("list.crl", body, ask(body, "crl"))
    refused("a smaller number", "conflict", "smaller", ca.crl(number=6), "crl")
    refused("another issuer's list", "denied", "its issuer", ca.crl(number=8, issuer=tbs.name("another")), "crl")
    refused("a list for years", "denied", "longer", ca.crl(number=8, life=500 * DAY), "crl")
    refused("yesterday's list", "invalid", "past", ca.crl(number=8, life=-DAY), "crl")
    refused("bytes behind a list", "invalid", "", ca.crl(number=8) + b"\0", "crl")
    refused("no number", "invalid", "number", ca.crl(tail=tlv(0xA0, seq(tbs.authority(CA)))), "crl")
    refused("a list of others' certificates", "denied", "distribution", ca.crl(tail=tlv(0xA0, seq(
        tbs.authority(CA), ext("2.5.29.20", tbs.integer(8)), ext("2.5.29.28", seq(tlv(0x84, b"\xff")))))), "crl")
    refused("an entry of another issuer", "invalid", "entry", ca.crl([5], number=8, entry=lambda s: seq(
        tbs.integer(s), tbs.when(time.time()), seq(ext("2.5.29.29", seq(tlv(0xA4, tbs.name("x"))), True)))), "crl")

    head, entries, tail = ca.crl_parts(range(1, 30001), number=9)
    save("long.crl", head + entries + tail, in_parts(head, entries, tail))
    for what, parts in (("half of the entries", (head, entries[:len(entries) // 2], tail)),
                        ("more entries", (head, entries + entries[:40], tail)),
                        ("half an entry", (head, entries[:-3], tail)), ("no tail", (head, entries, b"")),
                        ("a certificate in parts", (ca.leaf(WEB), b"", b""))):
        try:
            in_parts(*parts)
        except Refused as e:
            assert e.name == "invalid", (what, e)
            continue
        sys.exit(f"FAILED: {what}: signed")

    answer = ca.ocsp([SERIAL])
    with open("answer.ocsp", "wb") as f:
        basic = tbs.signed(answer, ask(answer, "ocsp"))
        f.write(seq(tlv(10, b"\0"), tlv(0xA0, seq(oid("1.3.6.1.5.5.7.48.1.1"), tlv(4, basic)))))
    refused("another issuer's certificate", "denied", "another issuer", ca.ocsp([SERIAL], spki=WEB), "ocsp")
    refused("another responder", "denied", "responder", Issuer(ca.cn, WEB).ocsp([SERIAL], spki=CA), "ocsp")
    refused("an answer for years", "denied", "longer", ca.ocsp([SERIAL], life=500 * DAY), "ocsp")
    refused("a critical extension of an answer", "denied", "critical", ca.ocsp(
        [SERIAL], ext_data=tlv(0xA1, seq(ext("1.2.3.4", tlv(5), True)))), "ocsp")


def in_parts(head, entries, tail, step=500_000):
    stream = conn.call("issue.begin", {"key": "ca", "kind": "crl", "head": head})["stream"]
    at = 0
    while at < len(entries):
        end = min(at + step, len(entries))
        end = end if end == len(entries) else at + whole(entries[at:end])
        conn.call("issue.update", {"stream": stream, "entries": entries[at:end]})
        at = end
    return conn.call("issue.finish", {"stream": stream, "tail": tail} if tail else {"stream": stream})["signature"]


def refused_in_parts():
    """A part that is refused is in the audit log, and ends its list."""
    head, entries, _ = ca.crl_parts(range(1, 4), number=11)
    stream = conn.call("issue.begin", {"key": "ca", "kind": "crl", "head": head})["stream"]
    for part, why in ((entries[:-3], ""), (entries, "no such list")):
        try:
            conn.call("issue.update", {"stream": stream, "entries": part})
        except Refused as e:
            assert e.name == "invalid" and why in e.error["message"], e
            continue
        sys.exit("FAILED: a part of a list was taken")


def whole(data):
    """How many bytes of data are whole entries, each shorter than 128 bytes."""
    at = 0
    while at + 2 <= len(data) and at + 2 + data[at + 1] <= len(data):
        at += 2 + data[at + 1]
    return at


def by_libcsm():
    """A list that is too long for one request: libcsm sends it in parts, and says what csmd says."""
    lib = ctypes.CDLL(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build/lib/libcsm.so.0"))
    lib.csm_error_message.restype = ctypes.c_char_p
    handle = ctypes.c_void_p()
    assert lib.csm_new(ctypes.byref(handle)) == 0

    def sign(body):
        out, n = ctypes.create_string_buffer(1024), ctypes.c_size_t(1024)
        r = lib.csm_issue_sign(handle, b"ca", b"crl", None, body, ctypes.c_size_t(len(body)), out, ctypes.byref(n))
        return r, out.raw[:n.value]

    body = ca.crl(range(1, 60001), number=10)
    assert len(body) > 786432
    r, signature = sign(body)
    assert r == 0, lib.csm_error_message()
    save("longer.crl", body, signature)
    r, _ = sign(ca.crl(range(1, 60001), number=10, life=500 * DAY))
    assert r != 0 and b"longer" in lib.csm_error_message(), lib.csm_error_message()
    r, _ = sign(body[:-1])
    assert r != 0
    lib.csm_free(handle)


def below():
    """A CA below one that may have some, and no further one below that; sub-CAs carry their issuer's names."""
    deep = Issuer("csm deep root", DEEP)
    root = deep.root(path=1)
    save("deep.cert", root, ask(root, key="deep"))
    conn.call("cert.install", {"key": "deep", "chain": open("deep.cert", "rb").read()})
    sub = [tbs.usage(5, 6), tbs.authority(DEEP)]
    refused("a path as long as its own", "denied", "path length", deep.cert("sub", WEB, [tbs.basic(True, 1), *sub]), key="deep")
    refused("a path without end", "denied", "path length", deep.cert("sub", WEB, [tbs.basic(True), *sub]), key="deep")
    refused("a CA that is not critical", "invalid", "critical", deep.cert(
        "sub", WEB, [tbs.basic(True, 0, False), *sub]), key="deep")
    refused("a CA without the usage", "invalid", "keyCertSign", deep.cert(
        "sub", WEB, [tbs.basic(True, 0), tbs.usage(0), tbs.authority(DEEP)]), key="deep")
    ask(deep.cert("sub", WEB, [tbs.basic(True, 0), *sub]), key="deep")


def rate():
    conn.call("key.create", {"key": "slow", "use": ["issuer"], "issuer": {"max_life": DAY, "rate": 2}})
    spki = conn.call("key.public", {"key": "slow"})["spki"]
    slow = Issuer("slow", spki)
    for _ in range(2):
        ask(slow.root(), key="slow")
    refused("the third of two", "busy", "rate", slow.root(), key="slow")


def race():
    """Of many at once with one serial number one is signed."""
    body = ca.leaf(WEB)
    results = []

    def one():
        try:
            Conn().call("issue.sign", {"key": "ca", "kind": "certificate", "tbs": body})
            results.append("signed")
        except Refused as e:
            results.append(e.name)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if sorted(results) != ["exists"] * 7 + ["signed"]:
        sys.exit(f"FAILED: one serial number eight times at once: {results}")


def at_once(c, bodies):
    c.send_raw(b"".join(pack_request(i, "issue.sign", {"key": "ca", "kind": "certificate", "tbs": body}) for i, body in enumerate(bodies)))


def together():
    """Many that one connection sends at once: each has its own answer."""
    bodies = [ca.leaf(WEB) for _ in range(40)]
    # refused among them: by the reader, by one before it, by policy's idea of a key, by one that is answered already
    bad = {7: (ca.leaf(WEB, dns="a.example.com"), "denied"), 20: (bodies[2], "exists"), 21: (b"", "invalid"),
           30: (ca.leaf(WEB, serial=SERIAL), "exists")}
    for i, (body, _) in bad.items():
        bodies[i] = body
    c = Conn()
    at_once(c, bodies)
    answers = {}
    for _ in bodies:
        _, msgid, error, result = c.recv()
        assert msgid not in answers, msgid
        answers[msgid] = error["name"] if error else result["signature"]
    for i, body in enumerate(bodies):
        if i in bad:
            assert answers[i] == bad[i][1], (i, answers[i])
        else:
            assert openssl_verifies(CA, answers[i], body), (i, answers[i])
    # whoever goes without waiting has used the numbers, or not: each is signed once at most
    gone = [ca.leaf(WEB) for _ in range(16)]
    at_once(c, gone)
    c.close()
    for _ in range(2):
        outcomes = []
        for body in gone:
            try:
                ask(body)
                outcomes.append("signed")
            except Refused as e:
                outcomes.append(e.name)
    assert set(outcomes) == {"exists"}, outcomes


def audited(node):
    """Each that was signed, with what openssl sees in it."""
    lines = []
    for path in sorted(glob.glob(f"{node}/state/audit/audit*.log")):
        lines += [json.loads(line) for line in open(path)]
    issued = [x for x in lines if x.get("method", "").startswith("issue.") and x["event"] == "change" and x["result"] == "ok"]
    for name, kind, number in (("root.cert", "certificate", None), ("leaf.cert", "certificate", f"{SERIAL:x}"), ("list.crl", "crl", "07"),
                               ("long.crl", "crl", "09")):
        data = open(name, "rb").read()
        at = 2 + (data[1] & 0x7F if data[1] & 0x80 else 0)
        size = int.from_bytes(data[at + 2:at + 2 + (data[at + 1] & 0x7F)], "big") + 2 + (data[at + 1] & 0x7F)
        digest = hashlib.sha256(data[at:at + size]).hexdigest()
        found = [x for x in issued if x["tbs_sha256"] == digest]
        assert len(found) == 1 and found[0]["kind"] == kind, (name, found)
        assert number is None or number in (found[0].get("serial"), found[0].get("number")), (name, number, found)
    denied = [x for x in lines if x.get("method", "").startswith("issue.") and x["event"] == "denied"]
    assert denied and any(x.get("result") == "exists" for x in lines), "refusals are told"
    assert any((x["method"], x["object"], x["result"]) == ("issue.update", "uid-0:ca", "invalid") for x in denied), denied


if sys.argv[1] == "first":
    certificates()
    lists()
    by_libcsm()
    below()
    rate()
    race()
    together()
elif sys.argv[1] == "again":
    refused("a serial number of before", "exists", "serial number", ca.leaf(WEB, serial=SERIAL))
    refused("a smaller number than before", "conflict", "smaller", ca.crl(number=8), "crl")
    refused("the rate of before", "busy", "rate", Issuer("slow", conn.call("key.public", {"key": "slow"})["spki"]).root(),
            key="slow")
    ask(ca.leaf(WEB))
    refused_in_parts()
else:
    audited(sys.argv[2])
