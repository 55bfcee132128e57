#!/bin/bash
# A client certificate that has expired, is not valid yet, is another CA's, was never issued though the CA's key signed it, or was
# revoked, is for nothing at csm-server; the log says which it was, and why. What a server's certificate is for it may renew, no more.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
# shellcheck source=tests/lib/ca.sh
. "$top/tests/lib/ca.sh"

ca_start 'issuers: {default: {key: ca}, old: {key: old-ca}}
profiles:
  default: {subject: {CN: "*"}, san: ["dns:**"]}
  server: {ekus: [serverAuth], subject: {CN: "*"}, san: ["dns:**"]}'
# shellcheck disable=SC2119 # nothing more is asked
ca_init
cd "$ca"

# A CA whose key we have as well: what it signs is as csm-server's own, but for what is wrong with it.
py - <<'PY'
import datetime
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY, now = datetime.timedelta(days=1), datetime.datetime.utcnow()


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def make(file, cn, issuer=None, begin=-2, end=10):
    key = ec.generate_private_key(ec.SECP256R1())
    b = (x509.CertificateBuilder().subject_name(name(cn)).issuer_name(name(issuer[0] if issuer else cn)).public_key(key.public_key())
         .serial_number(x509.random_serial_number()).not_valid_before(now + begin * DAY).not_valid_after(now + end * DAY)
         .add_extension(x509.BasicConstraints(issuer is None, None), True))
    if issuer is None:
        b = b.add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), True)
        b = b.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    else:
        b = b.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
    with open(file + '.pem', 'wb') as out:
        out.write(b.sign(issuer[1] if issuer else key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    with open(file + '.key', 'wb') as out:
        out.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return cn, key


old, other = make('old', 'old'), make('other', 'old')
make('unknown', 'x', old)
make('expired', 'x', old, end=-1)
make('future', 'x', old, begin=1)
make('foreign', 'x', other)
PY
CSM_SERVER_ADMIN_SOCKET=$ca/admin.sock ok csm ca import old.pem old.key --issuer old --max-life 30d --admin ""

logged() { tail -n +"$((lines + 1))" "$ca/log" | tr -d '\134' | grep -F -- "$1" >found; }
seen() { node_await 10 logged "$1" || { tail -n +"$((lines + 1))" "$ca/log" >&2 && fail "the log does not say '$1'"; }; }
mark() { lines=$(wc -l <"$ca/log"); }
asks() { as_cert "$1" && curl -sS -m 10 "${who[@]}" -o answer -w '%{http_code}' "$base/v1/cms/certificates" >status 2>said; }

step "the CA that was imported lets in, once its certificates are known"
mark
lets_in() { asks unknown; } # its TLS comes within a second or two
node_await 20 lets_in || fail "$(cat said)"
expect_equal "one that the database does not have" "$(cat status)" 401
seen "who=\"cert $(openssl x509 -in unknown.pem -noout -serial | sed 's/.*=//; s/.*/\L&/'), unknown\""

step "those that TLS itself refuses: no request is read"
for what in "expired:certificate has expired" "future:certificate is not yet valid" "foreign:certificate signature failure"; do
    mark
    if asks "${what%%:*}"; then fail "${what%%:*}: let in: $(cat status answer)"; fi
    seen "client certificate refused: peer=127.0.0.1:"
    seen "why=\"${what#*:}\""
done
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=me -days 3 -keyout me.key -out me.pem 2>/dev/null
mark
if asks me; then fail "its own CA: let in"; fi
seen 'why="self-signed certificate"'

step "a client that asks at once, before it can know, is told by TLS all the same, and not by a reset of the connection"
py - "$port" <<'PY'
import socket, ssl, sys, time
for i in range(20):
    c = ssl.create_default_context(cafile='root.pem')
    c.load_cert_chain('foreign.pem', 'foreign.key')
    with c.wrap_socket(socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10), server_hostname='localhost') as s:
        try:
            time.sleep(i % 4 / 100)
            for _ in range(2):
                s.sendall(b'GET /v1/cms/ca HTTP/1.1\r\nHost: localhost\r\nX: ' + b'x' * 4000 + b'\r\n\r\n')
            sys.exit('answered: %r' % s.recv(100))
        except ssl.SSLError as e:
            assert 'ALERT' in (e.reason or ''), e
PY

step "revoked"
as_admin
csr web web.example DNS:web.example
issue web
mark
asks web
expect_equal "a good one: known, though this is for others" "$(cat status)" 403
seen "who=\"cert $(cat web.serial)\""
as_admin
send POST "/v1/cms/certificates/$(cat web.serial)/revoke" reason keyCompromise && got 200
mark
asks web
expect_equal "a revoked one" "$(cat status)" 401
seen "who=\"cert $(cat web.serial), revoked\""

step "a server's: for its own renewal"
as_admin
csr srv srv.example DNS:srv.example
issue srv server
now_issued
as_cert srv
send POST /v1/cms/certificates csr "@$ca/srv.csr" && refused 403 'not for a service'
send POST /v1/cms/tokens any_name :true && refused 403 'operators'
send POST /v1/cms/renew csr "@$ca/srv.csr" && got 201
