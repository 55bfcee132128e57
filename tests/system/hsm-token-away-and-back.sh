#!/bin/bash
# Keys in an HSM: a token that goes away under load costs nothing but errors that say "again", and no key is lost, made
# anew or exchanged when it is back; what csm made is in the token as long as in the store, whenever csmd dies, and what
# others made is never touched; a wrong PIN is tried once, whatever starts anew.
# bound: 150
if [ -z "${CSM_TEST_INSIDE:-}" ]; then
    folder=$(mktemp -d "${TMPDIR:-/tmp}/csm-hsm.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
    chmod 755 "$folder"
    softhsm=/usr/lib/softhsm/libsofthsm2.so
    spy=$(echo /usr/lib/*/pkcs11/pkcs11-spy.so)
    printf 654321 >"$folder/wrong"
    chmod 600 "$folder/wrong"
    mkdir -p "$folder/bad/tokens"
    printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' "$folder/bad/tokens" >"$folder/bad.conf"
    chown -R 59112 "$folder/bad"
    SOFTHSM2_CONF=$folder/bad.conf setpriv --reuid 59112 --regid 0 --clear-groups \
        softhsm2-util --init-token --free --label bad --pin 123456 --so-pin 123456 >/dev/null
    # The command of the README, with another folder and user; its last lines are the back end's section.
    command=$(sed -n 's/^\$ \(bash softhsm.sh .*\) > .*/\1/p' "$(dirname "$0")/../../scripts/examples/hsm/README.md")
    command=${command/\/var\/lib\/csm-hsm/$folder/hsm}
    command=${command/64001/59111}
    (cd "$(dirname "$0")/../../scripts/examples/hsm" && bash -c "$command") >"$folder/made.yaml" 2>"$folder/made.log" ||
        { cat "$folder/made.log"; exit 1; }
    { sed 's/^backends:$/&\n  default: soft/; s/^  hsm:$/  box:/' "$folder/made.yaml"; cat <<YAML; } >"$folder/csmd.yaml"
  bad:
    type: pkcs11
    user: "59112"
    module: $spy
    token: "pkcs11:token=bad"
    pin: "file:$folder/wrong"
    environment: {SOFTHSM2_CONF: $folder/bad.conf, PKCS11SPY: $softhsm, PKCS11SPY_OUTPUT: $folder/bad/calls}
    read: [$folder/bad.conf, $softhsm]
    write: [$folder/bad]
YAML
    HSM_FOLDER=$folder "$(dirname "$0")/../../scripts/with-node.sh" --backend soft --config "$folder/csmd.yaml" -- \
        env CSM_TEST_INSIDE="$(realpath "$0")" "$0"
    exit
fi
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

ready() { # NAME
    csm --json status | python3 -c '
import json, sys
sys.exit(not any(b["name"] == sys.argv[1] and b["state"] == "ready" for b in json.load(sys.stdin)["backends"]))' "$1"
}
signs() { csm sign "$1" m -o sig 2>/dev/null; }
pkcs11() { # as another program of the token's user
    PIN=$(cat "$HSM_FOLDER/hsm/pin") SOFTHSM2_CONF=$HSM_FOLDER/hsm/softhsm2.conf setpriv --reuid 59111 --regid 0 \
        --clear-groups pkcs11-tool --module /usr/lib/softhsm/libsofthsm2.so --login --pin env:PIN "$@" 2>/dev/null
}
objects() { pkcs11 -O | grep -c '^P[a-z]* Key Object'; }
processes() { pgrep -P "$(node_pid "$node" csmd)" -f "^csm-plughost: $1 "; }

step "keys are made in the token, and one that is there is taken over"
node_await 15 ready box || fail "box is not there: $(csm status)"
echo message >m
ok csm key create p256 --backend box
ok csm key create rsa --backend box --alg rsa2048 --use sign
ok pkcs11 --keypairgen --key-type EC:prime256v1 --label theirs --id 07
expect_exit 4 csm key create x --backend box --existing 'pkcs11:token=services;object=none'
ok csm key create taken --backend box --existing 'pkcs11:token=services;object=theirs'
for key in p256 rsa taken; do
    csm sign $key m -o sig
    csm key public $key >$key.pem
    ok openssl dgst -sha256 -verify $key.pem -signature sig m
    expect_equal "protection of $key" "$(csm --json key show $key | json protection)" hsm
done
expect_equal "objects" "$(objects)" 6

cat >load.py <<'PY'
import hashlib, os, sys, time
from csmwire import Conn, openssl_verifies

folder = sys.argv[1]
spki = {k: Conn().call("key.public", {"key": k})["spki"] for k in ("p256", "rsa", "taken")}
away, good, moved, back = [], 0, None, None
began = time.monotonic()
with Conn() as c:
    i = 0
    while back is None or good < back + 60:
        now = time.monotonic() - began
        assert now < 40, "it does not come back"
        if moved is None and good >= 60:
            os.rename(folder + "/tokens", folder + "/elsewhere")
            moved = now
        if moved is not None and back is None and now > moved + 1.5:
            os.rename(folder + "/elsewhere", folder + "/tokens")
            back = good
            returned = now
        key = ("p256", "rsa", "taken")[i % 3]
        message = b"%d" % i
        i += 1
        c.send("key.sign", {"key": key, "digest": hashlib.sha256(message).digest()})
        _, _, error, result = c.recv()
        if error is not None:
            assert error["retryable"], error
            away.append(error["name"])
            time.sleep(0.02)
            continue
        good += 1
        if good % 20 == 0 or (back is not None and good < back + 10):
            assert openssl_verifies(spki[key], result["signature"], message), "a signature of %s" % key
assert away, "nobody noticed"
assert set(away) <= {"unavailable", "busy"}, set(away)
for k in spki:
    assert Conn().call("key.public", {"key": k})["spki"] == spki[k]
print("  %d errors, whole again after %.1f s" % (len(away), time.monotonic() - began - returned))
PY
step "the token's folder is moved away and back under load"
py load.py "$HSM_FOLDER/hsm/softhsm" || fail "signatures around a token that was away"
expect_equal "objects" "$(objects)" 6
for key in p256 rsa taken; do
    node_await 10 signs $key || fail "$key after the token was away"
    ok openssl dgst -sha256 -verify $key.pem -signature sig m
done

step "away when a key is to be made and when one is deleted: nothing is left behind"
mv "$HSM_FOLDER/hsm/softhsm/tokens" "$HSM_FOLDER/hsm/softhsm/elsewhere"
kill "$(processes box)"
sleep 0.5
expect_exit 6 csm key create never --backend box
ok csm key delete rsa
mv "$HSM_FOLDER/hsm/softhsm/elsewhere" "$HSM_FOLDER/hsm/softhsm/tokens"
node_await 10 ready box || fail "box does not come back"
gone() { [ "$(objects)" -eq "$1" ]; }
node_await 10 gone 4 || fail "the deleted key is still in the token: $(objects)"

step "deleting ends what csm made, and nothing else"
ok csm key delete p256
expect_equal "objects" "$(objects)" 2
ok csm key delete taken
expect_equal "objects" "$(objects)" 2

step "csmd is killed while keys are made: token and store have the same ones"
for round in $(seq "$(count 3 20)"); do
    for i in 1 2 3 4 5 6; do
        csm key create "k$round-$i" --backend box >/dev/null 2>&1 || true
    done &
    sleep "0.$((round * 7 % 9 + 1))"
    kill9 broker "creation"
    wait $!
done
node_await 15 ready box || fail "box is not there"
csm --json key list | tr ',' '\n' | contains '"name"' || fail "no key was made at all"
agree() { [ "$(objects)" -eq $((2 + 2 * $(csm --json key list | grep -o '"name"' | wc -l))) ]; }
node_await 15 agree || fail "token: $(objects) objects, store: $(csm key list)"
for key in $(csm key list | awk '{print $1}' | grep -o 'k[0-9]*-[0-9]*'); do
    ok csm sign "$key" m -o sig
done

step "a wrong PIN was tried once, and is not by the next csmd either"
tries() { grep -c '^[0-9]*: C_Login' "$HSM_FOLDER/bad/calls"; }
csm --json status >told
grep -q 'refused the PIN' told || fail "the status does not say it: $(cat told)"
! grep -q 654321 told || fail "the status tells the PIN"
expect_exit 6 csm key create x --backend bad
expect_equal "tries" "$(tries)" 1
kill9 all "PIN"
sleep 2
expect_exit 6 csm key create x --backend bad
expect_equal "tries" "$(tries)" 1
