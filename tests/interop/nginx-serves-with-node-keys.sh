#!/bin/bash
# nginx, unchanged, serves TLS with keys of the node, soft and in the TPM, by PEM file through the provider and by URI
# through the PKCS#11 engine: root reads the configuration, www-data shakes hands; curl calls it with a node key of its
# own. A rule that goes stops the next handshake; without the rights of the key's user neither has anything.
# bound: 180
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/programs.sh"
in_node --backend tpm2
front_ends
engine_too "$p11_module"
make_ca ca
worker=$(id -u www-data)
other=$(id -u games)

# Root makes the keys and reads what is public; the user SIGNS signs.
rules() { # SIGNS
    policy <<YAML
version: 1
default: uid-namespaces
identities: {admin: {uid: 0}, web: {uid: $1}}
rules:
  - {allow: [key.create, key.delete, key.csr, key.list, key.show, key.public, cert.install, cert.get], to: [admin], on: ["web:*"]}
  - {allow: [key.list, key.show, key.public, cert.get, key.sign], to: [web], on: ["web:*"]}
YAML
}
# It has signed more than that many times (counts are written down every ten seconds).
signed_since() { # KEY COUNT
    [ "$(csm key show "web:$1" --json | json signatures)" -gt "$2" ]
}
# call PORT [OPTIONS OF curl]: a handshake of its own. 35 is what curl says of one that failed.
call() {
    local port=$1
    shift
    curl -sS --max-time 10 --cacert ca.pem "$@" "https://localhost:$port/"
}
# every ok|stopped: what each of the servers does with a handshake.
every() {
    local i
    for i in "${!names[@]}"; do
        if [ "$1" = ok ]; then
            ok call "${ports[i]}"
            expect_equal "what came" "$(cat out)" "by ${names[i]}"
        else
            expect_exit 35 call "${ports[i]}"
        fi
    done
}

rules "$worker"
names=() ports=()
server() { # NAME KEY-FORM CERTIFICATE [DIRECTIVES]
    local port
    port=$(free_port)
    names+=("$1") ports+=("$port")
    printf 'server { listen 127.0.0.1:%s ssl; ssl_certificate_key "%s"; ssl_certificate %s; %s
        location / { return 200 "by %s"; } }\n' "$port" "$2" "$3" "${4:-}" "$1" >>servers.conf
}
for backend in soft tpm2; do
    csm key create web:$backend --backend $backend >/dev/null
    csm csr web:$backend --subject "/CN=$backend" --san dns:localhost >$backend.csr
    issue ca $backend.csr $backend.crt
    csm key reference web:$backend >$backend.pem
    server $backend-by-provider "$work/$backend.pem" "$work/$backend.crt"
    server $backend-by-engine "engine:pkcs11:pkcs11:token=web;object=$backend;type=private" "$work/$backend.crt"
done

step "root reads, www-data shakes hands, by provider and by engine"
nginx_config www-data <servers.conf
nginx_start "${ports[0]}"
for pid in $(nginx_workers); do
    expect_equal "a worker's user" "$(stat -c %u "/proc/$pid")" "$worker"
done
every ok
for backend in soft tpm2; do
    before=$(csm key show web:$backend --json | json signatures)
    ok call "${ports[0]}"
    ok call "${ports[2]}"
    node_await 15 signed_since $backend "$before" || fail "nothing was signed with web:$backend"
done

step "a handshake is one command to the TPM"
for i in 2 3; do
    before=$(status_field tpm.commands)
    for _ in 1 2 3 4 5; do
        ok call "${ports[i]}"
    done
    expect_equal "${names[i]}" "$(status_field tpm.commands)" $((before + 5))
done

step "what a rule no longer allows ends with the next handshake, and comes back"
rules "$other"
every stopped
rules "$worker"
every ok

step "callers show certificates with keys of the node, and nobody shows another's"
port=$(free_port)
cat >mutual.conf <<CONF
server { listen 127.0.0.1:$port ssl; ssl_certificate_key $work/soft.pem; ssl_certificate $work/soft.crt;
    ssl_client_certificate $work/ca.pem; ssl_verify_client on; location / { return 200 "\$ssl_client_s_dn"; } }
CONF
nginx_config www-data < <(cat servers.conf mutual.conf)
kill -HUP "$nginx_pid"
node_await 10 answers "$port" || fail "no reload: $(tail nginx/error.log)"
ask() { # UID OPTIONS OF curl...
    local uid=$1
    shift
    with_csm "$uid" curl -sS --fail --max-time 10 --cacert ca.pem "$@" "https://localhost:$port/"
}
by_engine() {
    local openssl_cnf=$engine_cnf
    ask "$@"
}
expect_exit 22 ask $uid_a
for backend in soft tpm2; do
    node_key $uid_a mine-$backend ca dns:caller --backend $backend
    ok ask $uid_a --cert mine-$backend.crt --key mine-$backend.pem
    expect_equal "who called" "$(cat out)" "CN=mine-$backend"
    ok by_engine $uid_a --cert mine-$backend.crt --engine pkcs11 --key-type ENG \
        --key "pkcs11:token=uid-$uid_a;object=mine-$backend;type=private"
    expect_equal "who called" "$(cat out)" "CN=mine-$backend"
    refused ask $uid_b --cert mine-$backend.crt --key mine-$backend.pem
    refused by_engine $uid_b --cert mine-$backend.crt --engine pkcs11 --key-type ENG \
        --key "pkcs11:token=uid-$uid_a;object=mine-$backend;type=private"
done
every ok
stop

step "with workers of another user no hand is shaken"
nginx_config games <servers.conf
nginx_start "${ports[0]}"
every stopped
stop

step "what takes the name of a key does not sign in its place"
nginx_config www-data <servers.conf
nginx_start "${ports[0]}"
every ok
for backend in soft tpm2; do
    ok csm key delete web:$backend
    ok csm key create web:$backend --backend $backend
done
every stopped
for backend in soft tpm2; do
    expect_equal "signatures" "$(csm key show web:$backend --json | json signatures)" 0
done
stop
