#!/bin/bash
# With many certificates stored, a tenth of them revoked, and while clients issue: each filter of the inventory tells just what it
# should; a revocation shows in OCSP and in the list; a list is whole; csm-server stays small, with slow readers too. 2,000
# certificates, 1,000,000 at full counts.
# bound: 60
# bound-long: 2400
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
# shellcheck source=tests/lib/ca.sh
. "$top/tests/lib/ca.sh"
many=$(count 2000 1000000)
public=$(ca_port)
began=$(date +%s)

step "$many certificates"
mkdir -p "$ca"
(umask 077 && mkdir "$ca/state")
chown "$ca_uid:$ca_uid" "$ca/state"
cp "$node_build/tests/bench/inventory" inventory # where that user can reach it
as_uid $ca_uid ./inventory fill "$ca/state" 0 "$many" "$began"
ca_start "public_listen: \"127.0.0.1:$public\"
public_url: http://127.0.0.1:$public
limits: {requests_per_caller: 1000000}
profiles: {default: {subject: {CN: \"*\"}, san: [\"dns:**\"]}}"
# shellcheck disable=SC2119 # options of its own: none
ca_init
cat "$ca/admin.pem" "$ca/admin.key" >"$ca/both.pem"
read -r pid <"$ca/pid"

py "$top/tests/system/many_certificates.py" "$port" "$public" "$ca" "$many" "$began" "$pid" "$node_build/tests/bench/load" \
    "$(count 3 100)" list.der

step "the list by openssl: signed, and whole"
openssl crl -inform DER -in list.der -CAfile "$ca/root.pem" -noout 2>verified || fail "$(cat verified)"
expect_equal "entries" "$(openssl crl -inform DER -in list.der -noout -text | grep -c 'Serial Number:')" "$((many / 10 + 8))"
