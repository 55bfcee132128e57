#!/bin/bash
# kill -9 of the broker, and of the supervisor with it, at random moments under writes: every acknowledged key and
# secret is there and works, none is half there, and what was deleted stays deleted.
# bound: 240
# bound-long: 2400
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

cat >writer.py <<'PY'
"""Write until the connection ends; print what was acknowledged, and what was in the air when it ended."""
import sys
from csmwire import Conn, Closed, Refused
tag, worker = sys.argv[1], sys.argv[2]
conn, n = Conn(), 0
def say(*words):
    print(*words, flush=True)
def do(kind, name, method, params):
    say("try", kind, name)
    conn.call(method, params)
    say("done", kind, name)
try:
    while True:
        name = "%s-%s-%d" % (tag, worker, n)
        do("key", name, "key.create", {"key": name, "alg": "p256" if n % 2 else "ed25519"})
        do("secret", name, "secret.set", {"secret": "d/" + name,
                                          "pairs": [{"name": "a", "value": name.encode()},
                                                    {"name": "b", "value": name.encode() * (1 + n % 7 * 300)}]})
        if n % 3 == 2:
            do("nokey", name, "key.delete", {"key": name})
            do("nosecret", name, "secret.delete", {"secret": "d/" + name})
        n += 1
except (Closed, ConnectionError, Refused) as end:
    if isinstance(end, Refused) and end.name not in ("shutdown", "unavailable"):
        raise
PY
cat >verify.py <<'PY'
"""Everything that was acknowledged is as it was said; what was in the air is whole or absent."""
import glob
from csmwire import Conn, Refused, openssl_verifies
conn = Conn()
def secret(name):
    try:
        return {p["name"]: p["value"] for p in conn.call("secret.get", {"secret": "d/" + name})["pairs"]}
    except Refused as refusal:
        assert refusal.name == "not_found", (name, refusal)
        return None
def key(name):
    try:
        return conn.call("key.show", {"key": name})
    except Refused as refusal:
        assert refusal.name == "not_found", (name, refusal)
        return None
checked = verified = 0
for path in glob.glob("writes.*"):
    state, air = {}, {}
    for line in open(path):
        words = line.split()
        if len(words) != 3 or not line.endswith("\n"):
            continue
        what, kind, name = words
        thing = (kind.replace("no", ""), name)
        if what == "try":
            air[thing] = kind
        else:
            air.pop(thing, None)
            state[thing] = not kind.startswith("no")
    for (kind, name), there in state.items():
        if (kind, name) in air:
            continue
        checked += 1
        found = secret(name) if kind == "secret" else key(name)
        assert (found is not None) == there, (kind, name, there, found)
    for (kind, name) in list(state) + list(air):
        if kind == "secret":
            value = secret(name)
            if value is not None:
                assert value["a"] == name.encode() and set(value) == {"a", "b"}, (name, value)
                assert value["b"][:len(name)] == name.encode() and len(value["b"]) % len(name) == 0
        elif key(name) is not None:
            answer = conn.call("key.sign", {"key": name, "message": b"still mine"})
            if verified % 10 == 0 and answer["scheme"] == "ecdsa-sha256":
                spki = conn.call("key.public", {"key": name})["spki"]
                assert openssl_verifies(spki, answer["signature"], b"still mine"), name
            verified += 1
    # What a whole round wrote need not be looked at again.
print("acknowledged:", checked, "keys that sign:", verified)
assert checked > 0
PY
ok csm domain create d
rounds=$(count 20 200)
total=0
for round in $(seq "$rounds"); do
    rm -f writes.*
    writers=()
    for worker in 1 2 3 4; do
        py writer.py "r$round" $worker >"writes.$worker" 2>"writer.$worker.err" &
        writers+=($!)
    done
    node_await 10 test -s writes.1 || fail "the writers do not write"
    sleep "0.$((RANDOM % 60 + 10))"
    broker=$(node_broker_pid "$node")
    if [ $((round % 4)) -eq 0 ]; then
        supervisor=$(node_pid "$node" csmd)
        kill -9 "$supervisor" "$broker"
        node_await 10 node_gone "$supervisor" || fail "the supervisor lives"
        node_await 10 node_gone "$broker" || fail "the broker lives"
        node_csmd_start "$node" || { tail -5 "$node/csmd.log" >&2 && fail "csmd does not start again, round $round"; }
    else
        kill -9 "$broker"
        node_await 10 node_gone "$broker" || fail "the broker lives"
        node_await 20 node_status "$node" >/dev/null || fail "the broker is not started again, round $round"
    fi
    for pid in "${writers[@]}"; do
        wait "$pid" || { cat writer.*.err >&2 && fail "a writer, round $round"; }
    done
    py verify.py >verified || { cat verified >&2 && fail "round $round"; }
    total=$((total + $(sed -nE 's/^acknowledged: ([0-9]+).*/\1/p' verified)))
done
step "$rounds rounds, $total acknowledged writes looked at"
