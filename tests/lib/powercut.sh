# shellcheck shell=bash
# shellcheck disable=SC2119,SC2120 # start gets what the test gives
# Tests whose broker runs with tests/fault/powercut.c loaded. Sourced after system.sh, inside a node; $backend is its back end.
# $deaf and $eio, if set, go to CSM_POWERCUT_DEAF and CSM_POWERCUT_EIO of the next start.

: "${top:?}" "${node:?}" "${node_build:?}" "${work:?}" "${backend:?}"
needs_preload powercut
log=$work/powercut.log
powercut() { py "$top/tests/lib/powercut.py" "$log" "$@"; }
cut() { [ -s "$log" ] && [ "$(od -An -tu4 -j32 -N4 "$log")" -ne 0 ]; }
serves() { CSM_ADMIN_SOCKET=$node/admin.sock timeout 2 "$node_build/bin/csm" status >/dev/null 2>&1; }
# For node_csmd_start: there is nothing to wait for once the power has gone, or after ten seconds.
node_serves_or_gone() { cut || node_gone "$2" || serves || [ $SECONDS -ge "$deadline" ]; }

# Start csmd with the preload; cut the power at the AT-th operation of the broker, if AT is there.
start() { # [AT]
    deadline=$((SECONDS + 10))
    LD_PRELOAD=$node_build/tests/fault/powercut.so CSM_POWERCUT_DIR=$node/state CSM_POWERCUT_LOG=$log \
        CSM_POWERCUT_AT=${1:-0} CSM_POWERCUT_DEAF=${deaf:-} \
        CSM_POWERCUT_EIO=${eio:-} node_csmd_start "$node"
}
must_start() {
    start || true
    serves || { tail -5 "$node/csmd.log" >&2 && fail "csmd does not start again ($*)"; }
}
# All at once, as power goes.
kill_all() {
    local supervisor broker
    supervisor=$(node_pid "$node" csmd)
    broker=$(powercut pid)
    kill -9 -- "-$supervisor" 2>/dev/null || true
    node_await 10 node_gone "$supervisor" || fail "the supervisor lives"
    node_await 10 node_gone "$broker" || fail "the broker lives"
    [ "$backend" = tpm2 ] || return 0
    # The TPM has lost its power too.
    kill -9 "$(node_pid "$node" swtpm)"
    node_await 5 node_gone "$(node_pid "$node" swtpm)" || fail "swtpm lives"
    node_swtpm_start "$node" || fail "swtpm does not start again"
}
replay() { powercut "${1:-any}" $((RANDOM * 32768 + RANDOM)) | tee -a replays; }

# Write until the power goes: at the AT-th operation, or after a while.
load() { # TAG AT
    local writers
    rm -f writes.*
    py "$top/tests/lib/writes.py" write "$1" 4 2>writers.err &
    writers=$!
    node_await 10 test -s writes.1 || fail "the writers do not write"
    if [ "$2" -gt 0 ]; then
        powercut arm "$2"
        node_await 60 cut || fail "the power did not go"
    else
        sleep "0.$((RANDOM % 30 + 10))"
    fi
    kill_all
    wait "$writers" || { cat writers.err >&2 && fail "a writer, $1"; }
}
verify() { py "$top/tests/lib/writes.py" verify writes.* always; }
