#!/usr/bin/python3
"""Writes proto-spec/vectors: every message of csm in both directions, and what must be refused.

Usage: gen-vectors.py [--check]. With --check nothing is written; exit status 1 when a file is not
what would be written. The encoder is the msgpack module, so that csm's own has an oracle."""
import io
import json
import os
import sys

import msgpack

import protospec

HERE = os.path.join(protospec.SPEC, "vectors")
MESSAGES = protospec.messages()
ERRORS = {e.name: e for e in protospec.errors()}
METHODS = protospec.methods()

DIGEST = bytes(range(32))
SIGNATURE = bytes.fromhex("3006020101020102")
PEM = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n"
SPKI = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
INFO = {"namespace": "web", "name": "tls", "alg": "p256", "backend": "tpm2", "protection": "tpm", "use": ["sign"],
        "exportable": False, "created": 1767225600, "public": PEM, "spki_sha256": "ab" * 32, "signatures": 41,
        "origin": "made"}
ITEM = {k: INFO[k] for k in ("namespace", "name", "alg", "backend", "protection", "created")}
KEY_CERT = {"serial": "0A1B2C", "not_after": 1798761600, "state": "valid", "fingerprint": "cd" * 32}
CERT = {"namespace": "web", "name": "tls", "serial": "0A1B2C", "subject": "/O=Example/CN=www",
        "san": ["dns:www.example.org", "uri:spiffe://example.org/www"], "issuer": "/O=Example/CN=CA",
        "not_before": 1767225600, "not_after": 1798761600, "renew_at": 1788249600, "state": "valid", "last_error": "",
        "fingerprint": "cd" * 32, "installed": 1767229200}
CERT_ITEM = {k: CERT[k] for k in ("namespace", "name", "serial", "subject", "not_after", "state", "fingerprint",
                                  "installed")}
ISSUER = {"max_life": 315360000, "path_len": 0, "permitted": ["dns:.example.org", "ip:192.0.2.0/24"], "rate": 1000}
CHAIN = bytes.fromhex("3082012e3082012a")
WANTED = {"profile": "default", "asked_subject": "/CN=tls", "asked_san": ["dns:www.example.org"]}
PAIRS = [{"name": "user", "type": "text", "value": b"app"}, {"name": "password", "value": b"s3cret"}]

# method -> (request, response): the examples of PROTOCOL.md.
EXAMPLES = {
    "hello": ({"version": 1, "client": "example/1.0"},
              {"version": 1, "server": "csmd 0.1.0", "max_message": 1048576, "max_depth": 8, "max_in_flight": 1024}),
    "ping": ({"data": b"\x01\x02\x03\x04"}, {"data": b"\x01\x02\x03\x04"}),
    "whoami": ({}, {"uid": 33, "gid": 33, "pid": 4711, "identities": ["web"], "namespace": "web",
                    "unit": "nginx.service", "namespaces": ["web", "shared"]}),
    "prove": ({"nonce": bytes(range(16))}, {}),
    "ident.answer": ({"id": 7, "path": "/usr/bin/deployer", "device": 65024, "inode": 262148, "size": 81920,
                      "changed": 1767225600000000000, "image": 0x1122334455667788, "us": 41}, {}),
    "status": ({}, {"pid": 812, "supervisor_pid": 811, "version": "0.1.0", "state": "ready", "uptime": 86400,
                    "root_key": "tpm", "identity": "full", "sandbox": ["seccomp", "landlock"], "warnings": [],
                    "backends": [{"name": "tpm2", "state": "ready", "preferred": True, "algorithms": ["p256"]},
                                 {"name": "soft", "state": "ready", "preferred": False,
                                  "algorithms": ["p256", "ed25519"]}],
                    "secrets": 3, "domains": 1, "keys": 2,
                    "root_key_state": "open", "root_key_sealed": "none"}),
    "stats": ({}, {"metrics": [{"name": "csm_requests_total", "labels": 'method="key.sign"', "type": "counter",
                                "help": "Requests answered", "value": 41}]}),
    "key.create": ({"key": "web:tls", "alg": "p256", "use": ["sign"], "request_id": "5f1c9a"}, INFO),
    "key.list": ({"namespace": "web", "limit": 2}, {"keys": [ITEM], "more": False}),
    "key.show": ({"key": "web:tls"}, {**INFO, "certificate": KEY_CERT}),
    "key.public": ({"key": "web:tls", "spki_sha256": INFO["spki_sha256"]}, {"alg": "p256", "spki": SPKI, "public": PEM}),
    "key.delete": ({"key": "web:tls", "request_id": "5f1c9b", "spki_sha256": INFO["spki_sha256"]}, {}),
    "key.import": ({"key": "web:tls", "wrapped": b"CSMWRAP\x01" + bytes(24), "request_id": "5f1ca2"},
                   {**INFO, "origin": "imported"}),
    "key.export": ({"key": "web:tls"}, {"tss2": bytes.fromhex("30820104")}),
    "key.sign": ({"key": "web:tls", "scheme": "ecdsa-sha256", "digest": DIGEST},
                 {"scheme": "ecdsa-sha256", "signature": SIGNATURE}),
    "key.sign_init": ({"key": "web:tls", "scheme": "ecdsa-sha256"}, {"stream": 1}),
    "key.sign_update": ({"stream": 1, "data": b"a part of the message"}, {}),
    "key.sign_final": ({"stream": 1}, {"scheme": "ecdsa-sha256", "signature": SIGNATURE}),
    "issue.sign": ({"key": "ca:root", "kind": "certificate", "tbs": bytes.fromhex("3082012aa003020102")},
                   {"scheme": "ecdsa-sha256", "signature": SIGNATURE}),
    "issue.begin": ({"key": "ca:root", "kind": "crl", "head": bytes.fromhex("30840041a2b3020101")}, {"stream": 1}),
    "issue.update": ({"stream": 1, "entries": bytes.fromhex("3012020105170d3236303130313030303030305a")},
                     {}),
    "issue.finish": ({"stream": 1, "tail": bytes.fromhex("a00e300c300a0603551d140403020101")},
                     {"scheme": "ecdsa-sha256", "signature": SIGNATURE}),
    "key.decrypt": ({"key": "web:wrap", "scheme": "rsa-oaep-sha256", "ciphertext": bytes(16)},
                    {"plaintext": b"plain"}),
    "key.derive": ({"key": "web:agree", "peer": SPKI}, {"shared": DIGEST}),
    "key.csr": ({"key": "web:tls", "subject": "/O=Example/CN=www", "sans": ["dns:www.example.org", "ip:192.0.2.7"]},
                {"csr": bytes.fromhex("30820102")}),
    "key.attest": ({"key": "web:tls", "nonce": DIGEST}, {"statement": bytes.fromhex("8a a776657273696f6e01")}),
    "cert.install": ({"key": "web:tls", "chain": CHAIN, "request_id": "5f1ca0"}, CERT),
    "cert.get": ({"key": "web:tls"}, {**CERT, "chain": CHAIN}),
    "cert.list": ({"namespace": "web"}, {"certs": [CERT_ITEM], "more": False}),
    "cert.delete": ({"key": "web:tls", "request_id": "5f1ca1"}, {}),
    "cert.enrol": ({"key": "web:tls", "profile": "default", "sans": ["dns:www.example.org"], "request_id": "5f1ca3"},
                   {**CERT, **WANTED}),
    "cert.renew": ({"key": "web:tls", "wait": False}, {**CERT, **WANTED}),
    "cert.revoke": ({"key": "web:tls", "reason": "superseded", "request_id": "5f1ca4"},
                    {**CERT, **WANTED, "state": "revoked", "revoked": 1767916800}),
    "cert.watch": ({"keys": ["web:tls"], "after": 1767225600000000, "timeout_ms": 30000},
                   {"version": 1767225600000001, "all": False, "keys": ["web:tls"]}),
    "enrol.next": ({}, {"id": 3, "what": "enrol", "protocol": "cms", "url": "https://ca.example.org:8443",
                        "label": "web", "csr": bytes.fromhex("30820102"), "tls_chain": CHAIN, "tls_alg": "p256",
                        "timeout_ms": 60000}),
    "enrol.sign": ({"job": 3, "scheme": "ecdsa-sha256", "digest": DIGEST},
                   {"scheme": "ecdsa-sha256", "signature": SIGNATURE}),
    "enrol.done": ({"job": 3, "chain": CHAIN}, {}),
    "domain.create": ({"domain": "web:db", "request_id": "5f1c9c"}, {}),
    "domain.list": ({"namespace": "web"},
                    {"domains": [{"namespace": "web", "name": "db", "created": 1767225600, "secrets": 1}],
                     "more": False}),
    "domain.show": ({"domain": "web:db"}, {"namespace": "web", "name": "db", "created": 1767225600, "secrets": 1}),
    "domain.delete": ({"domain": "web:db", "request_id": "5f1c9d"}, {}),
    "secret.set": ({"secret": "web:db/login", "pairs": PAIRS, "expect": 0, "request_id": "5f1c9e"}, {"version": 1}),
    "secret.get": ({"secret": "web:db/login"}, {"version": 1, "created": 1767225600, "pairs": PAIRS}),
    "secret.list": ({"domain": "web:db", "after": "a", "limit": 10},
                    {"secrets": [{"name": "login", "version": 1, "created": 1767225600}], "more": False}),
    "secret.delete": ({"secret": "web:db/login", "request_id": "5f1c9f"}, {}),
    "random": ({"bytes": 16}, {"random": bytes(range(16))}),
    "seal": ({"data": b"small", "context": b"boot"}, {"sealed": bytes(range(24))}),
    "unseal": ({"sealed": bytes(range(24)), "context": b"boot"}, {"data": b"small"}),
    "policy.explain": ({"method": "key.sign", "object": "web:tls", "selectors": ["uid=33", "unit=nginx.service"]},
                       {"allowed": True, "rule": "allow key.sign to web on web:*", "line": 9, "identities": ["web"]}),
    "policy.reload": ({}, {"identities": 3, "rules": 3}),
    "policy.check": ({"policy": "version: 2\n"},
                     {"valid": False, "line": 1, "column": 10, "message": "version must be 1", "warnings": []}),
    "store.accept": ({}, {}),
    "recovery.status": ({}, {"present": True, "set": "9f3a1c20", "shares": 5, "threshold": 3, "created": 1767225600,
                             "keys_lost": 0}),
    "recovery.create": ({"shares": 3, "threshold": 2},
                        {"set": "9f3a1c20", "threshold": 2, "shares": ["-".join(["0000"] * 22)] * 3}),
    "recovery.restore": ({"shares": ["-".join(["0000"] * 22)] * 2, "accept_counter": True},
                         {"new_tpm": True, "keys_lost": 1, "sealed": "none"}),
    "reseal": ({}, {"sealed": "sha256:0,2,7"}),
    "audit.head": ({}, {"folder": "/var/lib/csm/audit", "seq": 42, "hash": bytes(range(32)), "anchored": 41,
                        "key": bytes(range(32, 64)), "failing": False, "lost": 0, "broken": False}),
    "enrol.next": ({}, {"id": 12, "what": "enrol", "protocol": "cms", "url": "https://csm.example.org:8443",
                        "label": "default", "anchors": CHAIN, "token": b"csm-token", "csr": CHAIN,
                        "timeout_ms": 60000}),
    "enrol.sign": ({"job": 12, "scheme": "ecdsa-sha256", "digest": DIGEST},
                   {"scheme": "ecdsa-sha256", "signature": SIGNATURE}),
    "deliver.next": ({"targets": [{"name": "nginx", "key": "web:tls", "state": "delivered", "fingerprint": "ab" * 32,
                                   "delivered": 1767229201}], "wait_ms": 30000},
                     {"id": 3, "target": "nginx", "certificate": {**CERT, "chain": CHAIN}, "spki": SPKI}),
    "deliver.done": ({"job": 3, "error": "timeout", "why": "the hook took longer than 30 s"}, {}),
    "enrol.done": ({"job": 12, "error": "denied", "why": "the token is spent", "retry_after_s": 60}, {}),
    "attest.activate": ({"ak_name": b"\0\x0b" + DIGEST, "ek_name": b"\0\x0b" + DIGEST[::-1],
                         "credential": bytes(68), "secret": bytes(68)}, {"proof": DIGEST}),
}


def pack(value):
    return msgpack.packb(value, use_bin_type=True)


def ordered(message, value):
    """The same map with its keys in the table's order, nested ones too."""
    out = {}
    for f in MESSAGES[message]:
        if f.name not in value:
            continue
        v = value[f.name]
        if f.kind == "MAP":
            v = ordered(f.each, v)
        elif f.kind == "MAPS":
            v = [ordered(f.each, e) for e in v]
        out[f.name] = v
    if len(out) != len(value):
        raise ValueError(f"{message}: unknown field in {sorted(value)}")
    return out


def least(message):
    """Required fields only, each as small as it can be."""
    zero = {"U64": 0, "BOOL": False, "STR": "", "BIN": b"", "STRS": [], "MAPS": []}
    return {f.name: least(f.each) if f.kind == "MAP" else zero[f.kind] for f in MESSAGES[message] if f.required}


def text(n):
    """n bytes of UTF-8, among them characters of two, three and four bytes."""
    s = "é€𝄞-csm" * (n // 13 + 1)
    b = s.encode()[:n]
    while True:
        try:
            return b.decode() + "x" * (n - len(b))
        except UnicodeDecodeError:
            b = b[:-1]


def full(message, small=False):
    """Every field: numbers at their limit, strings long enough to leave the shortest forms."""
    out = {}
    for f in MESSAGES[message]:
        if f.kind == "U64":
            out[f.name] = f.max
        elif f.kind == "BOOL":
            out[f.name] = True
        elif f.kind == "STR":
            out[f.name] = text(min(f.max, 8 if small else 33))
        elif f.kind == "BIN":
            out[f.name] = bytes(i & 255 for i in range(min(f.max, 4 if small else 260)))
        elif f.kind == "STRS":
            out[f.name] = [text(min(f.each, i)) for i in range(min(f.max, 17))]
        elif f.kind == "MAP":
            out[f.name] = full(f.each, True)
        else:
            out[f.name] = [full(f.each, True) for _ in range(min(f.max, 2))]
    return out


def reading(value):
    """JSON for people: bin is {"$bin": hex}."""
    if isinstance(value, bytes):
        return {"$bin": value.hex()}
    if isinstance(value, dict):
        return {k: reading(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [reading(v) for v in value]
    return value


class Out:
    def __init__(self, head):
        self.f = io.StringIO()
        for line in head.strip().splitlines():
            self.f.write(f"# {line}".rstrip() + "\n")

    def put(self, **lines):
        self.f.write("\n")
        for key, value in lines.items():
            self.f.write(f"{key}: {value}".rstrip() + "\n")

    def message(self, name, direction, method, value, expect="ok"):
        self.put(name=name, direction=direction, method=method, expect=expect, hex=pack(value).hex(),
                 json=json.dumps(reading(value), ensure_ascii=False))


def vectors_messages():
    o = Out("""Every method's request and answer. Made by scripts/gen-vectors.py; the format is in README.md.""")
    msgid = 0
    for m in METHODS:
        if m.where == "NONE":
            continue
        request, response = EXAMPLES[m.name]
        variants = [("example", ordered(m.request, request), ordered(m.response, response)),
                    ("least", least(m.request), least(m.response)),
                    ("full", full(m.request), full(m.response))]
        for kind, req, res in variants:
            msgid += 1
            o.message(f"{m.name}.request.{kind}", "client-to-server", m.name, [0, msgid, m.name, [req]])
            o.message(f"{m.name}.response.{kind}", "server-to-client", m.name, [1, msgid, None, res])
    o.message("notification", "client-to-server", "ping", [2, "ping", [{"data": b"\x00"}]])
    return o.f.getvalue()


def error_value(e, **more):
    return {"code": e.number, "name": e.name, "message": e.text, "retryable": e.retryable, **more}


def vectors_errors():
    o = Out("""Every error that crosses the wire. Made by scripts/gen-vectors.py; the format is in README.md.""")
    for i, e in enumerate(e for e in ERRORS.values() if e.number < 100):
        msgid = (i, 200, 40000, 4000000000)[i % 4]
        o.message(f"error.{e.name}", "server-to-client", "-", [1, msgid, error_value(e), None])
    o.message("error.busy.later", "server-to-client", "-",
              [1, 2**32 - 1, error_value(ERRORS["busy"], retry_after_ms=250), None])
    o.message("error.proof_required.nonce", "server-to-client", "-",
              [1, 8, error_value(ERRORS["proof_required"], nonce=bytes(range(16))), None])
    return o.f.getvalue()


def call(method, params, msgid=1):
    return [0, msgid, method, [params]]


def nested(depth):
    """`depth` arrays in each other."""
    value = []
    for _ in range(depth - 1):
        value = [value]
    return value


def map_of(*pairs):
    """A map with any keys in any number, as bytes."""
    return bytes([0x80 | len(pairs)]) + b"".join(k + v for k, v in pairs)


def envelope(method, params):
    return b"\x94\x00\x01" + pack(method) + b"\x91" + params


SIGN = {"key": "web:tls", "scheme": "ecdsa-sha256", "digest": DIGEST}
BAD_UTF8 = b"\xa2\xc3\x28"

# name, method, expectation, field, bytes
STRUCTURE = [
    ("empty", "-", "incomplete", "", b""),
    ("cut-off", "-", "incomplete", "", pack(call("key.sign", SIGN))[:-1]),
    ("cut-off-head", "-", "incomplete", "", b"\xdc\x00"),
    ("not-an-array", "-", "protocol", "", pack({"method": "ping"})),
    ("text-protocol", "-", "protocol", "", b"GET / HTTP/1.1\r\n\r\n"),
    ("array-of-two", "-", "protocol", "", pack([0, 1])),
    ("array-of-five", "-", "protocol", "", pack([0, 1, "ping", [], None])),
    ("array32-of-five", "-", "protocol", "", b"\xdd\x00\x00\x00\x05"),
    ("reserved-byte", "-", "protocol", "", envelope("ping", map_of((pack("data"), b"\xc1")))),
    ("float", "-", "protocol", "", pack(call("random", {"bytes": 1.5}))),
    ("float32", "-", "protocol", "", envelope("random", map_of((pack("bytes"), b"\xca\x3f\xc0\x00\x00")))),
    ("ext", "-", "protocol", "", envelope("ping", map_of((pack("data"), b"\xd4\x01\x00")))),
    ("timestamp", "-", "protocol", "", envelope("ping", map_of((pack("data"), b"\xd6\xff\x00\x00\x00\x00")))),
    ("type-3", "-", "protocol", "", pack([3, 1, "ping", []])),
    ("type-negative", "-", "protocol", "", pack([-1, 1, "ping", []])),
    ("type-is-text", "-", "protocol", "", pack(["0", 1, "ping", []])),
    ("request-of-three", "-", "protocol", "", pack([0, "ping", []])),
    ("notification-of-four", "-", "protocol", "", pack([2, 1, "ping", []])),
    ("msgid-of-33-bits", "-", "protocol", "", pack([0, 2**32, "ping", []])),
    ("msgid-negative", "-", "protocol", "", pack([0, -1, "ping", []])),
    ("msgid-is-text", "-", "protocol", "", pack([0, "1", "ping", []])),
    ("method-is-bin", "-", "protocol", "", pack([0, 1, b"ping", []])),
    ("method-is-number", "-", "protocol", "", pack([0, 1, 2, []])),
    ("method-of-65-bytes", "-", "protocol", "", pack([0, 1, "m" * 65, []])),
    ("method-not-utf8", "-", "protocol", "", b"\x94\x00\x01" + BAD_UTF8 + b"\x90"),
    ("params-is-a-map", "-", "protocol", "", pack([0, 1, "ping", {}])),
    ("params-is-nil", "-", "protocol", "", pack([0, 1, "ping", None])),
    ("params-of-two", "-", "protocol", "", pack([0, 1, "ping", [{}, {}]])),
    ("params-holds-no-map", "-", "protocol", "", pack([0, 1, "ping", ["data"]])),
    ("response-error-is-text", "-", "protocol", "", pack([1, 1, "failed", None])),
    ("response-error-is-false", "-", "protocol", "", pack([1, 1, False, None])),
    ("too-deep", "-", "too_large", "", envelope("ping", map_of((pack("data"), pack(nested(6)))))),
    ("count-beyond-message", "-", "too_large", "", envelope("ping", b"\xdf\xff\xff\xff\xff")),
    ("count-beyond-rest", "-", "too_large", "", envelope("stats", map_of((pack("x"), b"\xdd\x00\x0f\xff\xf7")))),
    ("str-beyond-message", "-", "too_large", "", envelope("ping", map_of((pack("data"), b"\xdb\x00\x10\x00\x00")))),
    ("bin-beyond-message", "-", "too_large", "", envelope("ping", map_of((pack("data"), b"\xc6\xff\xff\xff\xff")))),
    ("unknown-method", "-", "unknown_method", "", pack(call("key.steal", {}))),
    ("empty-method", "-", "unknown_method", "", pack(call("", {}))),
]
D = pack("data")
FIELDS = [
    ("duplicate-key", "ping", "protocol", "data", envelope("ping", map_of((D, b"\xc4\x00"), (D, b"\xc4\x00")))),
    ("duplicate-in-pair", "secret.set", "protocol", "name",
     envelope("secret.set", map_of((pack("secret"), pack("d/s")), (pack("pairs"), b"\x91" + map_of(
         (pack("name"), pack("a")), (pack("name"), pack("b")), (pack("value"), pack(b""))))))),
    ("key-is-number", "ping", "protocol", "", envelope("ping", map_of((b"\x01", b"\xc4\x00")))),
    ("key-is-bin", "ping", "protocol", "", envelope("ping", map_of((pack(b"data"), b"\xc4\x00")))),
    ("key-not-utf8", "ping", "protocol", "", envelope("ping", map_of((BAD_UTF8, b"\xc4\x00")))),
    ("unknown-field", "ping", "unsupported_field", "colour", pack(call("ping", {"colour": 1}))),
    ("unknown-field-in-pair", "secret.set", "unsupported_field", "colour",
     pack(call("secret.set", {"secret": "d/s", "pairs": [{"name": "a", "colour": 1, "value": b""}]}))),
    ("case-of-field", "ping", "unsupported_field", "Data", pack(call("ping", {"Data": b""}))),
    ("missing-field", "key.sign", "invalid", "key", pack(call("key.sign", {"digest": DIGEST}))),
    ("missing-in-pair", "secret.set", "invalid", "value",
     pack(call("secret.set", {"secret": "d/s", "pairs": [{"name": "a"}]}))),
    ("text-for-bin", "key.sign", "invalid", "digest", pack(call("key.sign", {"key": "k", "digest": "text"}))),
    ("bin-for-text", "key.sign", "invalid", "key", pack(call("key.sign", {"key": b"k"}))),
    ("number-for-text", "key.sign", "invalid", "key", pack(call("key.sign", {"key": 7}))),
    ("nil-for-optional", "key.sign", "invalid", "scheme", pack(call("key.sign", {"key": "k", "scheme": None}))),
    ("negative-number", "random", "invalid", "bytes", pack(call("random", {"bytes": -1}))),
    ("text-for-number", "random", "invalid", "bytes", pack(call("random", {"bytes": "16"}))),
    ("number-for-bool", "key.create", "invalid", "exportable", pack(call("key.create", {"key": "k", "exportable": 1}))),
    ("text-for-array", "key.create", "invalid", "use", pack(call("key.create", {"key": "k", "use": "sign"}))),
    ("number-in-array", "key.create", "invalid", "use", pack(call("key.create", {"key": "k", "use": [1]}))),
    ("text-for-map", "secret.set", "invalid", "pairs", pack(call("secret.set", {"secret": "d/s", "pairs": ["a"]}))),
    ("text-not-utf8", "key.sign", "invalid", "key", envelope("key.sign", map_of((pack("key"), BAD_UTF8)))),
    ("digest-of-65-bytes", "key.sign", "too_large", "digest", pack(call("key.sign", {"key": "k", "digest": bytes(65)}))),
    ("key-of-193-bytes", "key.sign", "too_large", "key", pack(call("key.sign", {"key": "k" * 193}))),
    ("limit-of-1001", "key.list", "too_large", "limit", pack(call("key.list", {"limit": 1001}))),
    ("five-uses", "key.create", "too_large", "use", pack(call("key.create", {"key": "k", "use": ["sign"] * 5}))),
    ("use-of-65-bytes", "key.create", "too_large", "use", pack(call("key.create", {"key": "k", "use": ["s" * 65]}))),
]
# Good, though csm itself would write them otherwise: `reads-as` is what it would write.
LOOSE = [
    ("no-params", "ping", [0, 1, "ping", []], [0, 1, "ping", [{}]]),
    ("other-order", "key.sign", call("key.sign", {"digest": DIGEST, "key": "k"}),
     call("key.sign", {"key": "k", "digest": DIGEST})),
    ("array16", "ping", b"\xdc\x00\x04\x00\x01\xa4ping\xdc\x00\x01\x80", call("ping", {})),
    ("array32", "ping", b"\xdd\x00\x00\x00\x04\x00\x01\xa4ping\xdd\x00\x00\x00\x01\x80", call("ping", {})),
    ("map32", "ping", b"\x94\x00\x01\xa4ping\x91\xdf\x00\x00\x00\x00", call("ping", {})),
    ("wide-msgid", "ping", b"\x94\x00\xcf\x00\x00\x00\x00\x00\x00\x00\x01\xa4ping\x90", call("ping", {})),
    ("signed-positive", "random", envelope("random", map_of((pack("bytes"), b"\xd1\x00\x10"))),
     call("random", {"bytes": 16})),
    ("wide-text", "key.show", envelope("key.show", map_of((b"\xdb\x00\x00\x00\x03key", b"\xda\x00\x01k"))),
     call("key.show", {"key": "k"})),
    ("unknown-field-of-response", "ping", [1, 1, None, {"colour": [1, {"a": None}], "data": b""}],
     [1, 1, None, {"data": b""}]),
]


def vectors_malformed():
    o = Out("""What must be refused, and what must not. Made by scripts/gen-vectors.py; the format is in README.md.""")
    for name, method, expect, field, raw in STRUCTURE + FIELDS:
        o.put(name=name, direction="client-to-server", method=method, expect=f"{expect} {field}".rstrip(), hex=raw.hex())
    for name, method, value, canonical in LOOSE:
        raw = value if isinstance(value, bytes) else pack(value)
        direction = "server-to-client" if canonical[0] == 1 else "client-to-server"
        o.put(**{"name": name, "direction": direction, "method": method, "expect": "ok", "hex": raw.hex(),
                 "reads-as": pack(canonical).hex(), "json": json.dumps(reading(canonical))})
    return o.f.getvalue()


def main():
    files = {"messages.txt": vectors_messages(), "errors.txt": vectors_errors(), "malformed.txt": vectors_malformed()}
    stale = 0
    for name, content in files.items():
        path = os.path.join(HERE, name)
        if "--check" not in sys.argv[1:]:
            with open(path, "w", encoding="utf-8") as f:
                f.write(content)
            continue
        with open(path, encoding="utf-8") as f:
            if f.read() != content:
                print(f"gen-vectors.py: {path} is not what the tables give; run scripts/gen-vectors.py", file=sys.stderr)
                stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
