#!/bin/bash
# What is put beside a key is a certificate of that key with a chain that holds together, or it is refused and what was
# there stays; it goes with its key, and the audit log tells of each.
# bound: 60
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/certs.sh"
in_node --backend soft

make_ca root
make_ca inter root
make_ca other
for key in web api; do
    ok csm key create $key
    csm csr $key --subject "/O=test/CN=$key" --san dns:$key.example.org >$key.csr
    issue $key.csr inter $key.pem
done
shown() { csm cert show "$1" --json | json "$2"; }
refused() { # WHAT WORDS FILE
    expect_exit 1 csm cert install web "$3"
    grep -q "$2" "$work/err" || { cat "$work/err" >&2 && fail "$1: not told why"; }
    expect_equal "$1: the certificate that was there" "$(shown web fingerprint)" "$was"
}

step "there is none, then the one that was issued"
expect_exit 4 csm cert show web
cat web.pem inter.pem root.pem >chain
ok csm cert install web chain
was=$(shown web fingerprint)
expect_equal "the fingerprint" "$was" "$(openssl x509 -in web.pem -outform DER | sha256sum | cut -d' ' -f1)"
expect_equal "what key show tells" "$(csm key show web --json | json certificate.fingerprint)" "$was"

step "refused: another key's, an issuer alone, a wrong chain, an expired one, half of one, no certificate, a private key"
refused "another key's" "not this key's" api.pem
refused "its issuer's" "not this key's" inter.pem
cat inter.pem web.pem >chain && refused "the wrong order" "not this key's" chain
cat web.pem root.pem >chain && refused "an issuer left out" "certificate 2: it is not the issuer" chain
cat web.pem other.pem >chain && refused "a foreign CA" "certificate 2: it is not the issuer" chain
cat web.pem inter.pem api.pem >chain && refused "something behind it" "certificate 3: it is not the issuer" chain
cat >ca.conf <<'CONF'
[ca]
default_ca = it
[it]
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = any
[any]
commonName = supplied
CONF
: >index.txt
ok openssl ca -batch -config ca.conf -in web.csr -cert inter.pem -keyfile inter.key -startdate 20200101000000Z \
    -enddate 20200201000000Z -notext -out old.pem
refused "an expired one" "certificate 1: it has expired" old.pem
openssl x509 -in web.pem -outform DER -out web.der
head -c 200 web.der >half && refused "half of one" "not a DER certificate" half
cat web.der half >behind && refused "half of another behind it" "left over" behind
echo nothing >text && refused "no certificate" "no CERTIFICATE" text
refused "a private key" "no CERTIFICATE" other.key
for _ in $(seq 11); do cat root.pem; done >chain
expect_exit 1 csm cert install web chain
ok csm cert install web web.der

step "another one takes its place at once, for all who read meanwhile"
issue web.csr inter new.pem -set_serial 77
(while [ ! -e stop ]; do csm cert show web --json | json serial; done >serials) &
reader=$!
for _ in $(seq 10); do
    ok csm cert install web new.pem
    ok csm cert install web web.pem
done
touch stop
wait $reader || fail "a reader was refused"
sort -u serials >seen
if [ "$(wc -l <seen)" -gt 2 ] || [ ! -s seen ]; then fail "$(cat seen)"; fi

step "it goes with its key: the next key of that name has none"
ok csm key delete web
ok csm key create web
expect_exit 4 csm cert show web
expect_exit 1 csm cert install web web.pem
ok csm cert install api api.pem
ok csm cert delete api
expect_exit 4 csm cert show api
expect_exit 4 csm cert delete api
ok csm cert list --json
expect_equal "the list" "$(tr -d ' \n' <"$work/out")" '[]'

step "the audit log tells of installations and deletions"
csm audit tail -n 1000 --json >lines
for method in cert.install cert.delete; do
    grep -q "\"$method\"" lines || fail "no line of $method"
done
