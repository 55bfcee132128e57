#!/bin/bash
# What is revoked shows in the next OCSP answer and within two seconds in the lists, to openssl and GnuTLS; what was never issued
# is unknown; lists are numbered without end, over restarts too; the plain door serves nothing else.
# bound: 120
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
# shellcheck source=tests/lib/ca.sh
. "$top/tests/lib/ca.sh"
public=$(ca_port)
ca_start "public_listen: \"127.0.0.1:$public\"
public_url: http://127.0.0.1:$public
profiles: {default: {subject: {CN: \"*\"}, san: [\"dns:.example\"]}}"
# shellcheck disable=SC2119 # options of its own: none
ca_init
server=https://localhost:$port
enrol() { # NAME: $ca/NAME.pem, a copy here
    csr "$1" "$1.example" "DNS:$1.example"
    as_admin
    issue "$1"
    cp "$ca/$1.pem" .
}
revoke() { # NAME REASON
    as_admin
    send POST "/v1/cms/certificates/$(cat "$ca/$1.serial")/revoke" reason "$2" && got 200
}

enrol a
enrol b
url_of() { openssl x509 -in a.pem -noout -text | grep -A9 "$1" | grep -o 'URI:http[^ ]*' | sed -n 1p | cut -d: -f2-; }
ocsp=$(openssl x509 -in a.pem -noout -ocsp_uri)
list=$(url_of 'CRL Distribution Points')
delta=${list%.crl}.delta.crl
plain=${ocsp%/ocsp*}
[ -n "$ocsp" ] || fail "the certificate does not tell where to ask"
[ -n "$list" ] || fail "the certificate does not tell where its list is"
get() { curl -sS --fail --max-time 20 -o "$@"; }
get ca.der "$(openssl x509 -in a.pem -noout -text | grep -o 'CA Issuers - URI:.*' | cut -d: -f2-)"
openssl x509 -inform DER -in ca.der -out ca.pem
openssl verify -CAfile ca.pem a.pem b.pem >/dev/null || fail "the certificates do not verify"

# asked OPTIONS: what openssl makes of the answer, which has to verify.
asked() {
    openssl ocsp -CAfile ca.pem -issuer ca.pem -url "$ocsp" "$@" >said 2>&1 || { cat said >&2 && fail "ocsp $*"; }
    grep -q 'Response verify OK' said || { cat said >&2 && fail "the answer does not verify: $*"; }
    ! grep -q WARNING said || { cat said >&2 && fail "a warning: $*"; }
}
says() { grep -qF -- "$1" said || { cat said >&2 && fail "it does not say: $1"; }; }

step "good, by each hash, several at once; never issued: unknown; another issuer's: unauthorized"
asked -cert a.pem
says 'a.pem: good'
for hash in sha1 sha256 sha384; do
    asked "-$hash" -cert a.pem -cert b.pem -serial 0x1234
    says 'a.pem: good' && says 'b.pem: good' && says '0x1234: unknown'
done
make_other() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -subj /CN=other -out other.pem 2>/dev/null; }
make_other
openssl ocsp -CAfile ca.pem -issuer other.pem -url "$ocsp" -cert a.pem >said 2>&1 || true
says 'unauthorized (6)'
asked -cert a.pem -resp_text
says 'OCSP Signing' && says 'OCSP No Check'

step "by GET, escaped and not, with the issuer's name and without; kept by nobody for long"
openssl ocsp -no_nonce -issuer ca.pem -cert a.pem -reqout req.der 2>/dev/null
whole=$(openssl base64 -A -in req.der)
escaped=$(/usr/bin/python3 -c 'import sys, urllib.parse; print(urllib.parse.quote(sys.argv[1], safe=""))' "$whole")
for at in "$ocsp/$escaped" "$ocsp/$whole" "$plain/ocsp/$escaped"; do
    get resp.der -D heads "$at"
    openssl ocsp -respin resp.der -reqin req.der -no_nonce -CAfile ca.pem -issuer ca.pem -cert a.pem >said 2>&1
    says 'Response verify OK' && says 'a.pem: good'
    tr -d '\r' <heads | contains -i '^content-type: application/ocsp-response$' || fail "not an OCSP response: $at"
    tr -d '\r' <heads | contains -i '^cache-control: max-age=60, public' || fail "caches are not told: $at"
done

step "what is no request is answered as such"
for bad in 0 30030a0100 "$(head -c 40 req.der | od -An -tx1 | tr -d ' \n')"; do
    printf '%s' "$bad" | /usr/bin/python3 -c 'import sys
t = sys.stdin.read(); sys.stdout.buffer.write(bytes.fromhex(t + "0" * (len(t) % 2)))' >bad.der
    get resp.der -H 'Content-Type: application/ocsp-request' --data-binary @bad.der "$ocsp"
    openssl ocsp -respin resp.der >said 2>&1 || true
    says 'malformedrequest (1)'
done
get resp.der "$plain/ocsp/not-base64!"
openssl ocsp -respin resp.der >said 2>&1 || true
says 'malformedrequest (1)'

step "lists: whom they are of, what they hold, what a cache is told"
get old.der -D heads "$list"
tr -d '\r' <heads | contains -i '^content-type: application/pkix-crl$' || fail "not a list"
openssl crl -inform DER -in old.der -CAfile ca.pem -noout 2>said
says 'verify OK'
openssl crl -inform DER -in old.der -out old.pem
tag=$(tr -d '\r' <heads | sed -n 's/^[Ee][Tt][Aa][Gg]: //p')
expect_equal "asked again" "$(curl -sS -o again.der -w '%{http_code}' -H "If-None-Match: $tag" "$list")" 304
openssl verify -CAfile ca.pem -crl_check -CRLfile old.pem a.pem b.pem >/dev/null || fail "with nothing revoked"
expect_equal "another list" "$(curl -sS -o out -w '%{http_code}' "${list%.crl}x.crl")" 404
expect_equal "REST at the plain door" "$(curl -sS -o out -w '%{http_code}' "$plain/v1/cms/certificates")" 404
expect_equal "probes at the plain door" "$(curl -sS -o out -w '%{http_code}' "$plain/healthz")" 404

step "revoked: the next answer says so, with the reason"
revoke a keyCompromise
asked -cert a.pem -cert b.pem
says 'a.pem: revoked' && says 'Reason: keyCompromise' && says 'b.pem: good'

step "and within two seconds the lists: the full one, and the delta beside an older one"
number() { openssl crl -inform DER -in "$1" -noout -crlnumber | cut -d= -f2; }
listed() { get new.der "$list" && [ "$(number new.der)" != "$(number old.der)" ]; }
node_await 2 listed || fail "no new list within two seconds"
openssl crl -inform DER -in new.der -out new.pem
get delta.der "$delta"
openssl crl -inform DER -in delta.der -out delta.pem
expect_equal "the delta's number" "$(number delta.der)" "$(number new.der)"
! openssl verify -CAfile ca.pem -crl_check -CRLfile new.pem a.pem >said 2>&1 || fail "the list does not say it"
says 'certificate revoked'
openssl verify -CAfile ca.pem -crl_check -CRLfile new.pem b.pem >/dev/null || fail "the list says too much"
openssl verify -CAfile ca.pem -crl_check -CRLfile old.pem a.pem >/dev/null || fail "the old list says it"
! openssl verify -CAfile ca.pem -crl_check -use_deltas -CRLfile old.pem -CRLfile delta.pem a.pem >said 2>&1 || fail "nor the delta"
says 'certificate revoked'
openssl verify -CAfile ca.pem -crl_check -use_deltas -CRLfile old.pem -CRLfile delta.pem b.pem >/dev/null || fail "the delta says too much"

step "a hold, and its end"
revoke b certificateHold
asked -cert b.pem
says 'b.pem: revoked' && says 'Reason: certificateHold'
revoke b removeFromCRL
asked -cert b.pem
says 'b.pem: good'

step "numbers go on over a restart; the responder stays who it is"
asked -cert b.pem -resp_text
responder=$(grep -A1 'Serial Number:$' said)
get old.der "$list"
ca_kill9
ca_run
listed_again() { get new.der "$list" 2>/dev/null && [ -s new.der ]; }
node_await 10 listed_again || fail "no list after the restart"
[ $(($(number new.der))) -gt $(($(number old.der))) ] || fail "the numbers do not grow: $(number old.der), $(number new.der)"
asked -cert a.pem -resp_text
says 'a.pem: revoked'
expect_equal "the responder's serial number" "$(grep -A1 'Serial Number:$' said)" "$responder"

step "the same to GnuTLS"
ocsptool --ask="$ocsp" --load-issuer=ca.pem --load-cert=a.pem --load-signer=ca.pem >said 2>&1 || true
says 'Certificate Status: revoked'
ocsptool --ask="$ocsp" --load-issuer=ca.pem --load-cert=b.pem --load-signer=ca.pem >said 2>&1 || { cat said >&2 && fail "ocsptool"; }
says 'Certificate Status: good'
certtool --verify-crl --load-ca-certificate ca.pem --infile new.pem >said 2>&1 || { cat said >&2 && fail "certtool"; }
says 'Verified'
certtool --crl-info --infile new.pem >said
says "$(cat "$ca/a.serial")"

step "over REST: PEM, DER, delta"
curl -sS --fail --cacert "$ca/root.pem" -o rest.pem "$server/v1/cms/crl"
openssl crl -in rest.pem -noout || fail "not PEM"
curl -sS --fail --cacert "$ca/root.pem" -o rest.der "$server/v1/cms/crl?format=der&delta=true&issuer=default"
openssl crl -inform DER -in rest.der -noout -text | contains 'Delta CRL Indicator' || fail "not a delta"
for bad in 'format=text' 'delta=perhaps' 'issuer=nobody'; do
    curl -sS --cacert "$ca/root.pem" -o out -w '%{http_code}' "$server/v1/cms/crl?$bad" | contains -E '^40[04]$' || fail "taken: $bad"
done
