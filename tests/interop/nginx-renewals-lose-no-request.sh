#!/bin/bash
# nginx serves TLS with a key of the node, its certificate from a folder of csm-deliver: while clients open new connections all
# the time, each new certificate is served within five seconds, by csm-deliver's hook alone, and no request fails.
# bound: 150
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/programs.sh"
in_node --backend soft
front_ends
make_ca ca
worker=$(id -u www-data)
folder=$node/tls/web

policy <<YAML
version: 1
identities: {admin: {uid: 0}, web: {uid: $worker}}
rules:
  - {allow: [key.create, key.csr, key.list, key.show, key.public, cert.install, cert.get], to: [admin], on: ["web:*"]}
  - {allow: [key.list, key.show, key.public, cert.get, key.sign], to: [web], on: ["web:*"]}
YAML
ok csm key create web:tls
csm csr web:tls --subject /CN=web --san dns:localhost >web.csr
next=0
renew() { # makes the next certificate, and puts it beside the key
    next=$((next + 1))
    quietly openssl x509 -req -in web.csr -CA ca.pem -CAkey ca.key -days 1 -copy_extensions copy -set_serial "$next" -out web.crt
    cat web.crt ca.pem | csm cert install web:tls - >/dev/null || fail "cert.install $next"
}
renew
port=$(free_port)
mkdir -m 0755 "$node/tls"
cat >"$node/tls/reload" <<SH
#!/bin/sh
export CSM_SOCKET=$CSM_SOCKET OPENSSL_CONF=$openssl_cnf
[ ! -e $work/nginx/pid ] && exit 0
nginx -t -q -p $work/nginx -c $work/nginx/nginx.conf && kill -HUP "\$(cat $work/nginx/pid)"
SH
chmod 0755 "$node/tls/reload"
cat >"$node/deliver.yaml" <<YAML
state_dir: $node/delivered
targets:
  web: {key: "web:tls", folder: $folder, group: www-data, mode: "0640", hook: [$node/tls/reload], deadline: 20s}
YAML
ok csm policy reload
node_await 20 test -s "$folder/fullchain.pem" || fail "nothing was delivered"

step "nginx serves from the folder"
nginx_config www-data <<CONF
server { listen 127.0.0.1:$port ssl; ssl_certificate $folder/fullchain.pem; ssl_certificate_key $folder/key.pem;
    location / { return 200 "ok"; } }
CONF
nginx_start "$port"
served() { # the serial number of what a new connection gets
    echo | timeout 5 openssl s_client -connect "127.0.0.1:$port" -CAfile ca.pem -verify_return_error 2>/dev/null |
        openssl x509 -noout -serial 2>/dev/null | cut -d= -f2
}
is_served() { [ "$((16#$(served || true)0))" -eq "$(($1 * 16))" ]; }
is_served 1 || fail "serial $(served)"

rounds=$(count 5 100)
step "$rounds certificates one after the other, under a load of new connections"
cat >clients.py <<'PY'
import os, socket, ssl, sys, threading

port, ctx = int(sys.argv[1]), ssl.create_default_context(cafile="ca.pem")
asked, failed, lock = [0], [], threading.Lock()

def ask():
    with socket.create_connection(("127.0.0.1", port), 10) as raw, ctx.wrap_socket(raw, server_hostname="localhost") as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        got = b""
        while part := s.recv(4096):
            got += part
        assert got.startswith(b"HTTP/1.1 200") and got.endswith(b"ok"), got

def run():
    while not os.path.exists("stop"):
        try:
            ask()
        except Exception as e:
            with lock:
                failed.append(repr(e))
        with lock:
            asked[0] += 1

threads = [threading.Thread(target=run) for _ in range(4)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(asked[0], "requests")
assert asked[0] > 50, asked
sys.exit("; ".join(failed[:3]) + f" ({len(failed)} in all)" if failed else 0)
PY
/usr/bin/python3 clients.py "$port" >clients.out 2>&1 &
clients=$!
for _ in $(seq "$rounds"); do
    renew
    began=$(date +%s%N)
    node_await 20 is_served "$next" || fail "certificate $next is not served: $(tail -3 nginx/error.log; status_field deliveries)"
    took=$((($(date +%s%N) - began) / 1000000))
    echo "certificate $next after $took ms"
    [ "$took" -lt 5000 ] || fail "certificate $next was served after $took ms"
done
touch stop
wait $clients || { cat clients.out >&2 && fail "requests failed"; }
cat clients.out

step "a certificate that the hook refuses is rolled back, and the one before goes on being served"
cat >"$node/tls/reload" <<'SH'
#!/bin/sh
[ "$CSM_EVENT" = rolled-back ]
SH
renew
failed() { [ "$(status_field deliveries | json 0.state)" = failed ]; }
node_await 20 failed || fail "not failed: $(status_field deliveries)"
is_served $((next - 1)) || fail "serial $(served)"
expect_equal "in the folder" "$((16#$(json serial <"$folder/meta.json")))" $((next - 1))
