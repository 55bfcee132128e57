#!/bin/bash
# Who has nothing of csm gets certificates of csm-server by curl and openssl: by token, by certificate, renewed, revoked, from an
# authority signed by itself, by somebody else, or brought along; openssl believes them.
# bound: 90
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
# shellcheck source=tests/lib/ca.sh
. "$top/tests/lib/ca.sh"

# shellcheck disable=SC2034 # of ca.sh: all that is asked and answered here is as openapi.yaml says
check_openapi=1

ca_start 'issuers:
  default: {key: ca}
  web: {key: web-ca, scheme: ecdsa-sha384}
  old: {key: old-ca}
profiles:
  default: {subject: {CN: "*"}, san: ["dns:**", "ip:127.0.0.0/8"]}
  web: {issuer: web, subject: {CN: "*"}, san: ["dns:**"], ekus: [serverAuth]}
  old: {issuer: old, subject: {CN: "*"}, san: ["dns:**"]}'
ca_init path_len :0

step 'the authority, and the server by it'
openssl verify -x509_strict -CAfile "$ca/root.pem" -purpose sslclient "$ca/admin.pem" >/dev/null || fail "the administrator's"
openssl s_client -connect "127.0.0.1:$port" -CAfile "$ca/root.pem" -verify_return_error -verify_hostname localhost \
    </dev/null >"$ca/s_client" 2>&1 || fail "TLS: $(tail -3 "$ca/s_client")"
as_nobody
ask GET '/v1/cms/ca?format=der' && got 200
digest=$(openssl x509 -inform DER -in "$ca/answer" -noout -fingerprint -sha256 | sed 's/.*=//' | tr -d : | tr A-F a-f)
ask GET /v1/cms/ca && got 200
expect_equal "the root's digest" "$(field root_sha256)" "$digest"

step 'a certificate by a token'
csr web web.example DNS:web.example,IP:127.0.0.1
t=$(token names ':["web.example", "ip:127.0.0.1"]' uses :2)
as_token "$t"
issue web
openssl verify -x509_strict -CAfile "$ca/root.pem" -purpose sslserver -verify_hostname web.example "$ca/web.pem" >/dev/null ||
    fail "the certificate"
expect_equal 'its serial number' "$(openssl x509 -in "$ca/web.pem" -noout -serial | tr A-F a-f)" "serial=$(cat "$ca/web.serial")"
expect_equal 'bits of the serial number, in hex digits' "$(wc -c <"$ca/web.serial")" 33
openssl x509 -in "$ca/web.pem" -noout -text >"$ca/text"
grep -q 'CA:FALSE' "$ca/text" || fail "a CA"

step 'the same request again is the same certificate'
csr two web.example DNS:web.example
json_of csr "@$ca/two.csr" >"$ca/body"
for _ in 1 2; do
    as_token "$t"
    ask POST /v1/cms/certificates -H 'Content-Type: application/json' -H 'Idempotency-Key: abc' --data-binary @"$ca/body" && got 201
    field serial >>"$ca/serials"
done
expect_equal 'serial numbers of one request' "$(sort -u "$ca/serials" | wc -l)" 1
json_of csr "@$ca/web.csr" >"$ca/body"
ask POST /v1/cms/certificates -H 'Content-Type: application/json' -H 'Idempotency-Key: abc' --data-binary @"$ca/body" && got 409

as_admin
ask GET '/v1/cms/tokens?limit=1' && got 200
id=$(field tokens.0.id)
ask DELETE "/v1/cms/tokens/$id" && got 204
ask DELETE "/v1/cms/tokens/$id" && got 404

step 'renewed with a new key, and revoked'
mv "$ca/web.key" "$ca/web.key.old" && mv "$ca/web.pem" "$ca/web.pem.old"
csr web web.example DNS:web.example,IP:127.0.0.1
as_nobody && who+=(--cert "$ca/web.pem.old" --key "$ca/web.key.old")
send POST /v1/cms/renew csr "@$ca/web.csr" && got 201
field certificate >"$ca/web.pem"
openssl verify -CAfile "$ca/root.pem" "$ca/web.pem" >/dev/null || fail "the new certificate"
as_cert web
send POST "/v1/cms/certificates/$(cat "$ca/web.serial")/revoke" reason superseded && got 200
as_admin
send POST "/v1/cms/certificates/$(cat "$ca/web.serial")/revoke" && got 409

step 'under a root of somebody else'
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$ca/outside.key" -out "$ca/outside.pem" -subj /CN=Outside -days 30 \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
send POST /v1/cms/ca issuer web subject "/O=Example/CN=Web CA" self_signed :false alg p384 && got 200
field csr >"$ca/webca.csr"
openssl req -in "$ca/webca.csr" -noout -verify -text 2>&1 | contains CA:TRUE || fail "the request of the authority"
openssl x509 -req -in "$ca/webca.csr" -CA "$ca/outside.pem" -CAkey "$ca/outside.key" -days 20 -copy_extensions copyall \
    -out "$ca/webca.pem" 2>/dev/null
cat "$ca/webca.pem" "$ca/outside.pem" >"$ca/webca.chain"
send PUT /v1/cms/ca issuer web chain "@$ca/webca.chain" && got 200
csr shop shop.example DNS:shop.example
issue shop web
openssl verify -x509_strict -CAfile "$ca/outside.pem" -untrusted "$ca/webca.pem" -purpose sslserver "$ca/shop.pem" >/dev/null ||
    fail "a certificate below the outside root"
openssl x509 -in "$ca/shop.pem" -noout -text | contains ecdsa-with-SHA384 || fail "not the scheme of server.yaml"
