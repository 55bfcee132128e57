#!/bin/bash
# Where a profile says so, nobody gets a certificate before a person other than himself has approved his request: over REST and EST,
# renewals too. What was asked by is spent once, whatever is killed meanwhile; every check is made again when the certificate is made.
# bound: 120
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
# shellcheck source=tests/lib/ca.sh
. "$top/tests/lib/ca.sh"
# shellcheck disable=SC2034 # of ca.sh
check_openapi=1
profiles() {
    printf 'profiles:
  default: {subject: {CN: "*"}, san: ["dns:**"], max_life: %s, life: 20d, approval: manual}
  first: {subject: {CN: "*"}, san: ["dns:**"], approval: first}
  two: {subject: {CN: "*"}, san: ["dns:**"], approval: two-person}
  swing: {subject: {CN: "*"}, san: ["dns:**"], approval: %s}
  operator: {role: operator, subject: {CN: "*"}, ekus: [clientAuth], ask: [token, administrator, operator]}
  strong: {role: operator, subject: {CN: "*"}, ekus: [clientAuth], approval: manual}\n' "$1" "${2:-manual}"
}
ca_start "$(profiles 30d)"
# shellcheck disable=SC2119 # options of its own: none
ca_init
header() { # NAME: of the answer to this request
    curl -sS -m 20 -X POST "${who[@]}" -D "$ca/head" -o /dev/null -H 'Content-Type: application/json' --data-binary @"$ca/body" \
        "$base$1" && tr -d '\r' <"$ca/head" | grep -i "^$2: " | cut -d' ' -f2
}
want() { send POST /v1/cms/certificates csr "@$ca/$1.csr" "${@:2}"; }
waits() { got 202 && id=$(field request); }
decide() { send POST "/v1/cms/requests/$id/$1" "${@:2}"; }

step 'an operator, whom no approval holds up'
csr op 'some operator'
t=$(token profile operator)
as_token "$t"
issue op operator

step 'a request by a token waits, is listed, and is the same one when it is asked again'
csr web web.example DNS:web.example
t=$(token names ':["web.example"]')
as_token "$t"
now_issued
want web && waits
expect_equal 'certificates before the approval' "$(issued)" "$count_before"
want web && got 202
expect_equal 'the same request' "$(field request)" "$id"
expect_equal 'where it is' "$(header /v1/cms/certificates Location)" "/v1/cms/requests/$id"
after=$(header /v1/cms/certificates Retry-After)
{ [ "$after" -ge 1 ] && [ "$after" -le 60 ]; } || fail "Retry-After: $after"
ask GET "/v1/cms/requests/$id" && got 200
expect_equal 'its state' "$(field state)" waiting
csr web web.example DNS:web.example
want web && got 202
expect_equal 'the same key and names, signed anew' "$(field request)" "$id"
csr other web.example DNS:web.example
want other && refused 403 'the token is spent'
ask GET /v1/cms/requests && got 403
as_cert op
ask GET '/v1/cms/requests?state=waiting' && got 200
expect_equal 'those who wait' "$(field requests.0.request) $(field requests.0.subject) $(field requests.0.san.0)" \
    "$id /CN=web.example dns:web.example"
t_other=$(token names ':["web.example"]')
as_token "$t_other"
ask GET "/v1/cms/requests/$id" && got 404
decide approve && got 403

step 'approved, it is issued to who asks again, once'
as_cert op
decide approve reason 'known to me' && got 200
decide approve && got 409
decide deny && got 409
expect_equal 'certificates of an approval alone' "$(issued)" "$count_before"
as_token "$t"
issue web
first=$(cat "$ca/web.serial")
issue web
expect_equal 'the same certificate' "$(cat "$ca/web.serial")" "$first"
ask GET "/v1/cms/requests/$id" && got 200
expect_equal 'what became of it' "$(field state) $(field serial)" "issued $first"
openssl verify -CAfile "$ca/root.pem" "$ca/web.pem" >/dev/null || fail 'the certificate'
expect_equal 'certificates' "$(issued)" "$((count_before + 1))"

step 'denied, with a reason'
as_token "$t_other"
want other && waits
as_cert op
decide deny reason $'not\nthis one' && got 400
decide deny reason 'not this one' && got 200
as_token "$t_other"
now_issued
want other && refused 403 'the request was denied: not this one'

step 'Idempotency-Key is of one request'
t=$(token any_name :true uses :2)
as_token "$t"
who+=(-H 'Idempotency-Key: abc')
want web && waits
want web && got 202
expect_equal 'the same request' "$(field request)" "$id"
want other && got 409
as_admin && decide approve && got 200
as_token "$t" && who+=(-H 'Idempotency-Key: abc')
issue web && first=$(cat "$ca/web.serial")
issue web
expect_equal 'the same certificate' "$(cat "$ca/web.serial")" "$first"

step 'a renewal waits too, but where only the first one is approved by hand'
as_cert web
send POST /v1/cms/renew csr "@$ca/web.csr" && waits
as_cert op
ask GET "/v1/cms/requests/$id" && got 200
expect_equal 'a renewal' "$(field renewal)" true
decide approve && got 200
as_cert web
send POST /v1/cms/renew csr "@$ca/web.csr" && got 201
csr one one.example DNS:one.example
t=$(token any_name :true profile first)
as_token "$t"
want one && waits
as_admin && decide approve && got 200
as_token "$t" && issue one
as_cert one
send POST /v1/cms/renew csr "@$ca/one.csr" && got 201

check_openapi=
step 'nobody approves what he asked for himself, and no operator an operator'
as_cert op
csr mine mine.example DNS:mine.example
want mine && waits
decide approve && got 403
as_admin && decide approve && got 200
as_cert op && want mine && got 201
t=$(token profile strong)
csr op2 'another operator'
as_token "$t"
want op2 && waits
as_cert op && decide approve && got 403
as_admin && decide approve && got 200

step 'where two persons are wanted, nobody approves by a token that he made himself'
csr op-again 'some operator'
t=$(token profile operator)
as_token "$t"
issue op-again operator
as_cert op
send POST /v1/cms/tokens any_name :true profile two && got 201
as_token "$(field token)"
want mine && waits
for self in op op-again; do
    as_cert $self
    decide approve && got 403
    field error.message | contains 'made by who decides' || fail "$(cat "$ca/answer")"
done
as_admin && decide approve && got 200

step 'a profile that wants no approval any more lets those who wait have their certificate; one that wants it again takes back no decision'
swing=$(token any_name :true profile swing)
as_token "$swing"
want mine && waits
reread() { # APPROVAL
    sed "s/^  swing: .*/  swing: {subject: {CN: \"*\"}, san: [\"dns:**\"], approval: $1}/" "$ca/server.yaml" >"$ca/new.yaml"
    cat "$ca/new.yaml" >"$ca/server.yaml"
    seen=$(grep -c 'was read' "$ca/log" || true)
    kill -HUP "$(cat "$ca/pid")"
    read_again() { [ "$(grep -c 'was read' "$ca/log")" -gt "$seen" ]; }
    node_await 20 read_again || fail "SIGHUP: $(cat "$ca/log")"
}
reread none
want mine && got 201
want one && got 403
as_admin
ask GET "/v1/cms/requests/$id" && got 200
expect_equal 'nobody decided' "$(field state) $(grep -c decided_by "$ca/answer" || true)" 'issued 0'
reread manual

step 'EST: 202 with Retry-After, then the certificate'
pass=$(token any_name :true)
csr est est.example DNS:est.example
openssl req -in "$ca/est.csr" -outform DER | openssl base64 >"$ca/est.b64"
est() { # STATUS
    as_nobody && who+=(-u "x:$pass")
    curl -sS -m 20 "${who[@]}" -o "$ca/answer" -D "$ca/head" -w '%{http_code}' -H 'Content-Type: application/pkcs10' \
        --data-binary @"$ca/est.b64" "$base/.well-known/est/simpleenroll" >"$ca/status" && got "$1"
}
est 202
grep -qi '^Retry-After: [1-9]' "$ca/head" || fail "no Retry-After: $(cat "$ca/head")"
as_admin
ask GET '/v1/cms/requests?state=waiting' && got 200
id=$(field requests.0.request)
decide approve && got 200
est 200
openssl base64 -d -in "$ca/answer" | openssl pkcs7 -inform DER -print_certs -out "$ca/est.pem"
openssl verify -CAfile "$ca/root.pem" "$ca/est.pem" >/dev/null || fail 'by EST'
pass=$(token any_name :true)
est 202
as_admin
ask GET '/v1/cms/requests?state=waiting' && got 200
id=$(field requests.0.request)
decide deny reason 'no such host here' && got 200
est 403
grep -q 'denied: no such host here' "$ca/answer" || fail "no reason: $(cat "$ca/answer")"

step 'a token that was withdrawn meanwhile'
t=$(token any_name :true)
as_token "$t"
want one && waits
as_admin
ask GET "/v1/cms/requests/$id" && got 200
requester=$(field requester)
decide approve && got 200
ask DELETE "/v1/cms/tokens/${requester#token }" && got 204
as_token "$t"
now_issued
want one && got 401
late=$(token any_name :true ttl :10)
as_token "$late"
want one && waits
late_id=$id end=$(($(date +%s) + 10))

step 'killed in the midst of requests: what each token asked for is there once, and it asks for nothing else'
n=$(count 12 100)
for i in $(seq "$n"); do token any_name :true; done >"$ca/tokens"
json_of csr "@$ca/web.csr" >"$ca/one.json"
json_of csr "@$ca/other.csr" >"$ca/two.json"
post() { # TOKEN FILE
    curl -sS -m 20 --cacert "$ca/root.pem" -H "Authorization: Bearer $1" -H 'Content-Type: application/json' -o /dev/null -w '%{http_code}' \
        --data-binary @"$2" "https://localhost:$port/v1/cms/certificates" 2>/dev/null || true
}
while read -r t; do
    post "$t" "$ca/one.json" >>"$ca/codes"
done <"$ca/tokens" &
clients=$!
node_await 20 test -s "$ca/codes" || fail 'nobody has asked'
ca_kill9
wait "$clients"
ca_run
tls_answers() { curl -sS -m 5 --cacert "$ca/root.pem" -o "$ca/up" "https://localhost:$port/v1/cms/ca" 2>/dev/null; }
node_await 20 tls_answers || fail 'no TLS after the start'
while read -r t; do
    expect_equal 'again' "$(post "$t" "$ca/one.json")" 202
    expect_equal 'by a spent token' "$(post "$t" "$ca/two.json")" 403
done <"$ca/tokens"
as_admin
ask GET '/v1/cms/requests?state=waiting&limit=1000' && got 200
expect_equal 'requests' "$(py -c 'import json, sys
print(len(json.load(open(sys.argv[1]))["requests"]))' "$ca/answer")" "$((n + 1))"

step 'several who come at once for what was approved have it, and it is one'
for _ in $(seq "$(count 4 20)"); do
    t=$(token any_name :true)
    as_token "$t"
    want web && waits
    as_admin && decide approve && got 200
    now_issued
    clients=()
    for i in 1 2 3 4 5 6; do
        post "$t" "$ca/one.json" >"$ca/at_once.$i" &
        clients+=($!)
    done
    wait "${clients[@]}"
    expect_equal 'answers' "$(cat "$ca"/at_once.*)" 201201201201201201
    expect_equal 'certificates' "$(issued)" "$((count_before + 1))"
done

step 'a token whose time is over is good for what it has asked for, and for nothing else'
is_over() { [ "$(date +%s)" -gt "$end" ]; }
node_await 30 is_over || fail 'the time stands still'
now_issued
as_token "$late"
want one && got 202
want other && refused 403 'the token has expired'
as_admin && id=$late_id && decide approve && got 200
as_token "$late" && issue one
t=$(token any_name :true ttl :1)
as_token "$t"
sleep 2
want one && got 401
as_admin

step 'a profile that has changed meanwhile'
want one ttl :2400000 && waits
long=$id
ca_stop
sed -i 's/max_life: 30d/max_life: 21d/' "$ca/server.yaml"
ca_run
csr admin2 'a second administrator'
as_local
send POST /v1/cms/certificates csr "@$ca/admin2.csr" profile administrator && got 201
field certificate >"$ca/admin2.pem"
as_cert admin2
id=$long
decide approve && got 403
field error.message | contains 'profile default' || fail "no reason: $(cat "$ca/answer")"

step 'no more than a caller may have'
as_admin
for i in $(seq 15); do
    want one ttl ":$((100000 + i))" && got 202
done
want one ttl :200000 && got 429

step 'by command'
csr hand hand.example DNS:hand.example
t=$(token any_name :true)
as_token "$t"
want hand && waits
export CSM_SERVER_ADMIN_SOCKET=$ca/admin.sock
# into a file: grep goes at the first hit, and who writes on has failed
csm ca request list >listed
grep -q "^$id .*hand\.example" listed || fail "not listed: $(cat listed)"
csm ca request list --json >listed
grep -q "\"$id\"" listed || fail 'not listed as JSON'
expect_equal 'shown' "$(csm ca request show "$id" --json | json state)" waiting
ok csm ca request approve "$id" $'as \xc2\x9b31magreed'
expect_exit 1 csm ca request deny "$id"
expect_equal 'decided' "$(csm ca request show "$id" --json | json state) $(csm ca request show "$id" --json | json reason)" \
    $'approved as \xc2\x9b31magreed'
csm ca request show "$id" >shown
grep -q 'as ??31magreed' shown || fail "a terminal would act on it: $(od -c shown)"
issue hand
