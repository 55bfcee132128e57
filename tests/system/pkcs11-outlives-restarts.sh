#!/bin/bash
# The PKCS#11 module loads and starts without csmd, sees it come, and goes on with its sessions and keys after a restart.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

probe() { "$node_build/tests/system/p11_probe" "$node_build/lib/pkcs11/csm-pkcs11.so" - "$@"; }
ok csm key create tls

step "no csmd: no token, and no failure"
expect_equal "no csmd" "$(CSM_SOCKET=$work/none probe tokens | tr '\n' ' ')" "tokens: 0x0 "

step "it goes, and comes back, under a program that has loaded the module"
: >"$work/probe"
probe sign tls pause "$work/down" sign-again tokens pause "$work/up" sign-again sign tls list >>"$work/probe" &
pid=$!
node_await 20 grep -q 'sign: 0x0' "$work/probe" || fail "no signature"
node_csmd_stop "$node"
touch "$work/down"
node_await 20 grep -q 'tokens:' "$work/probe" || fail "it hangs without csmd"
node_csmd_start "$node" || fail "csmd does not start"
touch "$work/up"
wait "$pid" || fail "the probe failed"
mapfile -t lines < <(sed 's/^ *//' "$work/probe")
expect_equal "signatures" "${lines[0]}, ${lines[1]}" "sign: 0x0, pause: 0x0"
[[ ${lines[2]} = sign-again:* && ${lines[2]} != "sign-again: 0x0" ]] || fail "signed without csmd"
expect_equal "without csmd there is no token" "${lines[3]}" "tokens: 0x0"
expect_equal "after the restart" "${lines[*]:4}" "pause: 0x0 sign-again: 0x0 sign: 0x0 tls list: 0x0"
