#!/bin/bash
# A library that crashes, or hangs, in the midst of 1,000 signatures costs nothing but errors that say "again": another back end's
# signatures go on without one, its keys work again within two seconds of its restart, and none is lost or changed.
# bound: 120
# coverage
if [ -z "${CSM_TEST_INSIDE:-}" ]; then
    folder=$(mktemp -d "${TMPDIR:-/tmp}/csm-plug.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
    cat >"$folder/csmd.yaml" <<'YAML'
backends:
  default: soft
  box: {type: soft, user: "59111", timeout: 1s}
  tin: {type: fake, user: "59112", script: "sign=delay:1ms"}
YAML
    "$(dirname "$0")/../../scripts/with-node.sh" --backend soft --config "$folder/csmd.yaml" -- \
        env CSM_TEST_INSIDE="$(realpath "$0")" "$0"
    exit
fi
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

process() { # NAME: the csm-plughost of that back end
    pgrep -P "$(node_pid "$node" csmd)" -f "^csm-plughost: $1 "
}
ready() { # NAME
    csm --json status | python3 -c '
import json, sys
sys.exit(not any(b["name"] == sys.argv[1] and b["state"] == "ready" for b in json.load(sys.stdin)["backends"]))' "$1"
}
signs() { csm sign "$1" m -o sig 2>/dev/null; }

step "keys in two processes and one in csmd"
node_await 10 ready box || fail "box is not there: $(csm status)"
node_await 10 ready tin || fail "tin is not there"
for name in box tin; do
    ok csm key create "in-$name" --backend "$name"
done
ok csm key create in-csmd --backend soft
ok csm key create in-box-rsa --backend box --alg rsa2048
expect_equal "users" "$(ps -o uid= -p "$(process box),$(process tin)" | sort | xargs)" "59111 59112"
csm key public in-box >before.pem

cat >sign.py <<'PY'
import hashlib, os, signal, subprocess, sys, threading, time
from csmwire import Conn, openssl_verifies

count, deed = int(sys.argv[1]), sys.argv[2]
supervisor = sys.argv[3]

def process():
    found = subprocess.run(["pgrep", "-P", supervisor, "-f", "^csm-plughost: box "], stdout=subprocess.PIPE).stdout.split()
    return int(found[0]) if found else 0

spki = {k: Conn().call("key.public", {"key": k})["spki"] for k in ("in-box", "in-csmd")}
wrong, away, others, done = [], [], [0], threading.Event()
first = process()

def other(key):
    with Conn() as c:
        while not done.is_set():
            try:
                c.call("key.sign", {"key": key, "digest": hashlib.sha256(b"other").digest()})
                others[0] += 1
            except Exception as e:
                wrong.append((key, str(e)))

threads = [threading.Thread(target=other, args=(k,)) for k in ("in-csmd", "in-tin")]
for t in threads:
    t.start()
hurt = back = None
with Conn() as c:
    waiting, made, next_one = {}, 0, 0
    while made < count:
        while next_one < count and len(waiting) < 8:  # always some in hand
            waiting[c.send("key.sign", {"key": "in-box", "digest": hashlib.sha256(b"%d" % next_one).digest()})] = next_one
            next_one += 1
        if hurt is None and made >= count // 2:
            hurt, asked_before = time.monotonic(), next_one
            os.kill(first, {"crash": signal.SIGSEGV, "hang": signal.SIGSTOP}[deed])
        _, msgid, error, result = c.recv()
        i = waiting.pop(msgid)
        if error is not None:
            if not error["retryable"]:
                wrong.append(("in-box", error))
            away.append(error["name"])
            if time.monotonic() - hurt > 15:
                raise SystemExit("in-box did not come back")
            time.sleep(0.01)
            waiting[c.send("key.sign", {"key": "in-box", "digest": hashlib.sha256(b"%d" % i).digest()})] = i
            continue
        made += 1
        if hurt is not None and i >= asked_before and back is None:
            back = time.monotonic() - hurt
        if i % 50 == 0 and not openssl_verifies(spki["in-box"], result["signature"], b"%d" % i):
            wrong.append(("in-box", "the signature %d does not verify" % i))
done.set()
for t in threads:
    t.join()
assert not wrong, wrong[:3]
assert process() not in (0, first), "the process that was hurt is still there"
assert away or deed == "crash", "nobody noticed"  # a crash may fall between two requests
assert set(away) <= {"unavailable", "busy"}, set(away)
assert others[0] > 50, others
# A hang is told after the timeout of one second; then as a crash.
assert back is not None and back < (2 if deed == "crash" else 5), back
print("  away for %.0f ms, %d errors, %d signatures elsewhere" % (back * 1000, len(away), others[0]))
PY
for deed in crash hang; do
    step "a $deed"
    py sign.py 1000 "$deed" "$(node_pid "$node" csmd)" || fail "signatures around a $deed"
done

step "the same keys, the same broker, and errors that a command tells by its status"
csm key public in-box >after.pem
expect_same "the public key" before.pem after.pem
expect_equal "the broker" "$(node_broker_pid "$node")" "$CSM_PID"
echo message >m
for key in in-box in-box-rsa in-tin in-csmd; do
    ok csm sign "$key" m -o sig
done
kill -STOP "$(process box)"
expect_exit 6 csm sign in-box m -o sig
node_await 10 signs in-box || fail "in-box after it was stopped"

step "six times in a row: it is started ever later, and still comes back by itself"
for _ in 1 2 3 4 5 6; do
    pid=$(process box) && kill -SEGV "$pid"
    sleep 0.2
done
node_await 10 ready box || fail "box does not come back"
node_await 5 signs in-box || fail "in-box after six crashes"

step "the broker dies: its helpers go, and the next one has its own"
old=$(process box)
kill9 broker "helpers"
node_await 10 node_gone "$old" || fail "a csm-plughost outlives its broker"
node_await 10 ready box || fail "box is not there for the next broker"
node_await 5 signs in-box || fail "in-box with the next broker"

step "the broker dies while a library hangs: nobody waits for that one"
old=$(process box)
kill -STOP "$old"
kill9 broker "a hanging helper"
node_await 10 node_gone "$old" || fail "a csm-plughost that hangs outlives its broker"
node_await 10 signs in-box || fail "in-box after that"
