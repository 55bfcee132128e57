#!/bin/bash
# csm-server issues, renews and revokes what profile, token and role allow; each refusal says why, and changes nothing.
# bound: 90
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
# shellcheck source=tests/lib/ca.sh
. "$top/tests/lib/ca.sh"

ca_start 'issuers: {default: {key: ca}, r1: {key: r1}, r2: {key: r2}, r3: {key: r3}, r4: {key: r4}, r5: {key: r5}}
profiles:
  default:
    max_life: 1d
    keys: [p256, rsa3072]
    subject: {CN: "*"}
    san: ["dns:.example", "uri:spiffe://td/**"]
  node: {role: node, subject: {CN: "*"}, san: ["dns:.nodes.example"]}'

step 'before there is an authority, nobody gets in by TLS'
as_nobody
! curl -sS -m 5 -k "$base/v1/cms/ca" -o /dev/null 2>/dev/null || fail "the door is open"
# shellcheck disable=SC2119 # nothing more is asked
ca_init

step 'what a request cannot have'
now_issued
csr web web.example DNS:web.example
csr sub sub.example DNS:sub.example -addext basicConstraints=critical,CA:TRUE
send POST /v1/cms/certificates csr "@$ca/sub.csr" && refused 403 'CA:TRUE'
csr out out.other DNS:out.other
send POST /v1/cms/certificates csr "@$ca/out.csr" && refused 403 'dns:out.other is outside of the profile'
csr short intranet URI:spiffe://td/x
send POST /v1/cms/certificates csr "@$ca/short.csr" && refused 403 'CN is the name of a host'
csr cn bank.test DNS:web.example
send POST /v1/cms/certificates csr "@$ca/cn.csr" && refused 403 'CN is the name of a host'
openssl genrsa -out "$ca/weak.key" 1024 2>/dev/null
csr weak web.example DNS:web.example
send POST /v1/cms/certificates csr "@$ca/weak.csr" && refused 400 'weak'
openssl genrsa -out "$ca/rsa2048.key" 2048 2>/dev/null
csr rsa2048 web.example DNS:web.example
send POST /v1/cms/certificates csr "@$ca/rsa2048.csr" && refused 403 'RSA of 2048 bits'
py - "$ca/web.csr" "$ca/bad.csr" <<'PY'
import base64, sys
lines = open(sys.argv[1]).read().split('\n')
der = bytearray(base64.b64decode(''.join(lines[1:-2])))
der[-1] ^= 1
text = base64.b64encode(der).decode()
open(sys.argv[2], 'w').write('-----BEGIN CERTIFICATE REQUEST-----\n' + '\n'.join(
    text[i:i + 64] for i in range(0, len(text), 64)) + '\n-----END CERTIFICATE REQUEST-----\n')
PY
send POST /v1/cms/certificates csr "@$ca/bad.csr" && refused 400 'signature'
send POST /v1/cms/certificates csr "@$ca/web.csr" ttl :86401 && refused 403 'a life of 86401 s'
send POST /v1/cms/certificates csr "@$ca/web.csr" profile nothing && refused 403 'no such profile'
send POST /v1/cms/certificates csr "@$ca/web.csr" colour red && refused 400 "unknown field 'colour'"
csr ext web.example DNS:web.example -addext 1.2.3.4=DER:0500
send POST /v1/cms/certificates csr "@$ca/ext.csr" && refused 403 'extension 1.2.3.4'

step 'tokens: spent, expired, for other names, another profile, none'
as_nobody
send POST /v1/cms/certificates csr "@$ca/web.csr" && refused 401 'is needed'
as_token AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
send POST /v1/cms/certificates csr "@$ca/web.csr" && refused 401 ''
t=$(token names ':["dns:web.example"]')
as_token "$t"
csr db db.example DNS:db.example
send POST /v1/cms/certificates csr "@$ca/db.csr" && refused 403 'for other names'
send POST /v1/cms/certificates csr "@$ca/web.csr" profile node && refused 403 'role node'
ask GET /v1/cms/tokens && refused 403 'operators'
issue web
now_issued
send POST /v1/cms/certificates csr "@$ca/web.csr" && refused 403 'spent'
short=$(token names ':["web.example"]' ttl :1)
sleep 2
as_token "$short"
send POST /v1/cms/certificates csr "@$ca/web.csr" && refused 401 ''
gone=$(token any_name :true)
id=$(field id)
as_admin
ask DELETE "/v1/cms/tokens/$id" && got 204
as_token "$gone"
send POST /v1/cms/certificates csr "@$ca/web.csr" && refused 401 ''
as_admin
ask GET /v1/cms/tokens && got 200
! grep -qF "$t" "$ca/answer" || fail "a token is told again"
! grep -qrF "$t" "$ca/state" "$ca/log" || fail "a token is on the disk"

step 'what others have'
for n in n1 n2; do
    csr $n $n.nodes.example DNS:$n.nodes.example
    t=$(token profile node)
    as_token "$t"
    issue $n node
done
csr thief n1.nodes.example DNS:n1.nodes.example
t=$(token profile node)
as_token "$t"
now_issued
send POST /v1/cms/certificates csr "@$ca/thief.csr" profile node && refused 403 "the node's name is taken"
as_cert n1
csr app app.example DNS:app.example
issue app
now_issued
as_cert n2
send POST "/v1/cms/certificates/$(cat "$ca/app.serial")/revoke" reason superseded && refused 403 "not the caller's"
send POST "/v1/cms/certificates/$(cat "$ca/n1.serial")/revoke" && refused 403 "not the caller's"
send POST /v1/cms/certificates/00112233445566778899aabbccddeeff/revoke && refused 403 "not the caller's"
send POST /v1/cms/renew csr "@$ca/app.csr" serial "$(cat "$ca/app.serial")" && refused 403 "not the caller's"
send POST /v1/cms/renew csr "@$ca/n1.csr" && refused 403 'other names'
send POST /v1/cms/certificates csr "@$ca/n1.csr" profile node && refused 403 'not for a node'
send POST /v1/cms/tokens any_name :true && refused 403 'operators'
send POST /v1/cms/ca subject /CN=mine && refused 403 'administrators'
as_cert app
send POST /v1/cms/certificates csr "@$ca/web.csr" && refused 403 'not for a service'

step 'a node renews and revokes its own; a revoked certificate is for nothing'
as_cert n1
send POST /v1/cms/renew csr "@$ca/app.csr" serial "$(cat "$ca/app.serial")" && got 201
send POST "/v1/cms/certificates/$(cat "$ca/app.serial")/revoke" reason superseded && got 200
now_issued
as_cert app
send POST /v1/cms/renew csr "@$ca/app.csr" && refused 401 ''
as_admin
send POST "/v1/cms/certificates/$(cat "$ca/app.serial")/revoke" && refused 409 'already'
as_cert n1
send POST /v1/cms/renew csr "@$ca/app.csr" serial "$(cat "$ca/app.serial")" && refused 403 'is revoked'

step "a node's name is free again when its certificate is revoked, and given to the token that was made for it"
as_token "$t"
send POST /v1/cms/certificates csr "@$ca/thief.csr" profile node && refused 403 "the node's name is taken"
t2=$(token names ':["n1.nodes.example"]' profile node uses :2)
as_token "$t2"
issue thief node
as_admin
for n in n1 thief; do
    send POST "/v1/cms/certificates/$(cat "$ca/$n.serial")/revoke" reason keyCompromise && got 200
done
now_issued
as_token "$t"
send POST /v1/cms/certificates csr "@$ca/thief.csr" profile node && refused 403 "the node's name is taken"
as_token "$t2"
issue thief node
as_admin
send POST "/v1/cms/certificates/$(cat "$ca/thief.serial")/revoke" reason keyCompromise && got 200
as_token "$t"
csr again n1.nodes.example DNS:n1.nodes.example
issue again node
now_issued

step 'asked again with the same Idempotency-Key: the same answer, and nothing is done twice'
keyed() { # KEY METHOD PATH NAME VALUE...
    as_admin
    who+=(-H "Idempotency-Key: $1")
    shift
    send "$@"
}
keyed k1 POST /v1/cms/tokens names ':["web.example"]' uses :1 && got 201
cp "$ca/answer" "$ca/first"
as_token "$(field token)"
csr keyed web.example DNS:web.example
issue keyed
keyed k1 POST /v1/cms/tokens names ':["web.example"]' uses :1 && got 201
expect_same "the token again" "$ca/first" "$ca/answer"
now_issued
keyed k1 POST /v1/cms/tokens names ':["web.example"]' uses :2 && refused 409 'used with another request'
as_token "$(json token <"$ca/first")"
send POST /v1/cms/certificates csr "@$ca/keyed.csr" && refused 403 'spent'
as_admin
ask DELETE "/v1/cms/tokens/$(json id <"$ca/first")" && got 204
keyed k1 POST /v1/cms/tokens names ':["web.example"]' uses :1 && refused 409 'is withdrawn'
! grep -qrF "$(json token <"$ca/first")" "$ca/state" "$ca/log" || fail "the token is on the disk"
for _ in 1 2; do
    keyed k2 POST "/v1/cms/certificates/$(cat "$ca/keyed.serial")/revoke" reason superseded && got 200
done
keyed k2 POST "/v1/cms/certificates/$(cat "$ca/keyed.serial")/revoke" reason keyCompromise && refused 409 'used with another request'
keyed k3 POST "/v1/cms/certificates/$(cat "$ca/keyed.serial")/revoke" reason superseded && refused 409 'already'
csr second "the second administrator"
for answer in first answer; do
    keyed k4 POST /v1/cms/ca subject /CN=keyed issuer r5 admin_csr "@$ca/second.csr" && got 201
    [ $answer = answer ] || cp "$ca/answer" "$ca/first"
done
expect_same "the authority again" "$ca/first" "$ca/answer"
now_issued
keyed k4 POST /v1/cms/ca subject /CN=other issuer r5 && refused 409 'used with another request'

step 'an authority is not made twice, and no key comes in clear'
as_admin
send POST /v1/cms/ca subject /CN=other && refused 409 'has a certificate'
for r in r1 r2 r3 r4; do
    pids=()
    json_of subject /CN=race issuer $r >"$ca/body"
    for i in 1 2 3 4; do
        curl -sS -m 30 "${who[@]}" -X POST "$base/v1/cms/ca" -H 'Content-Type: application/json' --data-binary @"$ca/body" \
            -o "$ca/$r.$i" -w '%{http_code}\n' >"$ca/$r.$i.code" &
        pids+=($!)
    done
    wait "${pids[@]}"
    expect_equal "answers to four at once" "$(sort "$ca/$r".?.code | xargs)" '201 409 409 409'
    made=$(grep -l '"certificate"' "$ca/$r".?)
    ask GET "/v1/cms/ca?issuer=$r" && expect_equal "the one that was answered" "$(json certificate <"$made")" "$(field certificate)"
done
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$ca/plain.key" 2>/dev/null
send PUT /v1/cms/ca chain "@$ca/root.pem" key "@$ca/plain.key" && refused 403 'wrap'
! grep -qF "$(sed -n 2p "$ca/plain.key")" "$ca/log" || fail "the key is in the log"
send PUT /v1/cms/ca chain "@$ca/web.pem" && refused 400 'not a CA'
ask GET /v1/cms/ca && expect_equal root "$(field root)" "$(cat "$ca/root.pem")"

step 'tokens that are worth nothing hold up tokens from the same address, and nobody with a certificate'
as_token AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
curl -sS -m 60 "${who[@]}" -o /dev/null -w '%{http_code}\n' "$base/v1/cms/certificates?limit=[1-300]" >"$ca/codes"
[ "$(sort -u "$ca/codes" | tr '\n' ' ')" = '401 429 ' ] || fail "answers: $(sort "$ca/codes" | uniq -c)"
as_admin
ask GET /v1/cms/certificates && got 200
as_cert app
for _ in $(seq 3); do
    ask GET /v1/cms/certificates && refused 401 ''
done
