#!/bin/bash
# The inventory shows what was issued to whom, to operators all of it and to a node its own; a signed page is checked with openssl
# alone, and one that was changed is refused. Nodes tell of their own keys only, and the report says which certificates are in use.
# bound: 150
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
# shellcheck source=tests/lib/ca.sh
. "$top/tests/lib/ca.sh"

ca_start 'profiles:
  default: {subject: {CN: "*"}, san: ["dns:**"]}
  node: {role: node, subject: {CN: "*"}, san: ["dns:**"]}
  operator: {role: operator, ekus: [clientAuth], subject: {CN: "*"}}'
# shellcheck disable=SC2119 # nothing more is asked
ca_init
described() { check_openapi=1 ask "$@"; } # and as openapi.yaml says
list() { # QUERY: the names that are told, over all pages of two
    local after=''
    : >"$ca/names"
    while :; do
        ask GET "/v1/cms/certificates?limit=2&after=$after&$1" && got 200
        py -c 'import json, sys
for c in json.load(sys.stdin)["certificates"]:
    if not c["requester"].startswith("csm-server"): # what it makes for itself
        print(c["subject"].rsplit("CN=", 1)[-1])' <"$ca/answer" >>"$ca/names"
        after=$(field next)
        [ -n "$after" ] || break
    done
    sort "$ca/names" | paste -sd ' '
}
told() { expect_equal "certificates by '$1'" "$(list "$1")" "$2"; }
spki() { openssl x509 -in "$ca/$1.pem" -noout -pubkey | openssl pkey -pubin -outform der | sha256sum | cut -d' ' -f1; }

for n in n1 n2; do
    csr $n $n DNS:$n.example
    issue $n node
done
csr op op
issue op operator
for s in web db; do
    csr $s $s.example DNS:$s.example
done
as_cert n1
issue web
as_cert n2
issue db

step 'who sees what'
as_cert op
told '' 'db.example n1 n2 op the first administrator web.example'
described GET '/v1/cms/certificates?limit=1000' && got 200
told 'name=w*' web.example
told 'name=web.example' web.example
told 'san=dns:*.example&profile=default' 'db.example web.example'
told 'node=n2&profile=default' db.example
told "requester=cert%20$(cat "$ca/n1.serial")" web.example
told "serial=$(cat "$ca/db.serial")" db.example
told 'state=revoked' ''
told "expires_before=$(($(date +%s) + 10))" ''
send POST "/v1/cms/certificates/$(cat "$ca/db.serial")/revoke" reason superseded
[ "$(cat "$ca/status")" -lt 300 ] || fail "revoke: $(cat "$ca/answer")"
told 'state=revoked' db.example
described GET "/v1/cms/certificates/00$(cat "$ca/db.serial")"
expect_equal "reason" "$(field reason)" superseded
told 'state=valid&node=n2' n2
as_cert n1
told '' 'n1 web.example'
ask GET '/v1/cms/certificates?node=n2' && got 403
ask GET "/v1/cms/certificates/$(cat "$ca/db.serial")" && got 404
ask GET "/v1/cms/certificates/$(cat "$ca/web.serial")?format=pem" && got 200
expect_same "a certificate" <(openssl x509 -in "$ca/answer" -outform der) <(openssl x509 -in "$ca/web.pem" -outform der)
described GET "/v1/cms/certificates/$(cat "$ca/web.serial")" && got 200
expect_equal "state and role" "$(field state) $(field role)" 'valid service'
expect_equal "its node" "$(field node)" n1
expect_equal "its key" "$(field spki_sha256)" "$(spki web)"
field certificate | openssl x509 -noout || fail "no certificate in the answer"
ask GET /v1/cms/inventory && got 403
as_nobody
ask GET /v1/cms/certificates && got 401
ask GET /v1/cms/usage && got 401
as_cert web
ask GET /v1/cms/certificates && got 403
ask GET "/v1/cms/certificates/$(cat "$ca/web.serial")" && got 200

step 'what cannot be asked'
as_cert op
for bad in limit=0 limit=1001 limit=x limit= after=zz state=odd serial=xyz expires_before=-1 "name=$(printf 'a%.0s' {1..600})" name=%ff; do
    ask GET "/v1/cms/certificates?$bad" && got 400
done
ask GET /v1/cms/certificates/xyz && got 400
ask GET /v1/cms/certificates/0123 && got 404
ask GET "/v1/cms/certificates/$(cat "$ca/web.serial")?format=der" && got 400

step 'signed pages'
described GET '/v1/cms/inventory?limit=4' && got 200
# shellcheck disable=SC2034
cursor=$(field next)
py -c 'import base64, json, sys
a = json.load(open(sys.argv[1] + "/answer"))
open(sys.argv[1] + "/page", "w").write(a["inventory"])
open(sys.argv[1] + "/page.sig", "wb").write(base64.b64decode(a["signature"]))
open(sys.argv[1] + "/page.pub", "w").write(a["public"])' "$ca"
openssl dgst -sha256 -verify "$ca/page.pub" -signature "$ca/page.sig" "$ca/page" >/dev/null || fail "the page's signature"
sed 's/"state":"valid"/"state":"Valid"/' "$ca/page" >"$ca/changed"
! openssl dgst -sha256 -verify "$ca/page.pub" -signature "$ca/page.sig" "$ca/changed" >/dev/null || fail "a changed page is taken"
expect_equal "lines" "$(wc -l <"$ca/page")" 5
cp "$ca/page" "$ca/first"
expect_equal "what the page says of the next" "$(head -n 1 "$ca/page" | json next)" "$cursor"
as_uid "$ca_uid" csm key public inventory-signer | cmp -s - "$ca/page.pub" || fail "not the key that csmd tells"
ask GET "/v1/cms/inventory?limit=4&after=$cursor" && got 200
field inventory >"$ca/page"
expect_equal "the first line of the next page" "$(head -n 1 "$ca/page" | json after)" "$cursor"
# What csm-server has for itself comes when it comes, at the front: no more is known of how many follow.
as_local
ask GET "/v1/cms/certificates?limit=1000" && got 200
as_admin
py - "$ca" <<'PY' || fail "the pages"
import json, sys
serials = lambda name: [json.loads(l)["serial"] for l in open(sys.argv[1] + "/" + name) if '"serial"' in l]
first, second = serials("first"), serials("page")
known = {c["serial"] for c in json.load(open(sys.argv[1] + "/answer"))["certificates"]}
assert len(first) == 4 and second and len(set(first + second)) == 4 + len(second) and set(first + second) <= known, (first, second)
PY
expect_equal "the end" "$(field next)" ''

step 'use'
now=$(date +%s)
report() { # KEY-OF SIGNATURES [MORE]
    printf '{"key":"svc:tls","spki_sha256":"%s","from":%d,"to":%d,"last_used":%d,"signatures":%d%s}' "$(spki "$1")" $((now - 3600)) "$now" \
        $((now - 60)) "$2" "${3:-}"
}
post() { ask POST /v1/cms/usage -H 'Content-Type: application/json' --data-binary "$1"; }

as_cert n1
printf '{"reports":[%s]}' "$(report web 5 ',"program":"/usr/sbin/nginx","identity":"web"')" >"$ca/reports"
sent=$ca/reports described POST /v1/cms/usage -H 'Content-Type: application/json' --data-binary @"$ca/reports" && got 200
post "{\"reports\":[$(report web 5 ',"program":"/usr/sbin/nginx","identity":"web"'),$(report web 2 ',"program":"=evil()","identity":"a\"b"')]}" && got 200
expect_equal "stored" "$(field stored)" 2
post "{\"reports\":[$(report web 5 ',"program":"/usr/sbin/nginx","identity":"web"')]}" && got 200
openssl genpkey -algorithm ED25519 -out "$ca/foreign.key"
openssl req -x509 -new -key "$ca/foreign.key" -subj /CN=x -out "$ca/foreign.pem" 2>/dev/null
post "{\"reports\":[$(report foreign 5)]}" && got 200
expect_equal "of keys that have no certificate here" "$(field unknown)" 1
post "{\"reports\":[$(report web 1),$(report db 1)]}" && got 403
for bad in '' '[]' '{}' '{"reports":{}}' '{"reports":[1]}' "{\"reports\":[$(report web 1 ',"colour":1')]}" "{\"reports\":[],\"more\":1}" \
    "{\"reports\":[$(report web 1 ',"signatures":2')]}" "{\"reports\":[$(report web 1 | sed "s/\"to\":[0-9]*/\"to\":$((now + 4000))/")]}" \
    "{\"reports\":[$(report web 1 | sed 's/"last_used":[0-9]*/"last_used":-1/')]}"; do
    post "$bad" && got 400
done
as_cert web
post '{"reports":[]}' && got 403
as_cert op
post '{"reports":[]}' && got 403
described GET '/v1/cms/usage?use=used' && got 200
expect_equal "used" "$(field certificates | py -c 'import json, sys; print([(c["subject"], c["signatures"], len(c["users"])) for c in json.load(sys.stdin)])')" \
    "[('/CN=web.example', 7, 2)]"
expect_equal "last used" "$(field certificates.0.last_used)" $((now - 60))
described GET '/v1/cms/usage?use=unused' && got 200
expect_equal "unused" "$(field certificates | py -c 'import json, sys; print(sorted({c["subject"] for c in json.load(sys.stdin)} & {"/CN=n1", "/CN=op", "/CN=web.example"}))')" \
    "['/CN=n1', '/CN=op']"
ask GET "/v1/cms/usage?use=used&to=$((now - 7200))" && got 200
expect_equal "used before" "$(field certificates)" '[]'
described GET '/v1/cms/usage?format=csv&use=used' && got 200
py - "$ca/answer" <<'PY'
import csv, sys
rows = list(csv.DictReader(open(sys.argv[1], newline='')))
assert len(rows) == 2, rows
assert {r['program'] for r in rows} == {'/usr/sbin/nginx', "'=evil()"}, rows
assert {r['identity'] for r in rows} == {'web', 'a"b'} and all(r['in_use'] == 'yes' for r in rows), rows
PY
for bad in use=x format=xml "from=$now&to=1"; do
    ask GET "/v1/cms/usage?$bad" && got 400
done
as_cert n2
ask GET /v1/cms/usage && got 200
expect_equal "a node's own" "$(field certificates | py -c 'import json, sys; print([c["subject"] for c in json.load(sys.stdin)])')" "['/CN=n2']"
described GET '/v1/cms/usage?node=n1' && got 403


step 'a node that tells of more users than anybody can list spoils its own line only'
mkdir "$ca/many"
py - "$ca/many" "$(spki web)" "$now" <<'PY'
import json, sys
pad, now = 'p' * 480, int(sys.argv[3])
for i in range(17):
    reports = [{'key': 'k', 'spki_sha256': sys.argv[2], 'from': 1, 'to': now - i * 128 - j, 'last_used': 1, 'signatures': 2**63 - 1,
        'program': pad + str(i * 128 + j), 'identity': pad} for j in range(128)]
    json.dump({'reports': reports}, open(f'{sys.argv[1]}/{i}', 'w'))
PY
as_cert n1
for i in $(seq 0 14); do
    post "@$ca/many/$i" && got 200
done
for i in 15 16; do # and the rows that a node can make are bounded
    ask POST /v1/cms/usage -H 'Content-Type: application/json' --data-binary "@$ca/many/$i" -D "$ca/head" && got 429
    grep -qi '^retry-after: [1-9][0-9]*' "$ca/head" || fail "not when: $(cat "$ca/head")"
    field error.message | contains 'reports of use' || fail "not why: $(cat "$ca/answer")"
done
as_cert op
described GET '/v1/cms/usage?use=used' && got 200
expect_equal "who used it, and how much" "$(field certificates | py -c 'import json, sys; print([(len(c["users"]), c["signatures"]) for c in json.load(sys.stdin)])')" \
    "[(16, $(((1 << 62) - 1 + (1 << 62))))]"
as_cert n1
post "{\"reports\":[$(report n1 1)]}" && got 200
