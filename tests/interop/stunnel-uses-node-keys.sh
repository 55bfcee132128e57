#!/bin/bash
# stunnel, unchanged, has TLS on both sides with keys of the node, soft and in the TPM: started as root, it works as the
# user that its configuration names, and with what that user may; as another user it has nothing.
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/programs.sh"
in_node --backend tpm2
front_ends
make_ca ca
user=$(id -u www-data)
other=$(id -u games)
plain=$(free_port)
start service /usr/bin/python3 "$top/tests/lib/plainservice.py" "$plain"
service=$started
serves "$plain" service

policy <<YAML
version: 1
default: uid-namespaces
identities: {admin: {uid: 0}, web: {uid: $user}}
rules:
  - {allow: [key.create, key.csr, key.show, key.public, cert.install, cert.get], to: [admin], on: ["web:*"]}
  - {allow: [key.show, key.public, cert.get, key.sign], to: [web], on: ["web:*"]}
YAML
for backend in soft tpm2; do
    csm key create web:$backend --backend $backend >/dev/null
    csm csr web:$backend --subject "/CN=$backend" --san dns:localhost >$backend.csr
    issue ca $backend.csr $backend.crt
    csm key reference web:$backend >$backend.pem
done

# configure KEY USER: stunnel.conf, from $entry by $tls to the service, with KEY on both sides.
configure() {
    entry=$(free_port)
    tls=$(free_port)
    cat >stunnel.conf <<CONF
foreground = yes
pid =
setuid = $2
setgid = $2
sslVersionMin = TLSv1.2
CAfile = $work/ca.pem
cert = $work/$1.crt
key = $work/$1.pem
verifyChain = yes
[server]
accept = 127.0.0.1:$tls
connect = 127.0.0.1:$plain
requireCert = yes
[client]
client = yes
accept = 127.0.0.1:$entry
connect = 127.0.0.1:$tls
checkHost = localhost
CONF
}
as_configured() {
    start stunnel env OPENSSL_CONF="$openssl_cnf" stunnel4 stunnel.conf
    serves "$entry" stunnel
}
ask() { curl -sS --fail --max-time 10 "http://127.0.0.1:$entry/"; }

for backend in soft tpm2; do
    step "$backend: both sides, as the user of the configuration"
    configure $backend www-data
    as_configured
    ok ask
    expect_equal "an answer" "$(cat out)" "the service"
    expect_equal "stunnel's user" "$(stat -c %u "/proc/$started")" "$user"
    stop
    step "$backend: as another user it shakes no hand"
    configure $backend games
    as_configured
    refused ask
    stop
    step "$backend: started as its user it works, started as one who may not even read the key it does not"
    configure $backend www-data
    sed -i '/^set[ug]id/d' stunnel.conf
    start stunnel setpriv --reuid "$user" --regid "$user" --clear-groups env OPENSSL_CONF="$openssl_cnf" stunnel4 stunnel.conf
    serves "$entry" stunnel
    ok ask
    stop
    refused with_csm "$other" stunnel4 stunnel.conf
    grep -q 'policy does not allow' err || fail "another reason: $(cat err)"
done
stop "$service"
