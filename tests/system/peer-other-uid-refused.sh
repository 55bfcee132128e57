#!/bin/bash
# Another uid can neither use, list, replace nor delete a key or a secret: by no verb, under no spelling of its name.
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

step "the owner makes a key for every use, a domain and a secret"
as_uid $uid_a csm key create ec --alg p256 --use sign,derive >/dev/null
as_uid $uid_a csm key create rsa --alg rsa2048 >/dev/null
as_uid $uid_a csm domain create d >/dev/null
as_uid $uid_a csm secret set d/s k=the-value >/dev/null
echo data >msg
chmod 644 msg
as_uid $uid_a csm key public ec >pub.pem
chmod 644 pub.pem
head -c 256 /dev/urandom >cipher
as_uid $uid_a csm sign ec msg >sig1

step "the other is refused all of it"
other() { denied as_uid $uid_b csm "$@"; }
for key in uid-$uid_a:ec uid-$uid_a:rsa; do
    other key show "$key"
    other key public "$key"
    other sign "$key" msg
    other csr "$key" --subject /CN=x
    other key delete "$key"
    other key create "$key"
done
other decrypt uid-$uid_a:rsa cipher
other derive uid-$uid_a:ec pub.pem
other secret get uid-$uid_a:d/s
other secret get uid-$uid_a:d/s k
other secret set uid-$uid_a:d/s k=mine
other secret set uid-$uid_a:d/new k=mine
other secret list uid-$uid_a:d
other secret delete uid-$uid_a:d/s
other domain show uid-$uid_a:d
other domain create uid-$uid_a:e
other domain delete uid-$uid_a:d

step "its lists are empty, and the owner's namespace has none for it"
ok as_uid $uid_b csm key list --json
expect_equal "the other's keys" "$(tr -d ' \n' <"$work/out")" "[]"
ok as_uid $uid_b csm domain list --json
expect_equal "the other's domains" "$(tr -d ' \n' <"$work/out")" "[]"

step "root on the public socket is an identity like any other"
py - <<'PY'
from csmwire import Conn, refused
c = Conn()
for method, params in (("key.show", {"key": "uid-59101:ec"}), ("key.sign", {"key": "uid-59101:ec", "message": b"x"}),
                       ("key.list", {"namespace": "uid-59101"}), ("domain.list", {"namespace": "uid-59101"}),
                       ("secret.list", {"domain": "uid-59101:d"}), ("secret.get", {"secret": "uid-59101:d/s"})):
    refused("denied", c.call, method, params)
PY

step "and all is there and unchanged for its owner"
expect_equal "the secret" "$(as_uid $uid_a csm secret get d/s k)" the-value
as_uid $uid_a csm key public ec >pub2.pem
expect_same "the public key" pub.pem pub2.pem
as_uid $uid_a csm sign ec msg >sig2
for sig in sig1 sig2; do
    openssl dgst -sha256 -verify pub.pem -signature $sig msg >/dev/null || fail "the owner's signature"
done
expect_equal "number of keys" "$(as_uid $uid_a csm key list --json | json 1.name)" rsa
