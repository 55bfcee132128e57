#!/bin/bash
# Who listens at the socket's path and is neither root nor the caller is sent nothing by the PKCS#11 module, and shows it no
# token; one that is the caller's own gets its question.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

cp "$node_build/lib/pkcs11/csm-pkcs11.so" "$node_build/tests/system/p11_probe" "$node/bin/"

# Listens at PATH as UID; writes what it was sent to FILE. Ends when FILE.end is there.
server() { # UID PATH FILE
    : >"$3" && chmod 0666 "$3"
    as_uid "$1" /usr/bin/python3 -c '
import os, select, socket, sys, time
path, out = sys.argv[1:]
s = socket.socket(socket.AF_UNIX)
s.bind(path)
os.chmod(path, 0o777)
s.listen(16)
end = time.time() + 60
peers = []
while time.time() < end and not os.path.exists(out + ".end"):
    for r in select.select([s] + peers, [], [], 0.05)[0]:
        if r is s:
            peers.append(s.accept()[0])
            with open(out + ".accepted", "a") as f:
                f.write("x")
            continue
        data = r.recv(65536)
        with open(out, "ab") as f:
            f.write(data)
        r.close()
        peers.remove(r)
' "$2" "$3" &
    server_pid=$!
    node_await 20 test -S "$2" || fail "the server does not listen"
}
probe() { CSM_SOCKET=$1 as_uid $uid_a timeout 30 "$node/bin/p11_probe" "$node/bin/csm-pkcs11.so" - "${@:2}" | tr '\n' ' '; }

step "another user's server"
server $uid_b "$work/false.sock" "$work/false"
expect_equal "with a false server" "$(probe "$work/false.sock" tokens sign tls)" "tokens: 0x0 sign: 0xe0 "
node_await 10 test -s "$work/false.accepted" || fail "nobody came, so nothing was shown"
touch "$work/false.end"
wait "$server_pid"
[ ! -s "$work/false" ] || fail "the false server was sent $(wc -c <"$work/false") bytes"

step "the caller's own, which shows that bytes would have been seen"
server $uid_a "$work/own.sock" "$work/own"
probe "$work/own.sock" tokens >/dev/null
touch "$work/own.end"
wait "$server_pid"
[ -s "$work/own" ] || fail "the caller's own server was sent nothing"
