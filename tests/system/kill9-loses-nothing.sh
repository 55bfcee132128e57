#!/bin/bash
# kill -9 of the broker, and of the supervisor with it, at random moments under writes: every acknowledged key, certificate
# and secret is there and works, none is half there, each serial number that was signed is used, and what was deleted
# stays deleted.
# bound: 240
# bound-long: 2400
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

ok csm domain create d
rounds=$(count 20 200)
total=0
for round in $(seq "$rounds"); do
    rm -f writes.*
    py "$top/tests/lib/writes.py" write "r$round" 4 2>writers.err &
    writers=$!
    node_await 10 test -s writes.1 || fail "the writers do not write"
    sleep "0.$((RANDOM % 60 + 10))"
    kill9_turn "$round"
    wait "$writers" || { cat writers.err >&2 && fail "a writer, round $round"; }
    py "$top/tests/lib/writes.py" verify writes.* >verified || { cat verified >&2 && fail "round $round"; }
    total=$((total + $(sed -nE 's/^acknowledged: ([0-9]+).*/\1/p' verified)))
done
step "$rounds rounds, $total acknowledged writes looked at"
