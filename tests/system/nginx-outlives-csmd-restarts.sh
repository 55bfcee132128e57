#!/bin/bash
# nginx with keys of the node, under traffic: while csmd is away handshakes fail, and from the moment it serves again each
# one works, with no word to nginx; a broker that is killed costs nothing that began after it is back; reloads of nginx
# drop no handshake and leave nothing behind, neither in nginx nor in csmd.
# bound: 240
# bound-long: 3600
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/programs.sh"
in_node --backend tpm2
front_ends
engine_too "$p11_module"
make_ca ca
policy <<YAML
version: 1
identities: {admin: {uid: 0}, web: {user: www-data}}
rules:
  - {allow: ["key.*"], to: [admin], on: ["web:*"]}
  - {allow: [key.list, key.show, key.public, cert.get, key.sign], to: [web], on: ["web:*"]}
YAML
ports=()
for backend in soft tpm2; do
    csm key create web:$backend --backend $backend >/dev/null
    csm csr web:$backend --subject "/CN=$backend" --san dns:localhost >$backend.csr
    issue ca $backend.csr $backend.crt
    csm key reference web:$backend >$backend.pem
    for form in "$work/$backend.pem" "engine:pkcs11:pkcs11:token=web;object=$backend;type=private"; do
        port=$(free_port)
        ports+=("$port")
        echo "server { listen 127.0.0.1:$port ssl; ssl_certificate $work/$backend.crt; ssl_certificate_key \"$form\"; }"
    done
done >servers.conf
mkdir -p nginx/html
: >nginx/html/index.html
nginx_config www-data <servers.conf
nginx_start "${ports[0]}"

step "workers that never signed meet a csmd that is away: no hand is shaken, and they go on when it is back"
node_csmd_stop "$node"
for port in "${ports[@]}"; do
    expect_exit 35 curl -sS --max-time 10 --cacert ca.pem "https://localhost:$port/"
done
step "a reload while csmd is away changes nothing"
workers=$(nginx_workers | sort | xargs)
kill -HUP "$nginx_pid"
node_await 10 grep -q 'emerg.*cannot load certificate key' nginx/error.log || fail "no word of it: $(tail nginx/error.log)"
expect_equal "the workers" "$(nginx_workers | sort | xargs)" "$workers"
node_csmd_start "$node" || fail "csmd does not start"
for port in "${ports[@]}"; do
    ok curl -sS --max-time 10 --cacert ca.pem "https://localhost:$port/"
done

# traffic NAME / quiet: handshakes on all ports in turn, by two callers, written down in NAME.1 and NAME.2.
traffic() {
    local i
    callers=()
    mkfifo "$1.end"
    for i in 1 2; do
        /usr/bin/python3 "$top/tests/lib/handshakes.py" ca.pem "${ports[@]}" <"$1.end" >"$1.$i" &
        callers+=($!)
    done
    exec 9>"$1.end"
}
quiet() {
    local pid
    echo >&9
    exec 9>&-
    for pid in "${callers[@]}"; do
        node_await 30 node_gone "$pid" || fail "a caller hangs"
    done
}
now() { date +%s%N; }
lines() { cat "$1".[12] | wc -l; }
# so_many_more FILES COUNT: waits for that many handshakes more, of each caller.
so_many_more() {
    local before
    before=$(lines "$1")
    node_await 60 more_than "$1" $((before + $2))
}
more_than() { [ "$(lines "$1")" -gt "$2" ]; }
has_failed() { cat "$1".[12] | contains -vE ' ok$'; }
# works FILES FROM TO: each handshake that began and ended between those times worked, and there were some.
works() {
    cat "$1".[12] | awk -v from="$2" -v to="$3" '
        $1 > from && $2 < to { n++; if ($3 != "ok") { print "begun " ($1 - from) / 1e9 " s after: " $0; bad = 1 } }
        END { if (n < 8) print "only " n + 0 " handshakes"; exit bad || n < 8 }' || fail "$1: a handshake failed"
}
all_workers() { nginx_workers | sort | xargs; }

step "csmd restarted: what begins when it serves again works, and nginx is told nothing"
workers=$(all_workers)
begin=$(now)
traffic away
so_many_more away 40 || fail "no traffic"
down=$(now)
node_csmd_stop "$node"
node_await 20 has_failed away || fail "handshakes work without csmd"
node_csmd_start "$node" || fail "csmd does not start"
up=$(now)
so_many_more away 80 || fail "no traffic after the restart"
quiet
works away "$begin" "$down"
works away "$up" "$(now)"
expect_equal "the workers" "$(all_workers)" "$workers"

step "the broker killed: what begins when csmd serves again works"
for round in $(seq "$(count 2 50)"); do
    begin=$(now)
    traffic "killed$round"
    so_many_more "killed$round" 20 || fail "no traffic"
    kill -KILL "$(node_broker_pid "$node")"
    node_await 20 node_status "$node" >/dev/null 2>&1 || fail "no broker"
    up=$(now)
    so_many_more "killed$round" 20 || fail "no traffic after it"
    quiet
    works "killed$round" "$up" "$(now)"
done
expect_equal "the workers" "$(all_workers)" "$workers"

reload() { py "$top/tests/system/nginx_reloads.py" "$nginx_pid" "$1"; } # ROUNDS
descriptors() { find "/proc/$nginx_pid/fd" -mindepth 1 | wc -l; }

step "reloads under traffic drop no handshake"
begin=$(now)
traffic reloads
for _ in $(seq 5); do
    reload 1 >/dev/null
    so_many_more reloads 8 || fail "no traffic"
done
quiet
works reloads "$begin" "$(now)"

step "reloads leave nothing behind"
before=$(descriptors)
connections=$(status_field connections)
reload "$(count 20 10000)" >memory
read -r quarter whole <memory
expect_equal "descriptors of the master" "$(descriptors)" "$before"
now_connections=$(status_field connections)
[ "$now_connections" -le $((connections + 4)) ] || fail "csmd has $now_connections connections, it had $connections"
[ -z "${CSM_LONG:-}" ] || [ "$whole" -le $((quarter + 1024)) ] || fail "nginx grows: $quarter KiB, then $whole KiB"
traffic after
so_many_more after 16 || fail "no traffic"
quiet
works after 0 "$(now)"
stop
