# shellcheck shell=bash
# A private node in a folder of its own: what with-node.sh, run.sh, demo.sh and the system tests share.
# Sourced, not run. Descriptor 199 is with-node.sh's alone: what is started here does not get it. Every function takes the node's folder first.
#
#   DIR/csmd.yaml DIR/policy.yaml       configuration
#   DIR/public/csm.sock DIR/admin.sock  sockets
#   DIR/state DIR/rootkey DIR/tpm       0700: the store, the root key of a soft node, the swtpm
#   DIR/csmd.pid DIR/swtpm.pid          written by the processes themselves before they become csmd and swtpm
#   DIR/csmd.log DIR/swtpm.log
#   DIR/server                          a csm-server: server.yaml, state, admin.sock, pid, log, and credentials to use it with

node_top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
node_build=${CSM_BUILD:-build}
[[ $node_build = /* ]] || node_build=$node_top/$node_build

# True when the process is gone or only waits to be buried.
node_gone() {
    local stat
    [ -n "$1" ] || return 0
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
    [[ ${stat##*) } = [ZX]* ]]
}

# node_await SECONDS COMMAND...: repeat until it succeeds; 1 when the time is over.
node_await() {
    local tries=$(($1 * 50))
    shift
    until "$@"; do
        [ $((tries--)) -gt 0 ] || return 1
        sleep 0.02
    done
}

node_pid() { # DIR csmd|swtpm
    local pid=
    { read -r pid <"$1/$2.pid"; } 2>/dev/null || true
    printf '%s' "$pid"
}

# Four numbers that no account has.
node_users() {
    local base=59001
    while getent passwd "$base" "$((base + 1))" "$((base + 2))" "$((base + 3))" >/dev/null; do
        base=$((base + 4))
    done
    printf '{broker: "%s", enrol: "%s", ident: "%s", plughost: "%s"}' "$base" $((base + 1)) $((base + 2)) $((base + 3))
}

# Start a swtpm in DIR (again, after it was killed); it is there when this returns.
node_swtpm_start() {
    local dir=$1
    (umask 077 && mkdir -p "$dir/tpm")
    rm -f "$dir/tpm/sock" "$dir/tpm/sock.ctrl"
    setsid sh -c 'echo $$ >"$0/swtpm.pid"; exec swtpm socket --tpm2 --tpmstate "dir=$0/tpm" \
        --server "type=unixio,path=$0/tpm/sock" --ctrl "type=unixio,path=$0/tpm/sock.ctrl" \
        --flags not-need-init,startup-clear' "$dir" </dev/null >>"$dir/swtpm.log" 2>&1 199>&- &
    disown # the shell says nothing when it ends
    node_await 20 test -S "$dir/tpm/sock"
}

# What a configuration lacks: socket, admin_socket, state_dir, policy, deliver, users, tpm, backends, root_key.
# node_config DIR tpm2|soft TCTI POLICY [FILE]
node_config() {
    local dir=$1 backend=$2 tcti=$3 policy=$4 given=${5:-/dev/null}
    lacks() { ! grep -qE "^$1[[:space:]]*:" "$given"; }
    {
        # A tpm section without a tcti gets one.
        if [ "$backend" = tpm2 ] && ! lacks tpm && ! grep -qE '(^[[:space:]]+|[{,][[:space:]]*)tcti[[:space:]]*:' "$given"; then
            TCTI=$tcti perl -pe 's/^tpm:[ \t]*\{/tpm: {tcti: "$ENV{TCTI}", / or s/^tpm:[ \t]*$/tpm:\n  tcti: "$ENV{TCTI}"/' \
                "$given" | sed 's/, }/}/'
        else
            cat "$given"
        fi
        echo
        lacks socket && echo "socket: $dir/public/csm.sock"
        lacks admin_socket && echo "admin_socket: $dir/admin.sock"
        lacks state_dir && echo "state_dir: $dir/state"
        lacks policy && echo "policy: $policy"
        lacks deliver && echo "deliver: $dir/deliver.yaml"
        [ "$(id -u)" -eq 0 ] && lacks users && echo "users: $(node_users)"
        if [ "$backend" = tpm2 ]; then
            lacks tpm && echo "tpm: {tcti: \"$tcti\"}"
        else
            lacks backends && echo "backends: {enable: [soft]}"
            if lacks root_key; then
                echo "root_key: file"
                lacks root_key_file && echo "root_key_file: $dir/rootkey/key"
                lacks root_key_unprotected && echo "root_key_unprotected: true"
            fi
        fi
        true
    } >"$dir/csmd.yaml"
}

# The value of a plain top-level key of DIR/csmd.yaml.
node_value() {
    sed -nE "s/^$2:[[:space:]]*\"?([^\"#]*[^\"# ])\"?[[:space:]]*(#.*)?$/\1/p" "$1/csmd.yaml" | head -n 1
}

# Folders and files of a new node. node_make DIR tpm2|soft TCTI POLICY-or-empty [CONFIG]
node_make() {
    local dir=$1 policy=$4 broker
    mkdir -p "$dir/public"
    (umask 077 && mkdir -p "$dir/state" "$dir/rootkey")
    chmod 0755 "$dir" "$dir/public"
    if [ -z "$policy" ]; then
        policy=$dir/policy.yaml
        [ -e "$policy" ] || printf 'version: 1\ndefault: uid-namespaces\n' >"$policy"
    fi
    node_config "$dir" "$2" "$3" "$policy" "${5:-/dev/null}"
    if [ "$(id -u)" -eq 0 ]; then
        broker=$(sed -nE 's/^users:.*broker:[[:space:]]*"?([^",} ]+).*/\1/p' "$dir/csmd.yaml")
        [ -z "$broker" ] || chown -R "$broker:$broker" "$dir/state"
    fi
}

# Start csmd on DIR/csmd.yaml; it serves when this returns. 1: it ended, or does not answer in 30 s (see DIR/csmd.log).
node_csmd_start() {
    local dir=$1 pid
    rm -f "$dir/csmd.pid"
    setsid env -u NOTIFY_SOCKET -u LISTEN_FDS -u LISTEN_PID -u LISTEN_FDNAMES \
        sh -c 'echo $$ >"$0/csmd.pid"; exec "$1" --config "$0/csmd.yaml"' "$dir" "$node_build/bin/csmd" \
        </dev/null >>"$dir/csmd.log" 2>&1 199>&- &
    disown
    node_await 5 test -s "$dir/csmd.pid" || return 1
    pid=$(node_pid "$dir" csmd)
    node_await 30 node_serves_or_gone "$dir" "$pid" && ! node_gone "$pid"
}
node_serves_or_gone() {
    node_gone "$2" || node_status "$1" >/dev/null 2>&1
}
node_status() {
    CSM_SOCKET=$(node_value "$1" socket) CSM_ADMIN_SOCKET=$(node_value "$1" admin_socket) \
        timeout 10 "$node_build/bin/csm" status --json
}
node_broker_pid() {
    node_status "$1" | grep -oE '"pid": *[0-9]+' | grep -oE '[0-9]+$'
}

# SIGTERM, then, 15 s later, SIGKILL; csmd and all that it started are gone when this returns.
node_csmd_stop() {
    local pid
    pid=$(node_pid "$1" csmd)
    [ -n "$pid" ] || return 0
    kill -TERM "$pid" 2>/dev/null || true
    node_await 15 node_gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
    kill -KILL -- "-$pid" 2>/dev/null || true
    node_await 5 node_gone "$pid" || true
    rm -f "$1/csmd.pid"
}
node_swtpm_stop() {
    local pid
    pid=$(node_pid "$1" swtpm)
    [ -n "$pid" ] || return 0
    kill -TERM "$pid" 2>/dev/null || true
    node_await 5 node_gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
    node_await 5 node_gone "$pid" || true
    rm -f "$1/swtpm.pid"
}

# ---- a csm-server beside the node ----

# A number that no account has, for csm-server.
node_server_user() {
    local uid=59151
    while getent passwd "$uid" >/dev/null; do
        uid=$((uid + 1))
    done
    printf '%s' "$uid"
}
node_free_port() {
    /usr/bin/python3 -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])'
}

# Folders and files; on two ports of this machine's own. node_server_make DIR
node_server_make() {
    local dir=$1 server=$1/server tls plain user=
    tls=$(node_free_port)
    plain=$(node_free_port)
    mkdir -p "$server"
    chmod 0755 "$server"
    (umask 077 && mkdir -p "$server/state")
    if [ "$(id -u)" -eq 0 ]; then
        user=$(node_server_user)
        chown "$user:$user" "$server/state"
    fi
    cat >"$server/server.yaml" <<YAML
listen: "127.0.0.1:$tls"
public_listen: "127.0.0.1:$plain"
public_url: http://localhost:$plain
admin_socket: $server/admin.sock
state_dir: $server/state
csmd_socket: $(node_value "$dir" socket)
hostnames: [localhost, 127.0.0.1]
profiles:
  default:
    max_life: 1d
    keys: [p256, p384, p521, ed25519, rsa2048, rsa3072, rsa4096]
    subject: {CN: "*"}
    san: ["dns:**", "ip:0.0.0.0/0", "ip:::/0", "uri:spiffe://example.org/**", "email:.example.org"]
  node: {role: node, max_life: 7d, subject: {CN: "*"}, san: ["dns:**"]}
YAML
    [ -z "$user" ] || printf 'user: "%s"\n' "$user" >>"$server/server.yaml"
    printf 'https://localhost:%s\n' "$tls" >"$server/url"
    printf 'http://localhost:%s\n' "$plain" >"$server/public_url"
}

# Start it; it answers at its local socket when this returns.
node_server_start() {
    local server=$1/server pid
    rm -f "$server/pid"
    setsid env -u NOTIFY_SOCKET sh -c 'echo $$ >"$0/pid"; exec "$1" --config "$0/server.yaml"' "$server" "$node_build/bin/csm-server" \
        </dev/null >>"$server/log" 2>&1 199>&- &
    disown
    node_await 5 test -s "$server/pid" || return 1
    read -r pid <"$server/pid"
    node_await 30 node_server_answers_or_gone "$server" "$pid" && ! node_gone "$pid"
}
node_server_answers_or_gone() {
    node_gone "$2" || { [ -S "$1/admin.sock" ] && node_server_csm "$1" token list >/dev/null 2>&1; }
}
node_server_csm() { # SERVER-DIR ARGUMENT...
    CSM_SERVER='' CSM_SERVER_ADMIN_SOCKET=$1/admin.sock timeout 30 "$node_build/bin/csm" "${@:2}"
}
node_server_stop() {
    local pid=
    { read -r pid <"$1/server/pid"; } 2>/dev/null || return 0
    kill -TERM "$pid" 2>/dev/null || true
    node_await 15 node_gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
    node_await 5 node_gone "$pid" || true
    rm -f "$1/server/pid"
}

# Its authority, the first administrator, and for the node's csmd, which is started again, a profile with a first credential.
# The authority's key is in the csmd of this node. node_server_init DIR
node_server_init() {
    local dir=$1 server=$1/server url
    read -r url <"$server/url"
    node_server_csm "$server" ca init --subject '/O=Example/CN=Example CA' --admin "$server/admin" -o "$server/ca.pem" 2>>"$server/log" ||
        return 1
    # The administrator's key is for whoever runs the command.
    (umask 077 && node_server_csm "$server" token create --profile node --uses 100 --ttl 1d -o "$server/token") || return 1
    if ! grep -qE '^enrolment[[:space:]]*:' "$dir/csmd.yaml"; then
        cat >>"$dir/csmd.yaml" <<YAML
enrolment:
  usage_interval: 5s
  profiles:
    default:
      protocol: cms
      url: $url
      anchors: $server/ca.pem
      token: "file:$server/token"
      names: ["*"]
YAML
        node_csmd_stop "$dir"
        node_csmd_start "$dir" || return 1
    fi
}
