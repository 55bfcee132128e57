#!/bin/bash
# csm-server's database is killed, and loses its power with whatever part of the unsynced writes, at random moments under
# issuance: each certificate and revocation that was answered is there, no token was used twice, none is spent without its
# certificate. And this test would notice a sync that is left out.
# bound: 120
# release only
# bound-long: 1200
. "$(dirname "$0")/../lib/system.sh"
work=$(mktemp -d)
pid=''
trap '[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
needs_preload powercut
dbload=$node_build/tests/system/dbload
seed=${CSM_SEED:-$RANDOM}
step "seed $seed (CSM_SEED)"
RANDOM=$seed
preload() { # DEAF load|small
    env LD_PRELOAD="$node_build/tests/fault/powercut.so" CSM_POWERCUT_DIR="$work/db" CSM_POWERCUT_LOG="$work/cuts" \
        CSM_POWERCUT_AT="$at" CSM_POWERCUT_DEAF="$1" "$dbload" --broker "$2" "$work/db" "$work/told" "$round" 2>load.err &
    pid=$!
}
powercut() { py "$top/tests/lib/powercut.py" "$work/cuts" "$@"; }
verified() { "$dbload" verify db told >verified 2>verified.err; }
ended() { # it has to be ended by a signal
    local status=0
    wait "$pid" 2>/dev/null || status=$?
    pid=''
    [ "$status" -gt 128 ] || { cat load.err >&2 && fail "the load ended by itself: $status"; }
}

# ---- kill -9 ------------------------------------------------------------------
rounds=$(count 10 100)
touch told
for round in $(seq "$rounds"); do
    "$dbload" load db told "$round" 2>load.err &
    pid=$!
    sleep "0.$((RANDOM % 25 + 5))"
    kill -9 "$pid"
    ended
    [ -e db/data.mdb ] || continue
    verified || { cat verified.err >&2 && fail "kill -9, round $round, seed $seed"; }
done
step "$rounds kills: $(cat verified)"
[ "$(wc -l <told)" -gt "$rounds" ] || fail "too little was answered"

# ---- power ----------------------------------------------------------------------
rm -rf db told
: >told
: >replays
for round in $(seq "$rounds"); do
    at=$((round % 3 == 0 ? RANDOM % 12 + 1 : RANDOM % 600 + 1))
    preload '' "$([ $((round % 4)) -eq 0 ] && echo small || echo load)"
    ended
    powercut any $((RANDOM * 32768 + RANDOM)) >>replays
    verified || { tail -n 1 replays >&2 && cat verified.err >&2 && fail "power cut, round $round, at $at, seed $seed"; }
done
step "$rounds power cuts: $(cat verified)"
grep -qE 'taken back [1-9]' replays || fail "nothing was ever taken back"
[ "$(wc -l <told)" -gt "$rounds" ] || fail "too little was answered"

# ---- a sync left out is noticed ------------------------------------------------------
for kind in sync dsync; do
    for try in 1 2 3 4 5 6 7; do
        rm -rf db
        : >told
        round=$try
        at=0
        "$dbload" load db told 0 2>load.err &
        pid=$!
        sleep 0.1
        kill -9 "$pid"
        ended
        at=$((RANDOM % 400 + 200))
        # The journal has none of the second kind, and makes up for LMDB's.
        preload $kind "$([ $kind = sync ] && echo load || echo small)"
        ended
        powercut all "$try" >>replays
        if ! verified; then
            step "without the syncs of kind $kind: noticed in round $try"
            continue 2
        fi
    done
    fail "syncs of kind $kind were left out, and nothing was noticed"
done
