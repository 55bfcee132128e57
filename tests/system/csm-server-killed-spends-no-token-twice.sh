#!/bin/bash
# csm-server is killed, and loses its power with whatever part of the unsynced writes, at random moments while it issues: each
# certificate that was answered is in the inventory, each serial number once, and each token had one, whatever was asked before
# and after. And this test would notice a sync that is left out.
# bound: 120
# bound-long: 1200
# release only
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
needs_preload powercut
# shellcheck source=tests/lib/ca.sh
. "$top/tests/lib/ca.sh"

seed=${CSM_SEED:-$RANDOM}
step "seed $seed (CSM_SEED)"
ca_start 'profiles: {default: {subject: {CN: "*"}, san: ["dns:**"]}}'
# shellcheck disable=SC2119 # nothing more is asked
ca_init
csr web web.example DNS:web.example
ca_stop

rounds() { # SEED KILLS CUTS [SYNC LEFT OUT]
    py "$top/tests/system/issue_rounds.py" "$node_build/bin/csm-server" "$ca/server.yaml" "$ca" "$port" "$1" "$2" "$3" \
        "$node_build/tests/fault/powercut.so" "${@:4}" >"$ca/told" 2>&1
}
rounds "$seed" "$(count 10 100)" "$(count 10 100)" || { tail -n 20 "$ca/told" "$ca/log" >&2 && fail "seed $seed"; }
step "$(tail -n 1 "$ca/told")"
grep -qE 'taken back [1-9]' "$ca/told" || fail "nothing was ever taken back"
ca_stop

cp -a "$ca/state" "$ca/kept"
for try in 1 2 3 4 5 6 7 8; do
    status=0
    rounds $((seed + try)) 0 2 all || status=$?
    ca_stop
    rm -rf "$ca/state" "$ca/cuts"
    cp -a "$ca/kept" "$ca/state"
    [ "$status" -eq 0 ] || break
done
expect_equal "what is said without syncs" "$status" 3
step "without syncs: noticed in try $try: $(tail -n 1 "$ca/told" | head -c 200)"
