#!/bin/bash
# A profile may say that a renewal is for another key. Key and certificate then change together: who asks meets a pair, and who has
# the certificate from before signs with its key until the overlap is over, and then no more. csmd that is killed while it
# renews has one pair or the other, and in the end no key that nobody can name. The old key is nobody's by another name.
# bound: 120
# coverage
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/programs.sh"
in_node --backend soft --server

restart() {
    node_csmd_stop "$node"
    node_csmd_start "$node" || fail "csmd does not start: $(tail -n 5 "$node/csmd.log")"
}
await_that() { node_await 30 "$@" || fail "in vain: $*"; }
spki() { csm key show "$1" --json | json spki_sha256; }
sign_as() { # KEY SPKI: with this key and no other
    py - "$1" "$2" <<'PY'
import sys
import csmwire
with csmwire.Conn() as c:
    try:
        c.call("key.sign", {"key": sys.argv[1], "digest": bytes(32), "spki_sha256": sys.argv[2]})
    except csmwire.Refused as e:
        print(e.name)
        sys.exit(1)
PY
}
sign_in_parts() { # KEY SPKI
    py - "$1" "$2" <<'PY'
import sys
import csmwire
with csmwire.Conn() as c:
    stream = c.call("key.sign_init", {"key": sys.argv[1], "spki_sha256": sys.argv[2]})["stream"]
    c.call("key.sign_update", {"stream": stream, "data": b"one"})
    assert c.call("key.sign_final", {"stream": stream})["signature"]
PY
}
keys_now() { CSM_SOCKET=$CSM_ADMIN_SOCKET csm status --json | json keys; }
keys_at_most() { [ "$(keys_now)" -le "$1" ]; }

step "without the option a renewal keeps the key"
ok csm key create web
ok csm cert enrol web --san dns:web.example.org
first=$(spki web)
ok csm cert renew web
expect_equal "the key" "$(spki web)" "$first"
# web, the profile's own, the authority's, and its responder's, which is made a moment later
all=4
responds() { [ "$(keys_now)" = "$all" ]; }
await_that responds

front_ends
loads_as() { # DIGEST FILE: a program that starts now takes the reference for this key
    OPENSSL_CONF=$openssl_cnf openssl pkey -in "$2" -pubout -outform DER -out public 2>refusal || return 1
    expect_equal "the key of $2" "$(sha256sum <public | cut -d' ' -f1)" "$1"
    OPENSSL_CONF=$openssl_cnf openssl dgst -sha256 -sign "$2" -out signature /dev/null
    openssl pkey -pubin -inform DER -in public -out public.pem
    ok openssl dgst -sha256 -verify public.pem -signature signature /dev/null
}
ok csm cert export web "$PWD/old"

step "with it the next one is another key, with a certificate of its own; the one before signs meanwhile"
printf '      renewal: {new_key: true, overlap: 3s}\n' >>"$node/csmd.yaml"
restart
ok csm cert renew web
second=$(spki web)
[ "$second" != "$first" ] || fail "the key is the same"
ok csm cert export web "$PWD/pair"
ok openssl verify -CAfile "$CSM_CACERT" pair/cert.pem
expect_equal "the certificate's key" "$(openssl x509 -in pair/cert.pem -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum | cut -d' ' -f1)" \
    "$second"
sign_as web "$second" || fail "the new key does not sign"
sign_as web "$first" || fail "the old key does not sign in the overlap"
sign_in_parts web "$first" || fail "the old key does not sign in parts in the overlap"
loads_as "$first" old/key.pem || fail "who starts with the old reference: $(cat refusal)"
loads_as "$second" pair/key.pem || fail "who starts with the new reference: $(cat refusal)"
csm cert show web >shown
contains '^old_key_until: *20..-' shown || fail "until when the old key is there is not told: $(cat shown)"
expect_equal "listed" "$(csm key list --json | json keys 2>/dev/null | grep -c before)" 0
hidden=.before-$(printf web | sha256sum | cut -c1-32)
py - "$hidden" <<'PY' || fail "what is beside a key can be named"
import sys
import csmwire
with csmwire.Conn() as c:
    for method in "key.show", "key.public", "key.sign", "key.delete", "cert.get":
        params = {"key": sys.argv[1]}
        if method == "key.sign":
            params["digest"] = bytes(32)
        csmwire.refused(("not_found", "invalid", "denied"), c.call, method, params)
PY
ok csm key create other
expect_equal "the old key by another name" "$(sign_as other "$first")" conflict
expect_equal "the old key, to be deleted by its digest" "$(py - "$first" <<'PY'
import sys
import csmwire
with csmwire.Conn() as c:
    print(csmwire.refused("conflict", c.call, "key.delete", {"key": "web", "spki_sha256": sys.argv[1]})["name"])
PY
)" conflict
as_uid $uid_a sh -c "! csm sign uid-0:web /dev/null 2>/dev/null" || fail "another user signs"

step "and no more when it is over"
gone() { ! sign_as web "$first" >refusal; }
await_that gone
expect_equal "why" "$(cat refusal)" conflict
! loads_as "$first" old/key.pem || fail "the old reference is taken after the overlap"
loads_as "$second" pair/key.pem || fail "the new reference: $(cat refusal)"
sign_as web "$second" || fail "the new key does not sign"
await_that keys_at_most "$((all + 1))"
ok csm key delete other

step "killed while it renews, again and again: who asks meets pairs alone, and whose key signs"
py - <<'PY' &
import hashlib
import os
import sys
import time
import csmwire
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

digest = bytes(range(32))
conn, seen, signed = None, set(), 0
while not os.path.exists("enough"):
    try:
        conn = conn or csmwire.Conn()
        chain = conn.call("cert.get", {"key": "web"})["chain"]
        leaf = x509.load_der_x509_certificate(chain[: 4 + int.from_bytes(chain[2:4], "big")]).public_key()
        spki = leaf.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        name = hashlib.sha256(spki).hexdigest()
        answer = conn.call("key.sign", {"key": "web", "digest": digest, "spki_sha256": name})
        leaf.verify(answer["signature"], digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        shown = conn.call("key.show", {"key": "web"})
        assert shown["certificate"]["fingerprint"], "a key without its certificate"
        seen.add(name)
        signed += 1
    except (csmwire.Closed, ConnectionError, FileNotFoundError):
        conn = None
        time.sleep(0.01)
    except csmwire.Refused as e:
        if e.name == "conflict":
            raise
        time.sleep(0.01)
assert signed > 20 and len(seen) > 1, (signed, len(seen))
PY
asking=$!
rounds=$(count 4 40)
for ((i = 0; i < rounds; i++)); do
    broker=$(CSM_SOCKET=$CSM_ADMIN_SOCKET csm status --json | json pid)
    csm cert renew web >/dev/null 2>&1 &
    renewing=$!
    sleep "0.0$((i * 7 % 10))$((i * 3 % 10))"
    kill -9 "$broker"
    wait $renewing || true
    serves() { csm key show web >/dev/null 2>&1; }
    await_that serves
    kill -0 $asking 2>/dev/null || fail "a pair did not match"
done
renewed() { csm cert renew web >/dev/null 2>&1; }
await_that renewed
touch enough
wait $asking || fail "a pair did not match, or hardly anything was asked"
await_that keys_at_most "$all"

step "the CA is away: the next key is kept for the next attempt; the option is gone: it is not kept"
kept=$(spki web)
node_server_stop "$node"
expect_exit 6 csm cert renew web
expect_equal "the key" "$(spki web)" "$kept"
expect_equal "keys" "$(keys_now)" "$((all + 1))"
expect_exit 6 csm cert renew web
expect_equal "keys" "$(keys_now)" "$((all + 1))"
ok csm key create late
csm cert enrol late --san dns:late.example.org --no-wait >/dev/null || fail "no enrolment begins"
expect_exit 4 csm cert export late "$PWD/late"
csm cert export late "$PWD/late" 2>refusal || true
contains "no certificate has come yet" refusal || fail "what is not there yet: $(cat refusal)"
[ ! -e late ] || fail "a folder is there"
ok csm key delete late
sed -i '/renewal: {new_key/d' "$node/csmd.yaml"
node_server_start "$node" || fail "csm-server does not start"
restart
await_that renewed
expect_equal "the key" "$(spki web)" "$kept"
await_that keys_at_most "$all"

step "without profiles nobody ends the overlap: then it is over"
printf '      renewal: {new_key: true, overlap: 1h}\n' >>"$node/csmd.yaml"
restart
ok csm cert renew web
sign_as web "$kept" || fail "the old key does not sign in the overlap"
cp "$node/csmd.yaml" with
sed -i '/^enrolment:/,$d' "$node/csmd.yaml"
restart
expect_equal "the old key" "$(sign_as web "$kept")" conflict
sign_as web "$(spki web)" || fail "the new key does not sign"
cp with "$node/csmd.yaml"
restart

step "the next renewal in the overlap deletes the key before it, and the audit log tells that"
ok csm cert renew web
expect_equal "keys" "$(keys_now)" "$((all + 1))"
csm audit tail -n 1000 --json >log
for what in '"key.create".*"key": *"next"' '"cert.renew".*"key": *"new"' '"cert.renew".*"deleted": *"before"' '"key.delete".*"key": *"before"' '"key.delete".*"key": *"next"'; do
    tr -d '\n' <log | sed 's/}/}\n/g' | contains "$what" || fail "the audit log does not tell $what"
done
ok "$node_build/bin/csm" audit verify
