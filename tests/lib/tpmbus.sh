# shellcheck shell=bash
# What the tests share that listen on the way to the TPM: sourced after system.sh, inside a node with a swtpm of its own.
#
#   bus_start          csmd is stopped; from its next start on it reaches the TPM through the proxy of tests/lib/tpmproxy.py
#   bus_tell WORD...   make commands fail, see there
#   bus_clean WHAT     nothing of keep/needles may have crossed since bus_start; memory.sh has to be sourced
#   bus_count CODE     how often that command crossed (hexadecimal, 8 digits)
#
# $CSM_TPM_TCTI stays the TPM itself: what other clients do is not recorded. $bus_tcti is the way through the proxy.

: "${top:?}" "${node:?}" "${work:?}"
bus=$node/bus
bus_tcti=swtpm:path=$bus/sock

bus_start() {
    node_csmd_stop "$node"
    mkdir -p "$bus"
    setsid sh -c 'echo $$ >"$0/bus.pid"; exec /usr/bin/python3 -B "$1" serve "$0/bus/sock" "$0/tpm/sock" "$0/bus"' \
        "$node" "$top/tests/lib/tpmproxy.py" </dev/null >>"$bus/log" 2>&1 &
    disown
    node_await 10 test -S "$bus/tell" || { cat "$bus/log" >&2 && fail "the proxy does not start"; }
    node_await 10 test -S "$bus/sock" || fail "the proxy does not listen"
    ln -sf "$node/tpm/sock.ctrl" "$bus/sock.ctrl" # what tpm2-tools want besides
    trap 'bus_stop' EXIT
    sed -i "s|swtpm:path=$node/tpm/sock|$bus_tcti|" "$node/csmd.yaml"
    grep -qF "$bus_tcti" "$node/csmd.yaml" || fail "the configuration does not name the proxy"
}
bus_stop() {
    local pid
    pid=$(node_pid "$node" bus)
    [ -n "$pid" ] || return 0
    kill -9 "$pid" 2>/dev/null || true
    node_await 5 node_gone "$pid" || true
    rm -f "$node/bus.pid"
}
bus_tell() { ok timeout 20 /usr/bin/python3 -B "$top/tests/lib/tpmproxy.py" tell "$bus" "$@"; }
bus_clean() { search "$1: the TPM's bus" --files "$bus/bus.bin"; }
bus_count() { grep -c "^0x$1 " "$bus/bus.log" || true; }
