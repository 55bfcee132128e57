#!/bin/bash
# kill -9 of csmd in the midst of reseals, and a TPM that fails in each of a reseal's commands: the next start has the root
# key, under the old policy or the new one, and never neither.
# bound: 180
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
. "$top/tests/lib/tpmbus.sh"
umask 077
ok csm domain create d
ok csm secret set d/s k=value
bus_start
opens() {
    node_csmd_start "$node" || fail "csmd does not start $1"
    expect_equal "state $1" "$(status_field state)" ready
    expect_equal "value $1" "$(csm secret get d/s k)" value
}
# Each turn the configuration asks for the other one.
configure() { # TURN
    node_csmd_stop "$node"
    # A session that was begun just before a kill may not be on record yet; a bare TPM has room for three.
    TSS2_LOG=all+none timeout 20 tpm2_flushcontext -T "$CSM_TPM_TCTI" -l
    if [ $(($1 % 2)) -eq 0 ]; then
        sed -i 's|^tpm: .*|tpm: {tcti: "'"$bus_tcti"'", pcrs: [0, 7]}|' "$node/csmd.yaml"
    else
        sed -i 's|^tpm: .*|tpm: {tcti: "'"$bus_tcti"'"}|' "$node/csmd.yaml"
    fi
    opens "$2"
}
step "killed at some moment of a reseal"
cat >keep.py <<'PY'
import os, random, sys, threading, time, csmwire
pid, answered = int(sys.argv[1]), []
conn = csmwire.Conn(csmwire.ADMIN)
def ask():
    try:
        conn.call("reseal")
        answered.append(True)
    except Exception:
        pass
t = threading.Thread(target=ask, daemon=True)
t.start()
# A reseal takes a few milliseconds, on a slow machine some tens.
time.sleep(random.random() * (0.04 if int(sys.argv[2]) & 2 else 0.004))
os.kill(pid, 9)
t.join(10)
sys.exit(0 if answered else 3)
PY
killed=0
for turn in $(seq "$(count 8 60)"); do
    configure "$turn" "before turn $turn"
    broker=$(node_broker_pid "$node")
    py keep.py "$broker" "$turn" || killed=$((killed + 1))
    node_await 10 node_gone "$broker" || fail "the broker lives"
    node_await 20 node_status "$node" >/dev/null || fail "the broker is not started again, turn $turn"
    back() { [ "$(status_field state)" = ready ]; }
    node_await 20 back || fail "no store after turn $turn"
    expect_equal "value" "$(csm secret get d/s k)" value
done
[ "$killed" -gt 0 ] || fail "no reseal was cut off"

step "a failure of the TPM in each command of a reseal"
configure 0 "before the failures"
ok csm reseal
# Load, Unseal, Create, StartAuthSession, PolicyPCR, PolicyGetDigest
for code in 00000157 0000015e 00000153 00000176 0000017f 00000189; do
    for n in 1 3; do
        bus_tell fail "$code" 101 "$n" # TPM_RC_FAILURE
        csm --timeout 5 reseal >out 2>err || true
        grep -q "root key can be had no more" err && fail "the root key is gone after $code"
        bus_tell clear '*'
        expect_equal "value after $code" "$(csm secret get d/s k)" value
    done
    before=$(status_field root_key_state)
    expect_equal "root key after $code" "$before" open
done
node_csmd_stop "$node"
bus_tell clear '*'
opens "after the failures"
ok csm reseal
ok csm audit verify
