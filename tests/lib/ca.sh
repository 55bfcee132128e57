# shellcheck shell=bash disable=SC2154 # work, node_build, top: of system.sh
# A csm-server beside the private node of a test, used by curl and openssl alone. Sourced after system.sh, within in_node.
#
#   ca_start [PROFILES-YAML]   csm-server on $port, waiting for `ca_init`
#   ca_init                    the root, $ca/root.pem, and an administrator, $ca/admin.{pem,key}
#   ask METHOD PATH [OPTIONS OF curl]: $ca/status, $ca/answer; body from standard input where --json is among the options
#   check_openapi=1            each `ask` and `send` is held against proto-spec/openapi.yaml
#   as_admin, as_local, as_token TOKEN, as_cert NAME: what `ask` shows of itself; before it

ca=$work/ca
ca_uid=59131

ca_port() {
    py -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])'
}

ca_run() {
    setsid sh -c 'echo $$ >"$0/pid"; exec "$1" --config "$0/server.yaml"' "$ca" "$node_build/bin/csm-server" \
        </dev/null >>"$ca/log" 2>&1 199>&- &
    disown
    node_await 60 ca_answers || { cat "$ca/log" >&2 && fail "csm-server does not start"; }
}
# It knows what issuers there are: the first one's certificate, or that there is none yet. (Any other answer, or none, is of a
# csm-server that is starting.)
ca_answers() {
    curl -sS -m 5 --unix-socket "$ca/admin.sock" http://localhost/v1/cms/ca -o "$ca/up" -w '%{http_code}' >"$ca/up.status" 2>/dev/null &&
        grep -Eqx '200|409' "$ca/up.status"
}
ca_kill9() {
    local pid
    read -r pid <"$ca/pid"
    kill -9 "$pid"
    node_await 10 node_gone "$pid" || fail "csm-server lives"
}
ca_stop() {
    local pid
    read -r pid <"$ca/pid" || return 0
    kill -TERM "$pid" 2>/dev/null || true
    node_await 15 node_gone "$pid" || kill -9 "$pid"
}

ca_start() {
    mkdir -p "$ca"
    chmod 0755 "$ca"
    (umask 077 && mkdir -p "$ca/state")
    chown "$ca_uid:$ca_uid" "$ca/state"
    port=$(ca_port)
    {
        printf 'listen: "127.0.0.1:%s"\nadmin_socket: %s\nstate_dir: %s\ncsmd_socket: %s\nuser: "%s"\nhostnames: [localhost, 127.0.0.1]\n' \
            "$port" "$ca/admin.sock" "$ca/state" "$CSM_SOCKET" "$ca_uid"
        printf '%s\n' "${1:-}"
    } >"$ca/server.yaml"
    ca_run
    trap ca_stop EXIT
}

# json_of NAME VALUE...: an object; VALUE: text, @FILE for the text of a file, :JSON for anything else.
json_of() {
    py -c 'import json, sys
take = lambda v: open(v[1:]).read() if v[0] == "@" else json.loads(v[1:]) if v[0] == ":" else v
a = sys.argv[1:]
print(json.dumps({k: take(v) for k, v in zip(a[::2], a[1::2])}))' "$@"
}

# csr NAME [CN] [SAN] [OPENSSL OPTIONS]: $ca/NAME.{key,csr}
csr() {
    local name=$1 cn=${2:-$1} san=${3:-}
    shift $(($# < 3 ? $# : 3))
    [ -e "$ca/$name.key" ] || openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$ca/$name.key" 2>/dev/null
    openssl req -new -key "$ca/$name.key" -subj "/CN=$cn" ${san:+-addext "subjectAltName=$san"} "$@" -out "$ca/$name.csr" 2>/dev/null
}

who=()
base=
as_local() { who=(--unix-socket "$ca/admin.sock") base=http://localhost; }
as_nobody() { who=(--cacert "$ca/root.pem") base=https://localhost:$port; }
as_token() { as_nobody && who+=(-H "Authorization: Bearer $1"); }
as_cert() { as_nobody && who+=(--cert "$ca/$1.pem" --key "$ca/$1.key"); }
as_admin() { as_cert admin; }

ask() {
    local method=$1 path=$2
    shift 2
    curl -sS -m 20 -X "$method" "${who[@]}" -o "$ca/answer" -w '%{http_code}' "$base$path" "$@" >"$ca/status" 2>"$ca/curl" ||
        { cat "$ca/curl" >&2 && fail "curl: $method $path"; }
    [ -z "${check_openapi:-}" ] || /usr/bin/python3 "$top/tests/lib/openapi.py" "$top/proto-spec/openapi.yaml" "$method" "$path" \
        "$(cat "$ca/status")" "${sent:--}" "$ca/answer" || fail "not as openapi.yaml says"
}
# send METHOD PATH NAME VALUE...: with these as JSON.
send() {
    local method=$1 path=$2
    shift 2
    json_of "$@" >"$ca/body"
    sent=$ca/body ask "$method" "$path" -H 'Content-Type: application/json' --data-binary @"$ca/body"
}
got() { # STATUS
    [ "$(cat "$ca/status")" = "$1" ] || fail "status $(cat "$ca/status"), not $1: $(head -c 400 "$ca/answer")"
}
field() { json "$1" <"$ca/answer"; }

# issue NAME [PROFILE] [MORE NAME VALUE...]: for $ca/NAME.csr, as who asks now; $ca/NAME.pem and NAME.serial
issue() {
    local name=$1 profile=${2:-}
    shift $(($# < 2 ? $# : 2))
    send POST /v1/cms/certificates csr "@$ca/$name.csr" ${profile:+profile "$profile"} "$@"
    got 201
    field certificate >"$ca/$name.pem"
    field serial >"$ca/$name.serial"
}
# token VALUES...: made by the administrator, on standard output
token() {
    as_admin
    send POST /v1/cms/tokens "$@"
    got 201
    field token
}
# A refusal: status, a part of its reason, and that nothing has been issued.
refused() { # STATUS REASON
    got "$1"
    field error.message | contains -F -- "$2" || fail "not '$2': $(cat "$ca/answer")"
    expect_equal "certificates after a refusal" "$(issued)" "$count_before"
}
issued() {
    local keep=("${who[@]}") keep_base=$base
    as_local
    curl -sS -m 20 "${who[@]}" "$base/v1/cms/certificates?limit=1000" | py -c 'import json, sys
# what csm-server has for itself (TLS, OCSP) comes when it comes
print(sum(c["requester"].split(" ")[0] in ("cert", "token", "uid") for c in json.load(sys.stdin)["certificates"]))'
    who=("${keep[@]}") base=$keep_base
}
now_issued() { count_before=$(issued); }

ca_init() {
    csr admin "the first administrator"
    as_local
    send POST /v1/cms/ca subject /O=Example/CN=Root admin_csr "@$ca/admin.csr" "$@"
    got 201
    field root >"$ca/root.pem"
    field administrator.certificate >"$ca/admin.pem"
    as_admin
}
