#!/bin/bash
# The TPM over tpm2-abrmd, beside another client of it: keys sign and are attested, and go on when tpm2-abrmd was restarted.
# bound: 120
. "$(dirname "$0")/../lib/system.sh"
self=$top/tests/system/tpm-over-tpm2-abrmd.sh

# A bus and a resource manager of the test's own, then this script again, inside a node.
if [ -z "${CSM_TEST_BUS:-}" ]; then
    in_node --backend soft
    node_swtpm_start "$work" || fail "no swtpm"
    dbus-daemon --session --nofork --nopidfile --address="unix:path=$work/bus" </dev/null >bus.log 2>&1 &
    bus=$!
    export DBUS_SESSION_BUS_ADDRESS=unix:path=$work/bus CSM_TEST_BUS=$work
    node_await 10 test -S "$work/bus" || fail "no bus"
    cat >abrmd.sh <<'SH'
echo $$ >"$CSM_TEST_BUS/abrmd.pid"
exec tpm2-abrmd --session --allow-root --tcti="swtpm:path=$CSM_TEST_BUS/tpm/sock" </dev/null >>"$CSM_TEST_BUS/abrmd.log" 2>&1
SH
    stop() {
        kill -TERM "$(cat abrmd.pid)" 2>/dev/null || true
        kill -TERM "$bus" 2>/dev/null || true
        node_swtpm_stop "$work"
    }
    trap stop EXIT
    setsid sh abrmd.sh &
    disown
    other() { timeout 20 tpm2_getrandom -T tabrmd:bus_type=session --hex 8 >/dev/null 2>&1; }
    node_await 20 other || { cat abrmd.log >&2 && fail "no tpm2-abrmd"; }
    CSM_TPM_TCTI=tabrmd:bus_type=session timeout 90 "$top/scripts/with-node.sh" --backend tpm2 -- "$self"
    exit
fi

work=$CSM_TEST_BUS node=$CSM_NODE_DIR
cd "$work"
expect_equal device "$(status_field tpm.device) $(status_field tpm.shared)" "tabrmd:bus_type=session true"
for alg in p256 rsa2048; do
    ok csm key create k$alg --alg $alg
    ok csm key public k$alg -o k$alg.pem
done
signs() { # a signature of each, by turns, that openssl takes
    for alg in p256 rsa2048; do
        csm sign k$alg "$self" -o sig || return
        openssl dgst -sha256 -verify k$alg.pem -signature sig "$self" >/dev/null || fail "a wrong signature of k$alg"
    done
}
for _ in 1 2 3; do
    signs || fail "no signature"
    timeout 20 tpm2_createprimary -T tabrmd:bus_type=session -C o -c prim.ctx >/dev/null 2>&1 || fail "the other client"
done
# The connection is kept, and with it session and key: one command a signature.
ok csm sign kp256 "$self" -o sig
before=$(status_field tpm.commands)
for _ in 1 2 3 4 5 6 7 8; do ok csm sign kp256 "$self" -o sig; done
expect_equal "commands of 8 signatures" $(($(status_field tpm.commands) - before)) 8
ok csm key attest kp256 --nonce 00 -o k.att
ok csm attest verify k.att --nonce 00 --key kp256.pem --unproven
ok csm attest challenge k.att --secret-file s -o c
ok csm attest activate c -o p
ok csm attest verify k.att --secret-file s --proof p --unproven

step "tpm2-abrmd is killed, and comes back"
kill -KILL "$(cat abrmd.pid)"
expect_exit 6 csm sign kp256 "$self" -o sig
setsid sh abrmd.sh &
disown
back() { signs 2>/dev/null; }
node_await 20 back || fail "the keys do not sign again"

