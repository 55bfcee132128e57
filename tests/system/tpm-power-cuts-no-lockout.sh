#!/bin/bash
# 20 power cuts of the TPM in use leave its lockout counter at 0, and the keys as they were.
# bound: 180
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
ok csm key create k --backend tpm2
csm key public k >pub.pem
echo data >msg
signs() { timeout 20 csm sign k msg -o sig 2>/dev/null && openssl dgst -sha256 -verify pub.pem -signature sig msg >/dev/null; }
for cut in $(seq 20); do
    node_await 10 signs || fail "no signature before cut $cut"
    pid=$(node_pid "$node" swtpm)
    kill -9 "$pid"
    node_await 5 node_gone "$pid"
    node_swtpm_start "$node" || fail "swtpm does not start"
done
node_await 10 signs || fail "no signature after the cuts"
expect_equal "lockout counter" "$(status_field tpm.lockout_counter)" 0
expect_equal "lockout" "$(status_field tpm.lockout)" false
