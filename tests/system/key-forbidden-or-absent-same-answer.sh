#!/bin/bash
# Nothing tells a forbidden name from one that does not exist: not the exit status, not the error, not a byte of the
# text, without any right and with a right but no `list`.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

as_uid $uid_a csm key create there >/dev/null
as_uid $uid_a csm domain create there >/dev/null
as_uid $uid_a csm secret set there/there k=v >/dev/null

step "by every method of the tables that names an object"
cat >probe.py <<'PY'
import sys
from csmwire import Conn, become, Refused
become(int(sys.argv[1]))
allowed = set(sys.argv[2].split(","))
spki = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0"
                     "f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")
def requests(name):
    key, domain, secret = "uid-59101:" + name, "uid-59101:" + name, "uid-59101:there/" + name
    yield "key.show", {"key": key}
    yield "key.public", {"key": key}
    yield "key.sign", {"key": key, "message": b"x"}
    yield "key.sign", {"key": key, "digest": b"x" * 32, "scheme": "ecdsa-sha256"}
    yield "key.sign_init", {"key": key}
    yield "key.decrypt", {"key": key, "ciphertext": b"x" * 256}
    yield "key.derive", {"key": key, "peer": spki}
    yield "key.csr", {"key": key, "subject": "/CN=x"}
    yield "key.delete", {"key": key}
    yield "domain.show", {"domain": domain}
    yield "domain.delete", {"domain": domain}
    yield "secret.list", {"domain": domain}
    yield "secret.get", {"secret": secret}
    yield "secret.get", {"secret": secret, "key": "k"}
    yield "secret.get", {"secret": secret, "version": 7}
    yield "secret.delete", {"secret": secret}
    yield "secret.set", {"secret": "uid-59101:%s/x" % name, "pairs": [{"name": "k", "value": b"v"}]}
conn = Conn()
for (method, there), (_, absent) in zip(requests("there"), requests("other")):
    answers = []
    for params in (there, absent):
        if method in allowed and params is there:
            continue
        try:
            conn.call(method, params)
            answers.append("answered")
        except Refused as refusal:
            answers.append(refusal.error)
    for answer in answers:
        assert answer != "answered", (method, answer)
        assert answer == answers[0], (method, answers)
        assert answer["name"] == "denied", (method, answer)
        assert not any(word in answer["message"] for word in ("there", "other", "59101", "59102")), answer
PY
py probe.py $uid_b none

step "the commands say the same, byte for byte"
for verb in "key show" "key public" "key delete" "sign" "csr --subject /CN=x"; do
    read -ra words <<<"$verb"
    denied as_uid $uid_b csm "${words[@]}" uid-$uid_a:there </dev/null
    cp err err.there
    cp out out.there
    denied as_uid $uid_b csm "${words[@]}" uid-$uid_a:other </dev/null
    sed -i 's/there/NAME/' err.there
    sed 's/other/NAME/' err >err.other
    expect_same "csm $verb" err.there err.other
    expect_same "csm $verb, stdout" out.there out
done

step "with rights but no list, an absent name is denied, not missing"
policy <<YAML
version: 1
default: uid-namespaces
identities:
  b: {uid: $uid_b}
rules:
  - {allow: [key.show, key.public, key.sign, key.delete, secret.get, secret.delete, domain.show], to: [b], on: ["uid-$uid_a:*"]}
YAML
ok as_uid $uid_b csm key show uid-$uid_a:there
denied as_uid $uid_b csm key show uid-$uid_a:other
denied as_uid $uid_b csm key delete uid-$uid_a:other
denied as_uid $uid_b csm secret get uid-$uid_a:there/other
cp err err.absent
denied as_uid $uid_b csm secret get uid-$uid_a:other/other
sed -i 's|there/other|NAME|' err.absent
sed 's|other/other|NAME|' err >err.nowhere
expect_same "absent secret, absent domain" err.absent err.nowhere

step "by every method of the tables, each with the right to it and nothing else"
cat >rights.py <<'PY'
import os
from csmwire import Conn, become, refused, reload
def grant(right):
    with open(os.environ["CSM_NODE_DIR"] + "/policy.yaml", "w") as f:
        f.write("version: 1\ndefault: uid-namespaces\nidentities: {b: {uid: 59102}}\n"
                "rules: [{allow: [%s], to: [b], on: ['uid-59101:*']}]\n" % right)
    reload()
def ask(method, params):
    if os.fork() == 0:
        status = 1
        try:
            become(59102)
            refused("denied", Conn().call, method, params)
            status = 0
        finally:
            os._exit(status)
    assert os.wait()[1] == 0, (method, params)
key, domain, secret = {"key": "uid-59101:other"}, {"domain": "uid-59101:other"}, {"secret": "uid-59101:there/other"}
pairs = {"pairs": [{"name": "k", "value": b"v"}]}
for method, right, params in (
        ("key.show", "key.show", key), ("key.public", "key.public", key), ("key.delete", "key.delete", key),
        ("key.sign", "key.sign", {**key, "message": b"x"}), ("key.sign_init", "key.sign", key),
        ("key.decrypt", "key.decrypt", {**key, "ciphertext": b"x" * 256}),
        ("key.derive", "key.derive", {**key, "peer": b"x" * 91}), ("key.csr", "key.csr", {**key, "subject": "/CN=x"}),
        ("domain.show", "domain.show", domain), ("domain.delete", "domain.delete", domain),
        ("secret.get", "secret.get", secret), ("secret.delete", "secret.delete", secret),
        ("secret.set", "secret.set", {"secret": "uid-59101:other/x", **pairs})):
    grant(right)
    ask(method, params)
PY
py rights.py

step "with list too, it is missing"
policy <<YAML
version: 1
default: uid-namespaces
identities:
  b: {uid: $uid_b}
rules:
  - {allow: [key.show, key.list], to: [b], on: ["uid-$uid_a:*"]}
YAML
expect_exit 4 as_uid $uid_b csm key show uid-$uid_a:other
