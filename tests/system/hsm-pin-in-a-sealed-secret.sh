#!/bin/bash
# An HSM's PIN may be a secret of csm's own: without it the back end is away and csmd is not; a wrong one is tried once, whatever
# starts anew; a new version of the secret is another PIN, and the HSM is there without a restart.
# bound: 90
if [ -z "${CSM_TEST_INSIDE:-}" ]; then
    folder=$(mktemp -d "${TMPDIR:-/tmp}/csm-pin.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
    chmod 755 "$folder"
    mkdir -p "$folder/box/tokens"
    printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' "$folder/box/tokens" >"$folder/box.conf"
    chown -R 59113:59113 "$folder/box"
    SOFTHSM2_CONF=$folder/box.conf setpriv --reuid 59113 --regid 59113 --clear-groups \
        softhsm2-util --init-token --free --label box --pin 471147 --so-pin 123456 >/dev/null
    cat >"$folder/csmd.yaml" <<YAML
backends:
  default: soft
  box:
    type: pkcs11
    user: "59113"
    module: /usr/lib/softhsm/libsofthsm2.so
    token: "pkcs11:token=box"
    pin: "secret:ops:hsm/login/pin"
    environment: {SOFTHSM2_CONF: $folder/box.conf}
    read: [$folder/box.conf]
    write: [$folder/box]
YAML
    "$(dirname "$0")/../../scripts/with-node.sh" --backend soft --config "$folder/csmd.yaml" -- \
        env CSM_TEST_INSIDE="$(realpath "$0")" "$0"
    exit
fi
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
policy <<YAML
version: 1
default: uid-namespaces
identities: {admin: {uid: 0, user: root}}
rules: [{allow: ["domain.*", "secret.*"], to: [admin], on: ["ops:*"]}]
YAML

state() { csm --json status | python3 -c 'import json, sys; print(*[b["state"] for b in json.load(sys.stdin)["backends"] if b["name"] == "box"])'; }
why() { csm --json status | python3 -c 'import json, sys; print(*[b["reason"] for b in json.load(sys.stdin)["backends"] if b["name"] == "box"])'; }
ready() { [ "$(state)" = ready ]; }
refusals() { grep -c 'box: the PIN was refused' "$node/csmd.log" || true; }
process() { pgrep -P "$(node_pid "$node" csmd)" -f "^csm-plughost: box "; }
refused_once() { [ "$(refusals)" -ge 1 ]; }

step "no such secret: the back end is away, all else is there"
sleep 1.5
ready && fail "box is there without a PIN"
expect_exit 6 csm key create k --backend box
ok csm key create other --backend soft
expect_equal "refusals" "$(refusals)" 0
[[ $(why) == *PIN* ]] || fail "status does not tell why it is away: $(why)"

step "a wrong PIN is tried once: not again by itself, by a new process, or by a new csmd"
ok csm domain create ops:hsm
printf 000000 | ok csm secret set ops:hsm/login pin=-
node_await 10 refused_once || fail "the PIN was not tried"
sleep 2
kill -9 "$(process)"
sleep 1.5
kill9 broker "the broker"
sleep 2.5
ready && fail "box is there with a wrong PIN"
[[ $(why) == *refused*PIN* ]] || fail "status does not tell that the PIN was refused: $(why)"
expect_equal "refusals" "$(refusals)" 1

step "the right one: there at once"
printf 471147 | ok csm secret set ops:hsm/login pin=-
node_await 10 ready || fail "box is not there: $(csm status)"
ok csm key create k --backend box
echo message >m
ok csm sign k m -o sig

step "what is in the device is taken into use by the administrator alone, not by whoever may make keys"
expect_exit 3 csm --socket "$CSM_SOCKET" key create taken --backend box --existing 'pkcs11:type=private'
grep -q 'role' err || fail "$(cat err)"
expect_exit 3 as_uid $uid_a csm --socket "$CSM_SOCKET" key create taken --backend box --existing 'pkcs11:type=private'
expect_exit 1 csm key create uid-0:taken --backend box --existing 'pkcs11:type=private' --alg p256

step "and after a new start"
kill9 broker "the broker"
node_await 10 ready || fail "box is not there after a start"
ok csm sign k m -o sig
! grep -q -e 471147 -e 000000 "$node/csmd.log" || fail "a PIN is in the log"
