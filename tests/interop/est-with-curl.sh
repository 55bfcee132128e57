#!/bin/bash
# EST with nothing but curl and openssl on the client's side: CA certificates, enrolment with a token by HTTP Basic, renewal
# under the certificate, attributes; what is wrong is refused with its reason, and changes nothing. The same by a client
# that was written from the text of the RFCs.
# bound: 120
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
# shellcheck source=tests/lib/ca.sh
. "$top/tests/lib/ca.sh"
ca_start 'profiles:
  default: {subject: {CN: "*"}, san: ["dns:.example"]}
  web: {subject: {CN: "*"}, san: ["dns:.web.example"], keys: [p384], ekus: [serverAuth]}'
# shellcheck disable=SC2119 # options of its own: none
ca_init
server=https://localhost:$port
est=$server/.well-known/est
client() { /usr/bin/python3 "$top/tests/interop/est_by_rfc.py" --url "$server" --anchor "$ca/root.pem" "$@"; }

# asked STATUS OUT CURL-OPTIONS...: the answer's status; its body in OUT, its headers in OUT.head.
asked() {
    local wanted=$1 out=$2 got
    shift 2
    got=$(curl -sS --max-time 20 --cacert "$ca/root.pem" -o "$out" -D "$out.head" -w '%{http_code}' "$@") || fail "curl: $*"
    [ "$got" = "$wanted" ] || { head -c 600 "$out" >&2 && fail "$got, not $wanted: $*"; }
}
reason() { grep -qi -- "$2" "$1" || { cat "$1" >&2 && fail "$1 does not say: $2"; }; }
header() { tr -d '\r' <"$1.head" | contains -ixF -- "$2" || { cat "$1.head" >&2 && fail "no header $2"; }; }
request() { # NAME SUBJECT [SAN]: a new key and a request, as DER in base64
    openssl req -new -newkey ec -pkeyopt "ec_paramgen_curve:${curve:-P-256}" -nodes -keyout "$1.key" -subj "$2" \
        ${3:+-addext "subjectAltName=$3"} -outform DER -out "$1.der" 2>/dev/null
    openssl base64 -in "$1.der" -out "$1.b64"
}
post() { # STATUS OUT OPERATION BODY CURL-OPTIONS...
    asked "$1" "$2" --data-binary "@$4" -H 'Content-Type: application/pkcs10' "${@:5}" "$est/$3"
}
# What came, as PEM; it has to be one certificate.
cert_in() { openssl base64 -d -in "$1" | openssl pkcs7 -inform DER -print_certs -out "$2" && [ "$(grep -c BEGIN "$2")" = "$3" ]; }

step "anyone gets the CA's certificates"
asked 200 cacerts "$est/cacerts"
header cacerts 'Content-Type: application/pkcs7-mime; smime-type=certs-only'
header cacerts 'Content-Transfer-Encoding: base64'
cert_in cacerts ca.pem 1 || fail "cacerts: not one certificate"
openssl verify -CAfile "$ca/root.pem" ca.pem >/dev/null || fail "cacerts: not the CA's"
asked 404 out "$est/no-such-label/cacerts"
asked 404 out "$est/serverkeygen"

step "a token, as the password of HTTP Basic, enrols once"
pass=$(token any_name :true)
request one /CN=one.example DNS:one.example
post 401 out simpleenroll one.b64
grep -qi '^WWW-Authenticate: Basic realm=' out.head || fail "no challenge"
post 401 out simpleenroll one.b64 -u "est:not-$pass"
post 200 answer simpleenroll one.b64 -u "est:$pass"
header answer 'Content-Type: application/pkcs7-mime; smime-type=certs-only'
header answer 'Content-Transfer-Encoding: base64'
cert_in answer one.pem 1 || fail "simpleenroll: not one certificate"
openssl verify -CAfile ca.pem one.pem >/dev/null || fail "the certificate does not verify"
cmp -s <(openssl x509 -in one.pem -pubkey -noout) <(openssl pkey -in one.key -pubout) || fail "another key's certificate"
openssl x509 -in one.pem -ext subjectAltName -noout | contains -F 'DNS:one.example' || fail "without its name"
post 403 out simpleenroll one.b64 -u "est:$pass"
reason out spent

step "base64 in one line, in lines with CR LF, with blanks around; PEM; no Content-Type, and one with parameters"
pass=$(token any_name :true uses :9)
tr -d '\n' <one.b64 >whole.b64
post 200 out simpleenroll whole.b64 -u "est:$pass"
sed 's/$/\r/' one.b64 >crlf.b64
post 200 out simpleenroll crlf.b64 -u "est:$pass"
{ printf '\r\n  '; cat one.b64; printf ' \t\r\n\r\n'; } >blanks.b64
post 200 out simpleenroll blanks.b64 -u "est:$pass" -H 'Content-Transfer-Encoding: base64'
openssl req -inform DER -in one.der -out one.csr
post 200 out simpleenroll one.csr -u "est:$pass"
asked 200 out --data-binary @one.b64 -H 'Content-Type:' -u "est:$pass" "$est/simpleenroll"
asked 200 out --data-binary @one.b64 -H 'Content-Type: Application/PKCS10; charset=us-ascii' -u "est:$pass" "$est/simpleenroll"
asked 415 out --data-binary @one.b64 -H 'Content-Type: application/json' -u "est:$pass" "$est/simpleenroll"

step "what is no request, or asks for more than it may, is refused with the reason, and no use of the token is spent"
for bad in 'bm90aGluZw==' 'not base64 at all!' ''; do
    printf '%s' "$bad" >bad.b64
    post 400 out simpleenroll bad.b64 -u "est:$pass"
done
openssl req -new -key one.key -subj /CN=one.example -addext basicConstraints=CA:TRUE -outform DER 2>/dev/null | openssl base64 -out bad.b64
post 403 out simpleenroll bad.b64 -u "est:$pass"
reason out 'CA'
printf 'flip' | dd of=one.der bs=1 seek=$(($(stat -c %s one.der) - 20)) conv=notrunc status=none
openssl base64 -in one.der -out bad.b64
post 400 out simpleenroll bad.b64 -u "est:$pass"
reason out signature
post 404 out no-such-label/simpleenroll one.b64 -u "est:$pass"
asked 405 out -u "est:$pass" "$est/simpleenroll"
for _ in 7 8 9; do post 200 out simpleenroll one.b64 -u "est:$pass"; done
post 403 out simpleenroll one.b64 -u "est:$pass"

step "renewal is under the certificate, and for its names"
request two /CN=one.example DNS:one.example
post 200 answer simplereenroll two.b64 --cert one.pem --key one.key
cert_in answer two.pem 1 || fail "simplereenroll: not one certificate"
openssl verify -CAfile ca.pem two.pem >/dev/null || fail "the renewed one does not verify"
cmp -s <(openssl x509 -in two.pem -pubkey -noout) <(openssl pkey -in two.key -pubout) || fail "not of the new key"
request other /CN=other.example DNS:other.example
post 403 out simplereenroll other.b64 --cert two.pem --key two.key
reason out subject
request more /CN=one.example DNS:one.example,DNS:more.example
post 403 out simplereenroll more.b64 --cert two.pem --key two.key
reason out 'alternative names'
post 401 out simplereenroll two.b64
pass=$(token any_name :true)
post 403 out simplereenroll two.b64 -u "est:$pass"

step "attributes: what the profile leaves no choice about, and 204 where it leaves all"
asked 204 out "$est/csrattrs"
asked 200 out "$est/web/csrattrs"
header out 'Content-Type: application/csrattrs'
openssl base64 -d -in out | openssl asn1parse -inform DER >attributes
grep -q ':secp384r1' attributes || fail "not the profile's kind of key"

step "a label is a profile"
pass=$(token profile web)
request p256 /CN=a.web.example DNS:a.web.example
post 403 out web/simpleenroll p256.b64 -u "est:$pass"
reason out 'profile web'
curve=P-384 request web /CN=a.web.example DNS:a.web.example
post 200 answer web/simpleenroll web.b64 -u "est:$pass"
cert_in answer web.pem 1 || fail "web/simpleenroll: not one certificate"
openssl x509 -in web.pem -noout -ext extendedKeyUsage | contains 'Web Server' || fail "not by the profile"
asked 200 cacerts "$est/web/cacerts"

step "the client from the text of the RFCs"
ok client cacerts
cmp -s out <(openssl x509 -in ca.pem) || fail "it got other CA certificates"
ok client csrattrs
expect_equal "no attributes" "$(cat out)" 204
ok client --label web csrattrs
expect_equal "attributes" "$(tr '\n' ' ' <out)" 'ecPublicKey secp384r1 ecdsa-with-SHA384 '
pass=$(token any_name :true)
request three /CN=three.example DNS:three.example
expect_exit 1 client simpleenroll three.der
ok client --password "$pass" simpleenroll three.der
cp out three.pem
request four /CN=three.example DNS:three.example
ok client --cert three.pem --key three.key --lines 76 --crlf simplereenroll four.der
cp out four.pem
openssl verify -CAfile ca.pem three.pem four.pem >/dev/null || fail "its certificates do not verify"
expect_exit 1 client --cert three.pem --key three.key --rfc8951 simplereenroll other.der
grep -q '^403 ' err || fail "it was not told why"
