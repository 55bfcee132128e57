#!/bin/bash
# csm ca and csm token do an administrator's work with csm-server: an authority begins, on its host or from an outside root, or is
# brought along; its key and the administrator's never leave the process that has them; tokens are made and withdrawn.
# bound: 120
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
# shellcheck source=tests/lib/ca.sh
. "$top/tests/lib/ca.sh"
. "$top/tests/lib/certs.sh"

ca_start 'issuers: {default: {key: ca}, under: {key: under-ca}, old: {key: old-ca}, p12: {key: p12-ca}}
profiles: {default: {subject: {CN: "*"}, san: ["dns:**"]}}'
body_of() { # NAME FILE [NAME FILE]...: JSON with the text of files; a name that ends in = has its value beside it
    /usr/bin/python3 -c 'import json, sys
a = sys.argv[1:]
print(json.dumps({k.rstrip("="): v if k[-1] == "=" else open(v).read() for k, v in zip(a[::2], a[1::2])}))' "$@"
}
export CSM_SERVER_ADMIN_SOCKET=$ca/admin.sock

step "an authority of its own, and the first administrator"
expect_exit 1 csm ca show
expect_exit 2 csm ca init
expect_exit 2 csm ca init --subject /O=Example/CN=Root --max-life 4
expect_exit 2 csm ca init --subject /O=Example/CN=Root --max-life 1h
grep -q 'max_life: at least 86400 seconds' err || fail "$(cat err)"
[ ! -e admin.key ] || fail "a key of nobody"
expect_exit 1 csm ca show
ok csm ca init --subject /O=Example/CN=Root --path-len 0 --max-life 5d -o root.pem
openssl verify -CAfile root.pem admin.pem >/dev/null || fail "the administrator's certificate"
life_of() { # FILE: seconds
    echo $(($(date -d "$(openssl x509 -in "$1" -noout -enddate | sed 's/.*=//')" +%s) - $(date -d "$(openssl x509 -in "$1" -noout -startdate | sed 's/.*=//')" +%s)))
}
expect_equal "the administrator's life is what the key may give" "$(life_of admin.pem)" 432000
expect_equal "modes" "$(stat -c %a admin.pem admin.key | xargs)" "600 600"
expect_equal "the key" "$(openssl pkey -in admin.key -pubout)" "$(openssl x509 -in admin.pem -noout -pubkey)"
expect_exit 7 csm ca init --subject /CN=again
expect_exit 7 csm ca init --subject /CN=again --admin ""
grep -q 'admin.key is there already' err && fail "that was the first refusal's"
csm ca show >shown.pem
expect_same "the root" root.pem shown.pem
csm ca show --der | openssl x509 -inform DER >shown.pem
expect_same "the root, in DER" <(openssl x509 -in root.pem) shown.pem
expect_equal "its digest" "$(csm ca show --json | json root_sha256)" \
    "$(openssl x509 -in root.pem -noout -fingerprint -sha256 | sed 's/.*=//' | tr -d : | tr A-F a-f)"

step "by REST, as administrator, and as nobody"
export CSM_SERVER=https://localhost:$port CSM_CACERT=$work/root.pem
expect_exit 3 csm token create --name dns:a.example
grep -q '^csm: unauthenticated\|^csm: denied' err || fail "$(cat err)"
export CSM_ADMIN_CERT=$work/admin.pem CSM_ADMIN_KEY=$work/admin.key
CSM_CACERT='' expect_exit 2 csm ca show
expect_exit 2 csm token create --name dns:a.example --ttl 4
grep -q "ttl: not a number with a unit (s, m or min" err || fail "$(cat err)"
ok csm token create --any-name --ttl 4min -o brief.token
ok csm token create --name dns:a.example --name b.example --uses 2 --ttl 90s --json
cp out made
expect_equal "names" "$(json names <made)" '["dns:a.example", "dns:b.example"]'
expect_equal "uses" "$(json uses <made)" 2
left=$(($(json expires <made) - $(date +%s)))
{ [ $left -gt 60 ] && [ $left -le 90 ]; } || fail "it holds for $left s"
id=$(json id <made)
ok csm token list
grep -qE '^id +expires +used +uses +any_name ' out || fail "no names of columns: $(cat out)"
csm token list | contains "^$id " || fail "the list: $(csm token list)"
! csm token list --json | contains "$(json token <made)" || fail "the list shows the token"
ok csm token create --any-name -o token
expect_equal "its mode" "$(stat -c %a token)" 600

step "csm-server's own certificate, and its OCSP responder's, live no longer than the key may give"
openssl s_client -connect "localhost:$port" </dev/null 2>/dev/null | openssl x509 >server.pem
expect_equal "its own" "$(life_of server.pem)" 432000
node_await 20 eval 'csm ca cert list --name "OCSP responder of default" --json | json 0.serial >responder' || fail "no responder: $(cat "$ca/log")"
csm ca cert show "$(cat responder)" --pem >responder.pem
expect_equal "its responder's" "$(life_of responder.pem)" 432000

step "what a token is good for, until it is withdrawn"
try() { # TOKEN NAME
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -subj "/CN=$2" -addext "subjectAltName=DNS:$2" \
        -out csr.pem 2>/dev/null
    body_of csr csr.pem >body
    curl -sS -m 20 --cacert root.pem -H "Authorization: Bearer $1" -H 'Content-Type: application/json' --data-binary @body \
        -o answer -w '%{http_code}' "$CSM_SERVER/v1/cms/certificates"
}
expect_equal "issued" "$(try "$(json token <made)" a.example)" 201
serial=$(json serial <answer)
ok csm token revoke "$id"
expect_equal "after it was withdrawn" "$(try "$(json token <made)" a.example)" 401
expect_exit 4 csm token revoke "$id"
expect_exit 2 csm token revoke ../ca
expect_equal "the other one" "$(try "$(cat token)" c.example)" 201

step "revoked by its serial number"
ok csm ca cert revoke "$serial" --reason superseded
expect_exit 4 csm ca cert revoke 0102030405060708
expect_equal "its state" "$(csm ca cert show "$serial" --json | json state)" revoked
csm ca cert show "$serial" --pem | openssl x509 -noout -serial | tr A-F a-f | contains -x "serial=$serial" || fail "not that one"
csm ca cert list --state revoked | contains "^$serial  revoked " || fail "the list: $(csm ca cert list)"
expect_equal "one of a name" "$(csm ca cert list --name c.example --json | json 0.state)" valid
upper=$(tr a-f A-F <<<"$serial")
for form in "$upper" "$(sed 's/../&:/g; s/:$//' <<<"$upper")" "00$serial"; do
    expect_equal "by $form" "$(csm ca cert show "$form" --json | json serial)" "$serial"
    expect_equal "listed by $form" "$(csm ca cert list --serial "$form" --json | json 0.serial)" "$serial"
done
expect_exit 2 csm ca cert show "${serial:0:2}:${serial:2}"
expect_exit 2 csm ca cert revoke "$serial" --reason nonsense
grep -q '^csm: invalid: reason: ' err || fail "$(cat err)"

step "the inventory, searched"
names() { csm ca cert list "$@" --json | py -c 'import json, sys
print(*sorted(c["subject"].rsplit("=")[-1] for c in json.load(sys.stdin) if not c["requester"].startswith("csm-server")))'; }
found() { expect_equal "by $1" "$(names "${@:3}")" "$2"; }
taken=$(csm ca cert list --name c.example --json | json 0.requester)
found san "a.example c.example" --san 'dns:?.example'
found requester c.example --requester "$taken"
found "profile and state" c.example --profile default --state valid --san 'dns:*'
found node '' --node n1
found "end before" "a.example c.example" --expires-before +90d --san 'dns:*'
found "end before a day" '' --expires-before "$(date -u -d tomorrow +%F)"
found "end later" "a.example c.example" --expires-after "$(date -u -d tomorrow +%FT%TZ)" --san 'dns:*'
found "issued later" "a.example c.example" --issued-after -1h --san 'dns:*'
found "issued after now" '' --issued-after +1h
for bad in "--expires-before 2026-02-31" "--expires-before soon" "--expires-before 31d" "--issued-after -7" "--limit 0" "--state odd" "--san dns:a --san dns:b" "--json --csv"; do
    # shellcheck disable=SC2086 # words
    expect_exit 2 csm ca cert list $bad
done
rows() { py -c 'import json, sys
page = json.load(sys.stdin)
print(len(page["certificates"]), page["next"] != "")'; }
ok csm ca cert list --limit 2 --json
cp out page
expect_equal "a page of two" "$(rows <page)" "2 True"
expect_equal "the rest" "$(csm ca cert list --limit 1000 --after "$(json next <page)" --json | rows)" "$(($(csm ca cert list --json | grep -c '"serial"') - 2)) False"
csm ca cert list --limit 1 >out 2>err
expect_equal "lines" "$(wc -l <out)" 2
grep -q '^csm: there are more: --after ' err || fail "not that there are more: $(cat err)"

step "tables for other programs: what REST has, byte for byte"
table() { curl -sS -m 20 --cacert root.pem --cert admin.pem --key admin.key "$CSM_SERVER/v1/cms/$1"; }
csm ca report --csv >report.csv
expect_same "the report" report.csv <(table 'usage?format=csv')
grep -q "\"/CN=c.example\"" report.csv || fail "not in the report: $(cat report.csv)"
ok csm ca report
csm ca cert list --csv -o list.csv
expect_same "the inventory" list.csv <(table 'certificates?format=csv')
py - list.csv "$serial" <<'PY' || fail "$(cat list.csv)"
import csv, sys
rows = list(csv.DictReader(open(sys.argv[1], newline='')))
row = [r for r in rows if r['serial'] == sys.argv[2]][0]
assert (row['state'], row['reason'], row['san'], row['role']) == ('revoked', 'superseded', 'dns:a.example', 'service'), row
assert None not in row and int(row['revoked']) >= int(row['issued']), row
assert all(r['revoked'] == r['reason'] == '' for r in rows if r['state'] == 'valid'), rows
PY
csm ca cert list --csv --limit 2 >short.csv 2>/dev/null
expect_same "the first two" short.csv <(head -3 list.csv)

step "a signed copy, whole, and nothing else"
csm ca cert signer >signer.pem
expect_same "the key, as csmd tells it" signer.pem <(as_uid 59131 csm key public inventory-signer)
csm ca cert export -o inventory
ok csm ca cert verify inventory --key signer.pem -o inventory.jsonl
expect_equal "its certificates" "$(json 0.serial <<<"[$(head -1 inventory.jsonl)]")" "$(csm ca cert list --limit 1 --json | json certificates.0.serial)"
expect_equal "as many" "$(csm ca cert verify inventory --key signer.pem --json | json certificates)" "$(wc -l <inventory.jsonl)"
expect_equal "from standard input" "$(csm ca cert verify - --key signer.pem --json <inventory | json valid)" true
openssl pkey -in admin.key -pubout -out other.pem
expect_exit 2 csm ca cert verify inventory
expect_exit 1 csm ca cert verify inventory --key other.pem
# of a page each: what can be done to them
pages() { # LIMIT: a copy in smaller pages, as REST has them
    py - "$1" "$CSM_SERVER" <<'PY'
import json, ssl, sys, urllib.request
context = ssl.create_default_context(cafile='root.pem')
context.load_cert_chain('admin.pem', 'admin.key')
after = ''
while True:
    page = json.load(urllib.request.urlopen(f'{sys.argv[2]}/v1/cms/inventory?limit={sys.argv[1]}&after={after}', context=context, timeout=20))
    print(json.dumps(page))
    after = page['next']
    if not after:
        break
PY
}
pages 2 >small
[ "$(wc -l <small)" -gt 2 ] || fail "too few pages"
ok csm ca cert verify small --key signer.pem
sleep 1
pages 2 >later
{ sed -n 1p later && sed 1d small; } >mixed
sed 's/superseded/unspecified/' small >changed
sed 2d small >without
sed 2p small >twice
sed '1!G;h;$!d' small >turned
sed '$d' small >shorter
{ cat small && tail -1 small; } >longer
for made in mixed changed without twice turned shorter longer; do
    expect_exit 1 csm ca cert verify $made --key signer.pem -o never
    grep -q "^csm: tampered: $made, line " err || fail "$made: $(cat err)"
    [ ! -e never ] || fail "$made: something was written"
done
head -c 20000000 /dev/zero | tr '\0' ' ' >long
expect_exit 1 csm ca cert verify long --key signer.pem
grep -q 'longer than any page' err || fail "a long line: $(cat err)"

step "a list whose pages would be longer than an answer may be"
ok csm token create --any-name --uses 80 -o many
py - "$CSM_SERVER" <<'PY'
import http.client, json, ssl, subprocess, sys
sans = ','.join('DNS:' + '.'.join(['x' * 60] * 3 + ['y' * 50 + str(i)]) for i in range(63))
csr = subprocess.run(['openssl', 'req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', '/dev/null', '-subj', '/CN=many',
                      '-addext', 'subjectAltName=' + sans], check=True, capture_output=True, text=True, timeout=20).stdout
c = http.client.HTTPSConnection(sys.argv[1].split('/')[2], context=ssl.create_default_context(cafile='root.pem'), timeout=20)
for _ in range(80):
    c.request('POST', '/v1/cms/certificates', json.dumps({'csr': csr}),
              {'Authorization': 'Bearer ' + open('many').read(), 'Content-Type': 'application/json'})
    answer = c.getresponse()
    data = answer.read()
    assert answer.status == 201, data
PY
expect_equal "how many" "$(csm ca cert list --name many --json | grep -c '"serial"')" 80

step "under an outside root"
make_ca outside
ok csm ca init --issuer under --subject /O=Example/CN=Under --csr under.csr --admin "" --json
expect_equal "the request, in the file and in JSON" "$(cat under.csr)" "$(json csr <out)"
printf 'basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n' >under.ext
openssl x509 -req -in under.csr -CA outside.pem -CAkey outside.key -extfile under.ext -days 3 -set_serial 0x0102030405060708090a -out under.pem 2>/dev/null
cat under.pem outside.pem >chain.pem
expect_exit 2 csm ca init --issuer under --chain
ok csm ca init --issuer under --chain chain.pem --admin ""
csm ca show --issuer under --chain >shown.pem
expect_equal "certificates of the chain" "$(grep -c BEGIN shown.pem)" 2

step "one that exists already, in PEM and in PKCS#12: csm-server and the wire never see its key"
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 -pass pass:secret -out locked.key 2>/dev/null
expect_exit 2 setsid csm ca import root.pem locked.key --issuer old --admin "" </dev/null
expect_equal "lines of an error" "$(grep -c '' err)" 1
for name in old p12; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $name.key -out $name.pem -days 30 -subj "/CN=$name" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
done
typed() { # PASSPHRASE COMMAND...: at a terminal, where the passphrase is typed
    timeout 30 /usr/bin/python3 -c 'import os, pty, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
said = b""
while b"passphrase" not in said:
    said += os.read(fd, 1000)
time.sleep(0.2)
os.write(fd, sys.argv[1].encode() + b"\n")
try:
    while got := os.read(fd, 1000):
        said += got
except OSError:
    pass
print(said.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))' "$@"
}
openssl pkey -in old.key -aes256 -passout pass:secret -out old.locked 2>/dev/null
openssl pkcs12 -export -inkey p12.key -in p12.pem -passout pass:secret -out both.p12
for wrong in "old.pem old.locked --issuer old" "both.p12 --issuer p12"; do
    # shellcheck disable=SC2086 # words
    expect_exit 1 typed wrong csm ca import $wrong --max-life 30d --admin ""
    grep -q 'passphrase is not its' out || fail "$(cat out)"
done
echo wrong >wrong
printf 'secret\nand more\n' >pass
: >empty
for locked in "old.pem old.locked --issuer old" "both.p12 --issuer p12"; do
    # shellcheck disable=SC2086 # words
    {
        expect_exit 1 csm ca import $locked --max-life 30d --admin "" --passphrase-file wrong
        grep -q ': the passphrase is not its: what --passphrase-file holds' err || fail "$(cat err)"
        expect_exit 1 csm ca import $locked --max-life 30d --admin "" --passphrase-file - </dev/null
        grep -q 'standard input holds no passphrase' err || fail "$(cat err)"
        expect_exit 1 csm ca import $locked --max-life 30d --admin "" --passphrase-file empty
        grep -q 'empty holds no passphrase' err || fail "$(cat err)"
    }
done
openssl pkcs12 -export -inkey p12.key -in p12.pem -passout pass:secret -nomac -out nomac.p12
expect_exit 1 csm ca import nomac.p12 --issuer p12 --admin "" --passphrase-file pass
grep -q 'nomac.p12 has no MAC' err || fail "$(cat err)"
expect_exit 1 csm ca import old.pem old.pem --issuer old --admin "" --passphrase-file pass
grep -q 'old.pem holds no private key' err || fail "$(cat err)"
expect_exit 2 csm ca import old.pem - --issuer old --admin "" --passphrase-file - <pass
for name in old p12; do
    expect_exit 1 csm ca show --issuer $name
    expect_exit 1 csm ca crl --issuer $name
    grep -q 'has no certificate yet: csm ca init' err || fail "$(cat err)"
done
ok typed secret csm ca import old.pem old.locked --issuer old --max-life 30d --admin "" --backend soft
ok csm ca import both.p12 --issuer p12 --max-life 30d --admin "" --backend tpm2 --passphrase-file - <pass
expect_equal "where they are" "$(for name in old p12; do as_uid 59131 csm key show $name-ca --json | json backend; done | xargs)" "soft tpm2"
for name in old p12; do
    node_await 20 csm ca crl --issuer $name -o $name.crl || fail "no list of $name: $(cat "$ca/log")"
    openssl crl -in $name.crl -CAfile $name.pem -noout 2>&1 | contains 'verify OK' || fail "the list of $name"
done
expect_exit 4 csm ca crl --issuer none
for name in old p12; do
    expect_equal "issuer $name" "$(csm ca show --issuer $name | openssl x509 -noout -subject -nameopt RFC2253)" "subject=CN=$name"
done
body_of chain old.pem key old.key issuer= old >body
expect_equal "a key in clear" "$(curl -sS -m 20 --cacert root.pem --cert admin.pem --key admin.key -X PUT -H 'Content-Type: application/json' \
    --data-binary @body -o answer -w '%{http_code}' "$CSM_SERVER/v1/cms/ca")" 403

told() { [ "$(grep -c "$want" "$ca/log")" -gt "$seen" ]; }
reread() { # TEXT: the log says it after SIGHUP
    want=$1
    seen=$(grep -c "$want" "$ca/log" || true)
    kill -HUP "$(cat "$ca/pid")"
    node_await 20 told || fail "not '$1': $(cat "$ca/log")"
}
step "SIGHUP: issuers and profiles as a whole, or not at all"
cp "$ca/server.yaml" good.yaml
sed 's/^issuers: {/&late: {key: late-ca}, /; s/^profiles: {/&brief: {max_life: 1h, subject: {CN: "*"}, san: ["dns:**"]}, /' good.yaml >more.yaml
{ cat more.yaml && echo 'colour: red'; } >"$ca/server.yaml"
reread 'is not taken'
expect_exit 4 csm ca show --issuer late
expect_exit 2 csm token create --profile brief
cp more.yaml "$ca/server.yaml"
reread 'was read'
node_await 20 eval '! csm ca crl --issuer late 2>err && grep -q "no certificate yet" err' || fail "the new issuer"
ok csm ca init --issuer late --subject /CN=Late --admin ""
node_await 20 csm ca crl --issuer late -o late.crl || fail "no list of the new issuer"
expect_same "the first one is as it was" <(csm ca show) root.pem
ok csm token create --profile brief -o brief
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -subj /CN=brief.example -out csr.pem 2>/dev/null
for asked in "ttl=7200:403" "ttl=3600:201"; do
    /usr/bin/python3 -c 'import json, sys
print(json.dumps({"csr": open("csr.pem").read(), "ttl": int(sys.argv[1])}))' "$(sed 's/ttl=//; s/:.*//' <<<"$asked")" >body
    expect_equal "$asked" "$(curl -sS -m 20 --cacert root.pem -H "Authorization: Bearer $(cat brief)" -H 'Content-Type: application/json' \
        --data-binary @body -o answer -w '%{http_code}' "$CSM_SERVER/v1/cms/certificates")" "${asked#*:}"
done
cp good.yaml "$ca/server.yaml"
reread 'was read'
expect_exit 4 csm ca show --issuer late

step "a chain that csmd was given is seen, too"
openssl x509 -req -in under.csr -CA outside.pem -CAkey outside.key -extfile under.ext -days 4 -set_serial 0x0102030405060708090b -out under.pem 2>/dev/null
cat under.pem outside.pem >chain.pem
chmod 644 chain.pem
ok as_uid 59131 csm cert install under-ca chain.pem
reread 'was read'
node_await 20 eval 'csm ca show --issuer under --chain | cmp -s - chain.pem' || fail "the old chain: $(csm ca show --issuer under --chain)"

step "an OCSP responder that is revoked is replaced, its key too"
responders() { csm ca cert list --name 'OCSP responder of default' --json; }
node_await 20 eval 'responders | json 0.serial >first' || fail "no responder"
as_uid 59131 csm key public ocsp-default >old.pub
ok csm ca cert revoke "$(cat first)" --reason keyCompromise
node_await 20 eval '[ "$(responders | json 0.serial)" != "$(cat first)" ]' || fail "the same responder"
expect_equal "its state" "$(responders | json 0.state)" valid
! as_uid 59131 csm key public ocsp-default | cmp -s - old.pub || fail "the same key"
sleep 1
expect_equal "responders" "$(responders | grep -c '"serial"')" 2

step "a server that is not there, or not the one that is trusted"
CSM_CACERT=$work/outside.pem expect_exit 5 csm ca show
grep -q "CSM_CACERT, $work/outside.pem" err || fail "$(cat err)"
CSM_SERVER=https://localhost:1 expect_exit 5 csm ca show
CSM_SERVER='' CSM_SERVER_ADMIN_SOCKET=$work/none expect_exit 5 csm ca show
