#!/bin/bash
# Another uid can neither install, read, list nor delete a certificate of somebody's key; with a rule it has just what the
# rule grants, and learns of nothing else.
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/certs.sh"
in_node --backend soft

make_ca root
as_uid $uid_a csm key create tls >/dev/null
as_uid $uid_a csm key create bare >/dev/null
as_uid $uid_a csm csr tls --subject /CN=tls >tls.csr
issue tls.csr root tls.pem
issue tls.csr root second.pem
chmod 644 ./*.pem
ok as_uid $uid_a csm cert install tls tls.pem
as_uid $uid_a csm cert show tls --json >before

step "refused by default, root of the public socket too"
other() { denied as_uid $uid_b csm "$@"; }
for key in tls bare none; do
    other cert show uid-$uid_a:$key
    other cert install uid-$uid_a:$key second.pem
    other cert delete uid-$uid_a:$key
    other cert export uid-$uid_a:$key "$work/out.d"
done
other cert list --namespace uid-$uid_a
[ ! -e out.d ] || fail "a folder was made"
ok as_uid $uid_b csm cert list --json
expect_equal "the other's certificates" "$(tr -d ' \n' <"$work/out")" '[]'
denied csm cert show uid-$uid_a:tls
denied csm cert install uid-$uid_a:tls second.pem

step "a rule grants what it says: to read, not to change; a key that it cannot see is like none"
policy <<YAML
version: 1
default: uid-namespaces
identities:
  reader: {uid: $uid_b}
rules:
  - {allow: [cert.get], to: [reader], on: ["uid-$uid_a:*"]}
YAML
ok as_uid $uid_b csm cert show uid-$uid_a:tls
other cert show uid-$uid_a:bare
sed 's/:bare/:NAME/' "$work/err" >err.bare
other cert show uid-$uid_a:none
sed 's/:none/:NAME/' "$work/err" >err.none
expect_same "the words for a key without a certificate and for no key" err.bare err.none
other cert install uid-$uid_a:tls second.pem
other cert delete uid-$uid_a:tls
other cert list --namespace uid-$uid_a
other key public uid-$uid_a:tls

step "all is as it was for its owner"
as_uid $uid_a csm cert show tls --json >after
expect_same "the certificate" before after
ok as_uid $uid_a csm cert delete tls
