#!/bin/bash
# A program that policy lets sign signs through the PKCS#11 module, and can neither create nor delete nor list; another
# user has no token, and nobody a token of a namespace that he may not use.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

cp "$node_build/lib/pkcs11/csm-pkcs11.so" "$node_build/tests/system/p11_probe" "$node/bin/"
probe() { "$node/bin/p11_probe" "$node/bin/csm-pkcs11.so" "$@"; }
expect_lines() { # WHAT WANTED GOT
    expect_equal "$1" "$(tr '\n' ' ' <<<"$3" | sed 's/  */ /g; s/^ //; s/ $//')" "$2"
}

step "a rule for one worker"
policy <<YAML
version: 1
identities:
  admin:  {uid: 0}
  worker: {uid: $uid_a}
rules:
  - {allow: [key.create, key.delete, key.list, key.show, key.public, key.sign], to: [admin], on: ["web:*", "other:*"]}
  - {allow: [key.sign, key.public, cert.get], to: [worker], on: ["web:*"]}
YAML
ok csm key create web:tls
ok csm key create other:key

step "the administrator makes, lists, signs and deletes"
expect_lines administrator "create: 0x0 new tls list: 0x0 sign: 0x0 delete: 0x0" "$(probe web create new list sign new delete new)"

step "the worker signs, and no more"
out=$(as_uid $uid_a "$node/bin/p11_probe" "$node/bin/csm-pkcs11.so" web tokens sign tls create mine delete tls list sign tls)
# of a listing he has what he asked for by name
expect_lines worker "web tokens: 0x0 sign: 0x0 create: 0xe2 delete: 0x1b tls list: 0x0 sign: 0x0" "$out"
ok csm key show web:tls

step "a listing that policy denies is not asked for, until policy allows it"
expect_equal "denied listings" "$(grep -c 'method=\(key\|cert\).list.*error=denied' "$node/csmd.log")" 0
expect_equal "not his" "$(as_uid $uid_a csm whoami --json | json no_key_list)" '["web"]'
expect_equal "the administrator's" "$(csm whoami --json | json no_key_list)" '[]'

step "what is not his is not there"
out=$(as_uid $uid_a "$node/bin/p11_probe" "$node/bin/csm-pkcs11.so" other sign key)
expect_lines "another namespace" "sign: 0xe0" "$out"
out=$(as_uid $uid_a "$node/bin/p11_probe" "$node/bin/csm-pkcs11.so" web sign absent)
expect_lines "a key that is not there" "sign: 0x82" "$out"
out=$(as_uid $uid_b "$node/bin/p11_probe" "$node/bin/csm-pkcs11.so" web tokens sign tls)
expect_lines "another user" "tokens: 0x0 sign: 0xe0" "$out"

step "the one refusal that goes with each look at a key is not repeated"
refused=$(grep -c 'method=key.show.*error=denied' "$node/csmd.log") || true
as_uid $uid_a "$node/bin/p11_probe" "$node/bin/csm-pkcs11.so" web sign tls sign tls sign tls >/dev/null
expect_equal "refusals" "$(grep -c 'method=key.show.*error=denied' "$node/csmd.log")" $((refused + 1))

step "a rule that goes is gone for the next signature of a session that is open"
(as_uid $uid_a "$node/bin/p11_probe" "$node/bin/csm-pkcs11.so" web sign tls pause "$work/gone" sign-again sign tls >"$work/out.probe") &
pid=$!
node_await 20 grep -q 'sign: 0x0' "$work/out.probe" || fail "no signature"
policy <<YAML
version: 1
identities:
  admin:  {uid: 0}
  worker: {uid: $uid_a}
rules:
  - {allow: [key.public], to: [worker], on: ["web:*"]}
YAML
touch "$work/gone"
wait "$pid" || fail "the probe failed"
expect_lines "after the rule" "sign: 0x0 pause: 0x0 sign-again: 0x68 sign: 0x68" "$(cat "$work/out.probe")"

step "a right to list that comes is there for the next listing of a session that is open"
(as_uid $uid_a "$node/bin/p11_probe" "$node/bin/csm-pkcs11.so" web list pause "$work/given" list >"$work/out.probe") &
pid=$!
node_await 20 grep -q 'list: 0x0' "$work/out.probe" || fail "no listing"
expect_lines "before" "list: 0x0" "$(cat "$work/out.probe")"
policy <<YAML
version: 1
identities:
  admin:  {uid: 0}
  worker: {uid: $uid_a}
rules:
  - {allow: [key.list, key.public], to: [worker], on: ["web:*"]}
YAML
touch "$work/given"
wait $pid || fail "the program: $(cat "$work/out.probe")"
expect_lines "then" "list: 0x0 pause: 0x0 tls list: 0x0" "$(cat "$work/out.probe")"
