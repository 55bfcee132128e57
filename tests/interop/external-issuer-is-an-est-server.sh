#!/bin/bash
# csm-server as the proxy of an authority that shares no code with it: what that gives is checked, stored and answered, over REST and
# EST; what it refuses, lets wait or gives wrongly is told; while it hangs, others are served.
# bound: 120
. "$(dirname "$0")/../lib/system.sh"
if [ -z "${CSM_TEST_INSIDE:-}" ]; then
    folder=$(mktemp -d "${TMPDIR:-/tmp}/csm-ext.XXXXXX")
    chmod 755 "$folder"
    mkdir "$folder/est"
    mkfifo "$folder/end"
    /usr/bin/python3 "$top/tests/interop/est_server.py" "$folder/est" <"$folder/end" 2>/dev/null &
    server=$!
    exec 9>"$folder/end"
    deaf=
    trap 'kill -CONT $server || true; exec 9>&-; wait $server $deaf || true; rm -rf "$folder"' EXIT
    node_await 20 test -e "$folder/est/port" || fail "est_server.py does not start"
    # two authorities that take connections, and never say anything
    /usr/bin/python3 -c 'import os, socket, sys
deaf = [socket.socket() for _ in range(2)]
for s in deaf:
    s.bind(("127.0.0.1", 0))
    s.listen(64)
open(sys.argv[1] + ".new", "w").write("".join("%d\n" % s.getsockname()[1] for s in deaf))
os.rename(sys.argv[1] + ".new", sys.argv[1])
sys.stdin.read()' "$folder/deaf" <"$folder/end" 9>&- &
    deaf=$!
    node_await 20 test -e "$folder/deaf" || fail "nobody hangs"
    printf 'estuser:estpwd' >"$folder/token"
    chmod 600 "$folder/token"
    for profile in leaf wait refuse other; do
        cat <<YAML
    $profile:
      protocol: est
      url: https://127.0.0.1:$(cat "$folder/est/port")
      anchors: $folder/est/root.pem
      token: file:$folder/token
      label: $profile
      subject: "/CN={name}"
      names: ["/CN=*", "dns:**"]
YAML
    done >"$folder/profiles"
    for i in 1 2; do
        printf '    deaf%s:\n      protocol: est\n      url: https://127.0.0.1:%s\n      anchors: %s\n      token: file:%s\n      timeout: 60s\n' \
            $i "$(sed -n ${i}p "$folder/deaf")" "$folder/est/root.pem" "$folder/token"
        printf '      subject: "/CN={name}"\n      names: ["/CN=*", "dns:**"]\n'
    done >>"$folder/profiles"
    { printf 'enrolment:\n  profiles:\n' && cat "$folder/profiles"; } >"$folder/csmd.yaml"
    "$top/scripts/with-node.sh" --backend soft --config "$folder/csmd.yaml" -- \
        env CSM_TEST_INSIDE="$(realpath "$0")" CSM_TEST_FOLDER="$folder" CSM_TEST_EST="$server" "$0" 9>&-
    exit
fi
in_node --backend soft
folder=$CSM_TEST_FOLDER
# shellcheck source=tests/lib/ca.sh
. "$top/tests/lib/ca.sh"
# shellcheck disable=SC2034 # of ca.sh
check_openapi=1
curl -sS -m 20 --cacert "$folder/est/root.pem" "https://127.0.0.1:$(cat "$folder/est/port")/.well-known/est/cacerts" |
    openssl base64 -d | openssl pkcs7 -inform DER -print_certs >certs.pem
# the issuer of what it issues comes first
py - certs.pem "$folder/est/root.pem" >"$folder/chain.pem" <<'PY'
import re, sys
pem = lambda name: re.findall(r'-----BEGIN.*?-----END CERTIFICATE-----\n', open(name).read(), re.S)
root = pem(sys.argv[2])[0]
strip = lambda p: ''.join(p.split())
print(''.join([c for c in pem(sys.argv[1]) if strip(c) != strip(root)] + [root]))
PY
chmod 644 "$folder/chain.pem"
issuers='issuers:
  default: {key: ca}
'
profiles='profiles:
  default: {subject: {CN: "*"}, san: ["dns:**"]}
  short: {issuer: leaf, subject: {CN: "*"}, san: ["dns:**"], max_life: 5d}
  hand: {issuer: leaf, subject: {CN: "*"}, san: ["dns:**"], approval: manual}
'
for name in leaf wait refuse other deaf1 deaf2; do
    issuers+="  $name: {external: $name, chain: $folder/chain.pem}
"
    profiles+="  $name: {issuer: $name, subject: {CN: \"*\"}, san: [\"dns:**\"]}
"
done
ca_start "$issuers$profiles"
# shellcheck disable=SC2119 # options of its own: none
ca_init
est_log() { cat "$folder/est/log"; }
# The same request until it is no 202.
asked() { # NAME PROFILE
    for _ in $(seq 60); do
        send POST /v1/cms/certificates csr "@$ca/$1.csr" profile "$2"
        [ "$(cat "$ca/status")" = 202 ] || return 0
        sleep 0.3
    done
    fail "$1 waits for ever: $(cat "$ca/log")"
}

step "a certificate of the other authority, by a token, once"
csr web web.example DNS:web.example
t=$(token names ':["web.example"]' profile leaf)
as_token "$t"
asked web leaf
got 201
field certificate >"$ca/web.pem"
field serial >"$ca/web.serial"
expect_equal 'who issued it' "$(field issuer)" leaf
ok openssl verify -CAfile "$folder/est/root.pem" -untrusted "$folder/chain.pem" -purpose sslclient "$ca/web.pem"
expect_equal 'the key' "$(openssl x509 -in "$ca/web.pem" -noout -pubkey)" "$(openssl pkey -in "$ca/web.key" -pubout)"
asked web leaf
expect_equal 'asked again' "$(field serial)" "$(cat "$ca/web.serial")"
csr more web.example DNS:web.example
send POST /v1/cms/certificates csr "@$ca/more.csr" profile leaf && got 403
as_admin
ask GET "/v1/cms/certificates?issuer=leaf" && got 200
expect_equal 'in the inventory' "$(field certificates.0.serial) $(field certificates.0.state)" "$(cat "$ca/web.serial") valid"

step "renewed under that certificate, over REST and EST"
as_cert web
for _ in $(seq 60); do
    send POST /v1/cms/renew csr "@$ca/web.csr"
    [ "$(cat "$ca/status")" = 202 ] || break
    sleep 0.3
done
got 201
[ "$(field serial)" != "$(cat "$ca/web.serial")" ] || fail 'the same certificate'
openssl req -in "$ca/web.csr" -outform DER | openssl base64 >"$ca/web.b64"
for _ in $(seq 60); do
    curl -sS -m 20 "${who[@]}" -o "$ca/answer" -w '%{http_code}' -H 'Content-Type: application/pkcs10' \
        --data-binary @"$ca/web.b64" "$base/.well-known/est/leaf/simplereenroll" >"$ca/status"
    [ "$(cat "$ca/status")" = 202 ] || break
    sleep 0.3
done
got 200
openssl base64 -d -in "$ca/answer" | openssl pkcs7 -inform DER -print_certs -out "$ca/est.pem"
ok openssl verify -CAfile "$folder/est/root.pem" -untrusted "$folder/chain.pem" "$ca/est.pem"

step "what is not as the profile has it is refused, and not in the inventory"
as_admin
now_issued
csr long long.example DNS:long.example
asked long short
refused 502 'longer than the profile'
csr key key.example DNS:key.example
asked key other
got 502
csr no no.example DNS:no.example
asked no refuse
got 403
field error.message | contains 'issuer refuse' || fail "$(cat "$ca/answer")"
expect_equal 'certificates' "$(issued)" "$count_before"

step "what it lets wait, waits; what a person has to approve, is not asked for before"
csr slow slow.example DNS:slow.example
for _ in 1 2; do
    send POST /v1/cms/certificates csr "@$ca/slow.csr" profile wait && got 202
done
csr hand hand.example DNS:hand.example
t=$(token any_name :true profile hand)
as_token "$t"
send POST /v1/cms/certificates csr "@$ca/hand.csr" profile hand && got 202
id=$(field request)
before=$(est_log | wc -l)
send POST /v1/cms/certificates csr "@$ca/hand.csr" profile hand && got 202
expect_equal 'what was asked of it' "$(est_log | wc -l)" "$before"
as_admin
send POST "/v1/cms/requests/$id/approve" && got 200
as_token "$t"
asked hand hand
got 201

step "a profile that wants an approval after all has it for what was not issued yet; with another issuer it is issued by that one"
reread() { # PROFILE OF wait
    sed "s/^  wait: {issuer.*/  wait: $1/" "$ca/server.yaml" >"$ca/new.yaml"
    cat "$ca/new.yaml" >"$ca/server.yaml"
    seen=$(grep -c 'was read' "$ca/log" || true)
    kill -HUP "$(cat "$ca/pid")"
    read_again() { [ "$(grep -c 'was read' "$ca/log")" -gt "$seen" ]; }
    node_await 20 read_again || fail "SIGHUP: $(cat "$ca/log")"
}
slow=$(token any_name :true profile wait)
as_token "$slow"
send POST /v1/cms/certificates csr "@$ca/slow.csr" profile wait && got 202
id=$(field request)
ask GET "/v1/cms/requests/$id" && got 200
expect_equal 'without a person' "$(field state)" approved
reread '{issuer: wait, subject: {CN: "*"}, san: ["dns:**"], approval: manual}'
send POST /v1/cms/certificates csr "@$ca/slow.csr" profile wait && got 202
ask GET "/v1/cms/requests/$id" && got 200
expect_equal 'with one' "$(field state)" waiting
as_admin
send POST "/v1/cms/requests/$id/approve" && got 200
reread '{subject: {CN: "*"}, san: ["dns:**"]}'
as_token "$slow"
send POST /v1/cms/certificates csr "@$ca/slow.csr" profile wait && got 201
expect_equal 'who issued it' "$(field issuer)" default
as_admin

step "revoked here, which the other authority does not know"
as_admin
send POST "/v1/cms/certificates/$(cat "$ca/web.serial")/revoke" reason superseded && got 200
expect_equal 'published' "$(field published)" false
as_cert web
send POST /v1/cms/renew csr "@$ca/web.csr" && got 401

step "while two others hang, each with more requests than it is sent at a time, this one is asked"
t=$(token any_name :true uses :20)
as_token "$t"
deafened=()
for i in $(seq 10); do
    csr "deaf$i" "deaf$i" "DNS:deaf$i.example" && json_of csr "@$ca/deaf$i.csr" profile "deaf$((i % 2 + 1))" >"$ca/deaf.$i"
    curl -sS -m 30 "${who[@]}" -H 'Content-Type: application/json' --data-binary @"$ca/deaf.$i" -o /dev/null -w '%{http_code}\n' \
        "$base/v1/cms/certificates" >>"$ca/deafened" &
    deafened+=($!)
done
wait "${deafened[@]}"
expect_equal 'those who asked them' "$(sort -u "$ca/deafened")" 202
before=$(date +%s)
csr hears hears.example DNS:hears.example
asked hears leaf
got 201
[ $(($(date +%s) - before)) -lt 25 ] || fail "only when the others were given up"

step "while it hangs, others are served, and who asks is told to come again"
as_admin
kill -STOP "$CSM_TEST_EST"
for i in $(seq 12); do
    csr "hang" "hang$i" "DNS:hang$i.example" && json_of csr "@$ca/hang.csr" profile leaf >"$ca/hang.$i"
    curl -sS -m 30 "${who[@]}" -H 'Content-Type: application/json' --data-binary @"$ca/hang.$i" -o /dev/null -w '%{http_code}\n' \
        "$base/v1/cms/certificates" >>"$ca/hung" &
done
csr own own.example DNS:own.example
issue own
wait
kill -CONT "$CSM_TEST_EST"
expect_equal 'those who asked meanwhile' "$(sort -u "$ca/hung")" 202
openssl req -in "$ca/hang.csr" -noout -subject | contains 'hang12$' || fail 'the last one'
asked hang leaf
got 201
