#!/bin/bash
# scripts/with-node.sh keeps its word: stdout is COMMAND's alone, stderr is silent unless it failed, the status is
# COMMAND's, the folder and the user are the caller's, and whatever ends it, no process and no file stays behind.
. "$(dirname "$0")/../lib/system.sh"
work=$(mktemp -d "${TMPDIR:-/tmp}/csm-with.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
# Its nodes go here, so that what is left can be seen.
export TMPDIR=$work/tmp
mkdir -m 1777 "$TMPDIR"
with=$top/scripts/with-node.sh
nothing_left() {
    expect_equal "$1: files left" "$(ls -A "$TMPDIR")" ""
    ! pgrep -f "$TMPDIR/csm-node" >"$work/left" || { ps -fp "$(xargs <"$work/left" | tr ' ' ,)" >&2 && fail "$1: processes left"; }
}
expect_silent() { expect_equal "stderr" "$(cat "$work/err")" ""; }

step "stdout, stderr, status, folder, standard input, umask"
cd "$work"
ok "$with" --backend soft -- bash -c 'pwd; id -u; umask; cat' </etc/hostname
expect_silent
expect_equal stdout "$(cat out)" "$(printf '%s\n0\n%s\n' "$work" "$(umask)" && cat /etc/hostname)"
nothing_left "after success"
expect_exit 7 "$with" --backend soft -- bash -c 'echo out; echo err >&2; exit 7'
expect_equal stdout "$(cat out)" out
grep -q '^err$' err || fail "COMMAND's stderr"
grep -q '^csmd: ' err || fail "csmd's log is not shown after a failure"
nothing_left "after a failure"
expect_exit 137 "$with" --backend soft -- bash -c 'kill -9 $$'
expect_exit 127 "$with" --backend soft -- no-such-command
expect_exit 125 "$with" --backend pkcs11 -- true
expect_exit 125 "$with"
nothing_left "after refusals"

step "the environment, and a node that serves"
ok "$with" --backend soft -- bash -c '
    set -e
    [ -z "${CSM_TPM_TCTI:-}" ]
    [ "$(stat -c %a "$CSM_NODE_DIR")" = 755 ]
    [ "$(stat -c %a "$CSM_NODE_DIR/state")" = 700 ]
    [ "$(readlink /proc/$CSM_PID/exe)" = "$1" ]
    [ "$(setpriv --reuid 59105 --regid 59105 --clear-groups csm whoami --json | grep -c 59105)" -ge 1 ]
    csm --socket "$CSM_ADMIN_SOCKET" whoami >/dev/null
    CSM_SOCKET=$CSM_ADMIN_SOCKET csm status >/dev/null' sh "$(realpath "$node_build/bin/csmd")"
expect_silent

step "with a csm-server beside it: an administrator, and a profile to enrol by"
ok "$with" --backend soft --server -- bash -c '
    set -e
    [ "$(stat -c %a "$CSM_ADMIN_KEY")" = 600 ]
    curl -sS -m 10 --cacert "$CSM_CACERT" --cert "$CSM_ADMIN_CERT" --key "$CSM_ADMIN_KEY" "$CSM_SERVER/v1/cms/certificates" >listed
    csm key create web >/dev/null
    csm cert enrol web --subject /CN=web --san dns:web.example.org >/dev/null
    csm cert show web --pem | openssl verify -CAfile "$CSM_CACERT" >/dev/null'
expect_silent
nothing_left "after a csm-server"
expect_exit 7 "$with" --backend soft --server -- bash -c 'kill -9 $(cat "$CSM_NODE_DIR/server/pid"); exit 7'
grep -q '^csm-server: ' err || fail "the log of csm-server is not shown after a failure"
nothing_left "after a csm-server that was killed"

step "--config is completed, --policy is used"
printf 'limits: {connections_per_uid: 3}\nlog_level: debug\ntpm: {bus_protection: full}' >config.yaml
printf 'version: 1\nidentities:\n  root: {uid: 0}\nrules:\n  - {allow: [key.list], to: [root], on: ["web:"]}\n' >policy.yaml
for backend in soft tpm2; do
    ok "$with" --backend $backend --config config.yaml --policy policy.yaml -- \
        bash -c 'csm key list --namespace web --json && ! csm key create k 2>/dev/null'
    expect_silent
done
printf 'nonsense: 1\n' >config.yaml
expect_exit 125 "$with" --backend soft --config config.yaml -- true
grep -q nonsense err || fail "the fault in the configuration is not shown"
nothing_left "after a bad configuration"

step "signals"
for signal in TERM HUP KILL; do
    rm -f out
    "$with" --backend tpm2 -- bash -c 'echo $CSM_NODE_DIR; trap "exit 0" TERM HUP; sleep 60 & wait' >out 2>err &
    pid=$!
    node_await 20 test -s out || fail "not up"
    kill -$signal $pid
    status=0
    wait $pid || status=$?
    [ $status -ne 124 ] || fail "status"
    folder=$(cat out)
    folder_gone() { [ ! -e "$folder" ]; }
    node_await 30 folder_gone || fail "$signal: $folder is left"
    [ $signal = KILL ] || expect_silent
    nothing_left "after SIG$signal"
done

step "a TPM that is set from outside is used as it is, left running, and free of csm's objects"
export -f node_swtpm_start node_await node_pid node_gone
node_swtpm_start "$work" || fail "swtpm"
for round in 1 2; do
    CSM_TPM_TCTI=swtpm:path=$work/tpm/sock ok "$with" --backend tpm2 -- \
        bash -c 'echo $CSM_TPM_TCTI; csm key create k --backend tpm2 >/dev/null && csm sign k /dev/null >/dev/null'
    expect_equal "round $round" "$(head -n 1 out)" "swtpm:path=$work/tpm/sock"
    for what in handles-transient handles-loaded-session handles-saved-session handles-nv-index; do
        timeout 20 tpm2_getcap -T "swtpm:path=$work/tpm/sock" $what >left || fail "the TPM does not answer"
        [ ! -s left ] || fail "$what: $(cat left)"
    done
done
node_swtpm_stop "$work"
rm -rf "$work/tpm"

step "an ordinary user runs it"
copy=$work/copy
mkdir -p "$copy/build/lib/csm"
cp -r "$top/scripts" "$copy/scripts"
cp -r "$node_build/bin" "$copy/build/bin"
cp -r "$node_build/lib/csm/plugins" "$copy/build/lib/csm/plugins"
chmod -R a+rX "$copy"
cd /
for backend in soft tpm2; do
    ok as_uid $uid_a env -u CSM_BUILD "$copy/scripts/with-node.sh" --backend $backend -- \
        bash -c 'set -e; id -u; csm key create k --json; csm sign k /etc/hostname >/dev/null; csm status'
    expect_silent
    expect_equal "uid" "$(head -n 1 "$work/out")" $uid_a
    grep -q "\"namespace\": \"uid-$uid_a\"" "$work/out" || fail "namespace"
done
cd "$work"
nothing_left "after an ordinary user's"
