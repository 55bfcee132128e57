#!/bin/bash
# The power goes at random moments under writes, and with it whatever part of the unsynced writes: every acknowledged key
# and secret is there and works, none is half there, each serial number that was signed is used, the audit log is whole,
# and the node starts again by itself. So it does when the power goes while it starts, for the first time too. And this
# test would notice a sync that is left out.
# bound: 240
# bound-long: 3000
. "$(dirname "$0")/../lib/system.sh"
backend=${CSM_POWERCUT_BACKEND:-soft}
in_node --backend "$backend"

seed=${CSM_SEED:-$RANDOM}
step "seed $seed (CSM_SEED)"
RANDOM=$seed
. "$top/tests/lib/powercut.sh"
deaf=''

# ---- the first start ---------------------------------------------------------------
node_csmd_stop "$node"
fresh() {
    rm -rf "$node/state/store" "$node/state/audit"
    rm -f "$log"
}
# Some of the first operations; all of them at full counts.
firsts=$(count "1 $((RANDOM % 4 + 2)) $((RANDOM % 6 + 6))" "$(seq -s ' ' 30)")
# Each new store takes a counter of the TPM's few.
[ "$backend" = soft ] || firsts='3 6 9'
for at in $firsts; do
    fresh
    start "$at" || fail "csmd ended by itself"
    if ! cut; then
        # It has fewer.
        kill_all
        break
    fi
    kill_all
    replay >/dev/null
    must_start "first start, power cut at operation $at"
    ok csm key create first
    kill_all
done

# ---- under load ------------------------------------------------------------------
fresh
must_start
ok csm domain create d
ok csm key create stays
printf 'done key stays\n' >always
rounds=$(count 20 200)
[ "$backend" = soft ] || rounds=$(count 4 40)
total=0
: >replays
for round in $(seq "$rounds"); do
    # Two of three at a chosen operation, one of them soon; the others at a moment.
    case $((round % 3)) in
    0) at=0 ;;
    1) at=$((RANDOM % 400 + 1)) ;;
    2) at=$((RANDOM % 30 + 1)) ;;
    esac
    load "r$round" "$at"
    replay >/dev/null
    if [ $((round % 5)) -eq 0 ]; then
        # Once more, while it starts.
        start $((RANDOM % 8 + 1)) || fail "csmd ended by itself, round $round"
        if cut; then
            kill_all
            replay >/dev/null
        else
            kill_all
        fi
    fi
    must_start "round $round"
    verify >verified 2>&1 || { tail -n 5 replays verified >&2 && fail "round $round, seed $seed"; }
    csm audit verify >verified-log 2>&1 || { tail -n 5 replays verified-log >&2 && fail "the audit log, round $round, seed $seed"; }
    # Each change that was acknowledged has its line.
    sed -nE 's/^done (no)?key /uid-0:/p; s/^done (no)?secret /uid-0:d\//p; s/^done serial .*://p' writes.* >wanted
    py "$top/tests/lib/auditlog.py" has "$node/state/audit" wanted >looked 2>&1 ||
        { tail -n 5 replays looked >&2 && fail "a change without its line, round $round, seed $seed"; }
    total=$((total + $(sed -nE 's/^acknowledged: ([0-9]+).*/\1/p' verified)))
done
kill_all
[ "$total" -gt "$rounds" ] || fail "too little was acknowledged"
grep -qE 'taken back [1-9]' replays || fail "nothing was ever taken back"
step "$rounds rounds, $total acknowledged writes looked at"
step "$(awk '{ n = substr($0, index($0, "back ") + 5) + 0; s += n } END { print s }' replays) sectors taken back in $(wc -l <replays) cuts"

# ---- a sync left out is noticed ------------------------------------------------------
# Each kind of sync without effect: within some rounds something acknowledged is lost or the store is refused.
noticed() { # KIND
    local try
    for try in 1 2 3 4 5 6; do
        fresh
        deaf=''
        must_start
        ok csm domain create d
        ok csm key create stays
        kill_all
        rm -f "$log"
        deaf=$1
        must_start
        load "c$try" 0
        replay all >/dev/null
        deaf=''
        if ! start || ! serves || ! timeout 20 env PYTHONPATH="$top/tests/lib" /usr/bin/python3 "$top/tests/lib/writes.py" \
            verify writes.* always >verified 2>&1; then
            step "without the syncs of kind $1: noticed in round $try"
            [ ! -s "$node/csmd.pid" ] || kill -9 -- "-$(node_pid "$node" csmd)" 2>/dev/null || true
            return 0
        fi
        kill_all
    done
    fail "syncs of kind $1 were left out, and nothing was noticed"
}
[ "$backend" = soft ] || exit 0
for kind in all sync dsync; do
    noticed $kind
done
fresh
must_start
