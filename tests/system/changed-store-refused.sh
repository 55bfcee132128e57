#!/bin/bash
# A record of the stopped store that was replaced by an older one or another, changed, or removed: found at the start, its
# domain named, nothing served until `csm store accept`; then the rest is served.
# bound: 180
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
edit=$top/build/tests/system/lmdbedit
store=$node/state/store

ok csm key create k1
ok csm key create k2
self_signed() { # NAME SERIAL: a certificate for the key, of a CA made here
    [ -e ca.pem ] || ok openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 2
    csm csr "$1" --subject "/CN=$1" | openssl x509 -req -CA ca.pem -CAkey ca.key -set_serial "$2" -days 1 2>/dev/null >"$1.pem"
    ok csm cert install "$1" "$1.pem"
}
self_signed k1 1
for domain in good hit; do
    ok csm domain create $domain
    ok csm secret set $domain/a v=one
    ok csm secret set $domain/b v=two
done
node_csmd_stop "$node"
"$edit" "$store" list >before
cp -a "$node/state" "$node/old"
node_csmd_start "$node" || fail "start"
ok csm secret set hit/a v=newer
ok csm key create k3
self_signed k1 2
self_signed k3 3
node_csmd_stop "$node"
"$edit" "$store" list >after
cp -a "$node/state" "$node/kept"
owner=$(stat -c %u:%g "$node/state")

# Records of a database that are only in the newer store, and those that are in both with another value.
new() { join -j 1 -v 2 <(awk -v d="$1" '$1 == d { print $2 }' before | sort) <(awk -v d="$1" '$1 == d { print $2 }' after | sort); }
changed() {
    join -j 1 <(awk -v d="$1" '$1 == d { print $2, $3 }' before | sort) <(awk -v d="$1" '$1 == d { print $2, $3 }' after | sort) |
        awk '$2 != $3 { print $1 }'
}
all() { awk -v d="$1" '$1 == d { print $2 }' after; }

restore() {
    node_csmd_stop "$node"
    rm -rf "$node/state"
    cp -a "$node/kept" "$node/state"
}
# The store as it is now must be refused; NAME must be among what status names as damaged.
found() { # WHAT NAME
    chown -R "$owner" "$node/state"
    node_csmd_start "$node" || fail "$1: csmd does not start for the administrator"
    py - "$2" <<'PY' || fail "$1"
import sys
from csmwire import ADMIN, Conn, refused
conn = Conn()
for method, params in (("key.sign", {"key": "k1", "message": b"x"}), ("secret.get", {"secret": "good/a"}),
                       ("key.list", {}), ("domain.create", {"domain": "x"})):
    refused("tampered", conn.call, method, params)
store = Conn(ADMIN).call("status")["store"]
assert store["state"] != "ready" and any(sys.argv[1] in d for d in store.get("damaged", [])), store
PY
    expect_exit 1 csm secret get good/a v
}

step "nothing changed: nothing found (the test's own positive)"
restore
node_csmd_start "$node" || fail "start"
expect_equal "the secret" "$(csm secret get hit/a v)" newer
[ -n "$(new secrets)" ] || fail "no new secret to work on"
[ -n "$(new keys)" ] || fail "no new key to work on"
[ -n "$(new certs)" ] || fail "no new certificate to work on"
[ -n "$(changed certs)" ] || fail "no changed certificate to work on"
expect_equal "the certificate" "$(csm cert show k1 --json | json serial)" 02

step "a secret's newest version removed"
restore
for key in $(new secrets); do "$edit" "$store" delete secrets "$key"; done
found "a removed secret" hit

step "stays refused over a restart; accepted, the rest is served"
node_csmd_stop "$node"
found "a removed secret, again" hit
ok csm store accept
expect_equal "another domain" "$(csm secret get good/a v)" one
expect_equal "another secret" "$(csm secret get hit/b v)" two
ok csm sign k1 /dev/null

step "a key removed"
restore
for key in $(new keys); do "$edit" "$store" delete keys "$key"; done
found "a removed key" uid-0

step "a key's record changed by one bit, at its start, middle and end"
for offset in 0 40 -1; do
    restore
    "$edit" "$store" flip keys "$(all keys | sed -n 1p)" $offset
    found "a changed key, byte $offset" uid-0
done

step "a certificate removed, changed by one bit, put beside another key"
restore
for key in $(new certs); do "$edit" "$store" delete certs "$key"; done
found "a removed certificate" uid-0
for offset in 0 70 -1; do
    restore
    "$edit" "$store" flip certs "$(new certs | sed -n 1p)" $offset
    found "a changed certificate, byte $offset" uid-0
done
restore
"$edit" "$store" move certs "$(new certs | sed -n 1p)" "$(changed certs | sed -n 1p)"
found "a moved certificate" uid-0

step "a secret's record changed by one bit"
for offset in 0 40 -1; do
    restore
    "$edit" "$store" flip secrets "$(new secrets | sed -n 1p)" $offset
    found "a changed secret, byte $offset" hit
done

step "one record put in another's place"
restore
mapfile -t keys < <(all keys)
"$edit" "$store" move keys "${keys[0]}" "${keys[1]}"
found "a swapped key" uid-0

step "records replaced by older ones"
for db in secrets keys certs scopes counts meta; do
    for key in $(changed $db); do
        restore
        "$edit" "$store" copy "$node/old/store" $db "$key"
        chown -R "$owner" "$node/state"
        node_csmd_start "$node" || continue # not even opened: refused too
        if node_status "$node" | contains '"state": *"ready"' && csm secret get hit/a v 2>/dev/null | contains -x newer &&
            csm sign k3 /dev/null >/dev/null 2>&1; then
            # Signature counts and requests done are not under the seal of the set.
            [ "$db" = counts ] || fail "an older record of $db was not noticed: $key"
        fi
    done
done
restore
