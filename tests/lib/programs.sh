# shellcheck shell=bash
# For tests that run other people's programs on node keys: the front ends in a place that every uid reaches, a CA to
# throw away, ports, and programs in the background that are ended by their numbers. Sourced after system.sh; the
# functions are called inside the node.
# shellcheck disable=SC2154 # work, node, top, node_build are system.sh's and node-lib.sh's

# Sets p11_module, and openssl_cnf for programs on OpenSSL: theirs is OPENSSL_CONF=$openssl_cnf. What is loaded into
# other people's programs is the release: the runtime of the sanitizers would have to be there before the program.
front_ends() {
    local modules=$node_build
    case $modules in */asan | */tsan) modules=$top/build ;; esac
    mkdir -p "$node/lib"
    cp "$modules/lib/pkcs11/csm-pkcs11.so" "$modules/lib/ossl-modules/csm.so" "$node/lib/"
    chmod 0755 "$node/lib" "$node"/lib/*
    # shellcheck disable=SC2034 # for the scripts
    p11_module=$node/lib/csm-pkcs11.so
    openssl_cnf=$node/lib/openssl.cnf
    # "keys" sorts after "default", as it has to: see libclient/provider/openssl.cnf.
    cat >"$openssl_cnf" <<CNF
openssl_conf = openssl_init
[openssl_init]
providers = providers
[providers]
default = default_provider
keys = csm_provider
[default_provider]
activate = 1
[csm_provider]
module = $node/lib/csm.so
activate = 1
[req]
distinguished_name = req_name
[req_name]
CNF
}

# Sets engine_cnf, in which the PKCS#11 engine with that module stands beside the provider, for programs that take keys as
# engine:pkcs11:pkcs11:... It is not for programs that take all engines for all they can do, as curl does: certificates are
# read by the engine then, and a key of any provider is none of theirs.
engine_too() { # MODULE
    engine_cnf=$node/lib/engine.cnf
    sed 's/^providers = providers$/&\nengines = engines/' "$openssl_cnf" >"$engine_cnf"
    cat >>"$engine_cnf" <<CNF
[engines]
pkcs11 = pkcs11_engine
[pkcs11_engine]
dynamic_path = $(openssl version -e | cut -d'"' -f2)/pkcs11.so
MODULE_PATH = $1
init = 1
CNF
}

# with_csm UID COMMAND...: a program on OpenSSL, as that user, finds the provider; it has 20 s.
with_csm() {
    local uid=$1
    shift
    as_uid "$uid" env OPENSSL_CONF="$openssl_cnf" timeout 20 "$@"
}

# ---- certificates ----

# What is said on standard error is shown only if it fails.
quietly() {
    "$@" 2>"$work/quiet" || { cat "$work/quiet" >&2 && fail "$*"; }
}

# make_ca NAME: NAME.pem, NAME.key
make_ca() {
    quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.pem" -days 2 \
        -subj "/CN=$1" -addext 'keyUsage=critical,keyCertSign,cRLSign'
}
# issue CA CSR CERTIFICATE: with the names that the request asks for.
issue() {
    quietly openssl x509 -req -in "$2" -CA "$1.pem" -CAkey "$1.key" -days 1 -copy_extensions copy -out "$3"
}
# node_key UID KEY CA SAN [OPTIONS OF key create]: a key of that user (made and used as him), KEY.crt, and KEY.pem, by
# which programs name it.
node_key() {
    local uid=$1 key=$2 ca=$3 san=$4
    shift 4
    as_uid "$uid" csm key create "$key" "$@" >/dev/null
    as_uid "$uid" csm csr "$key" --subject "/CN=$key" --san "$san" >"$key.csr"
    issue "$ca" "$key.csr" "$key.crt"
    as_uid "$uid" csm key reference "$key" >"$key.pem"
}
# node_key_with_certificate, likewise: KEY.crt is in csmd too.
node_key_with_certificate() {
    node_key "$@"
    as_uid "$1" csm cert install "$2" - <"$2.crt" >/dev/null
}
# file_key KEY CA SAN: a key in a file beside it, for the other side.
file_key() {
    quietly openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.csr" \
        -subj "/CN=$1" -addext "subjectAltName=$3"
    issue "$2" "$1.csr" "$1.crt"
}

# ---- programs ----

# port=$(free_port): one of the loopback interface that nobody has, and that was not given to this test before.
free_port() {
    local found
    touch "$work/ports"
    while :; do
        found=$(/usr/bin/python3 -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])')
        grep -qx "$found" "$work/ports" || break
    done
    echo "$found" | tee -a "$work/ports"
}
answers() { # PORT
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# start NAME COMMAND...: in the background, in a group of its own, with its output in NAME.log; $started is its number.
programs_started=()
start() {
    local name=$1
    shift
    trap end_programs EXIT
    : >"$work/$name.log"
    setsid "$@" </dev/null >"$work/$name.log" 2>&1 &
    started=$!
    programs_started+=("$started")
}
# serves PORT NAME: it takes connections when this returns.
serves() {
    local tries
    for ((tries = 0; tries < 500; tries++)); do
        if answers "$1"; then return 0; fi
        if node_gone "$started"; then break; fi
        sleep 0.02
    done
    fail "$2 does not serve: $(tail -n 20 "$work/$2.log")"
}
# stop [PID]: that one, or the last started; its whole group is gone then.
stop() {
    local pid=${1:-$started}
    kill -TERM "$pid" 2>/dev/null || true
    node_await 5 node_gone "$pid" || true
    kill -KILL -- "-$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}
end_programs() {
    local pid
    for pid in "${programs_started[@]}"; do
        stop "$pid"
    done
    if declare -F remove_groups >/dev/null; then remove_groups; fi
}

# refused COMMAND...: it fails by its own choice: no signal, no time-out.
refused() {
    local status=0
    "$@" >"$work/out" 2>"$work/err" || status=$?
    if [ "$status" -eq 0 ] || [ "$status" -ge 124 ]; then
        printf 'stdout: %s\nstderr: %s\n' "$(head -c 2000 "$work/out" | tr -d '\0')" "$(head -c 2000 "$work/err")" >&2
        fail "exit status $status where a refusal was due: $*"
    fi
}

# ---- nginx ----

# nginx_config USER: $work/nginx/nginx.conf; the server blocks come on standard input, and go where HTTP is.
nginx_config() {
    mkdir -p "$work/nginx"
    cat >"$work/nginx/nginx.conf" <<CONF
daemon off;
pid $work/nginx/pid;
error_log $work/nginx/error.log notice;
user $1;
worker_processes 2;
# nginx hands no other variables to its workers.
env CSM_SOCKET;
env OPENSSL_CONF;
events {}
http {
    access_log off;
    client_body_temp_path $work/nginx/body;
    proxy_temp_path $work/nginx/proxy;
    fastcgi_temp_path $work/nginx/fastcgi;
    uwsgi_temp_path $work/nginx/uwsgi;
    scgi_temp_path $work/nginx/scgi;
    # Each connection is a whole handshake.
    ssl_session_cache off;
    ssl_session_tickets off;
$(cat)
}
CONF
}
# nginx_start PORT: it serves there when this returns; with the engine where there is one.
nginx_start() {
    : >"$work/nginx/error.log"
    start nginx env OPENSSL_CONF="${engine_cnf:-$openssl_cnf}" nginx -p "$work/nginx" -c "$work/nginx/nginx.conf"
    nginx_pid=$started
    serves "$1" nginx
}
nginx_workers() {
    local pid
    # shellcheck disable=SC2013 # numbers
    for pid in $(cat "/proc/$nginx_pid/task/$nginx_pid/children"); do
        node_gone "$pid" || echo "$pid"
    done
}
