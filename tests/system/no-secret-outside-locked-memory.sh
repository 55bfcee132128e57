#!/bin/bash
# After a session with everything that csmd does, no root key, no key-encryption key, no private number and no secret value
# is in the state folder, in the logs, or in the memory of csmd's processes, but for memory that is locked and left out of
# core files; also while requests are being served; and a minute after its last use no private number of a key is
# in memory at all.
# bound: 240
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
. "$top/tests/lib/memory.sh"
umask 077
mkdir keep

step "a session with all algorithms, secrets of several sizes, retries, refusals"
session make
session_foreign
store_needles "$node/rootkey/key" file
for kind in root: subkey: kek: scalar:p256 scalar:p521 d:rsa4096 seed:ed25519 scalar:derive value: pin: shared; do
    grep -q "^$kind" keep/needles || fail "no needle of $kind"
done
session once
everywhere "after the session"

step "the search itself: it finds what is there, in each form"
finds "the root key's file" --files "$node/rootkey"
finds "keys that are loaded" --pid "$CSM_PID"
grep -q '^FOUND: scalar:p256: reversed;' out || fail "not found: the scalar of a P-256 key that was just used"
for state in kek: subkey:scope: subkey:root: subkey:request:; do
    grep -q "^FOUND: $state.*inner-state, outer-state;" out || fail "not found: the states that stand for $state"
done
hex=$(sed -n 's/^kek:[^ ]* //p' keep/needles | sed -n 1p)
planted() { # NAME FORM: stdin is such a file
    cat >keep/planted
    finds "$1" --files "$work/keep/planted"
    grep -qE "[:,] $2[,;]" out || fail "not found: $1 as $2"
}
{ head -c 1000 /dev/urandom && xxd -r -p <<<"${hex:6:32}"; } | planted "16 bytes" raw
printf 'x%s' "${hex:8:32}" | planted "hex" hex
printf '%s' "${hex^^}" | planted "HEX" HEX
{ printf 'ab' && xxd -r -p <<<"$hex"; } | base64 -w 0 | planted "base64" base64
grep -q 'planted' keep/needles && fail "the file of needles was searched"
/usr/bin/python3 -c 'import sys, time
held = [bytes.fromhex(line.split()[1])[::-1] for line in open("keep/needles") if line.startswith("scalar:p256 ")]
print("ready", flush=True)
time.sleep(100)' >ready &
holder=$!
node_await 10 grep -q ready ready || fail "the process that holds a key does not start"
finds "a number in another process" --locked-ok --pid "$holder"
grep -q 'scalar:p256: .*reversed' out || fail "not found: the number in the other process"
kill "$holder"

step "while it is served: stopped at $(count 20 200) moments under load"
session load "$(count 8 60)" >load.log 2>&1 &
load=$!
for ((i = 0; i < $(count 20 200); i++)); do
    search "under load, moment $i" --locked-ok --pid "$CSM_PID"
    sleep 0.0$((RANDOM % 10))
done
wait "$load" || { cat load.log >&2; fail "the load"; }
everywhere "after the load"

step "after a start on a store that is there"
restart
everywhere "after the start"
session once
unused_since=$SECONDS
everywhere "after use"

step "a minute after its last use no key is in memory, locked or not"
while [ $((SECONDS - unused_since)) -lt 63 ]; do
    sleep 0.5
done
# The store's own keys stay, in locked memory.
search "idle: the store's keys" --locked-ok --pid "$CSM_PID"
cp keep/needles keep/all
grep -vE '^(kek|subkey):' keep/all >keep/needles
search "idle" --pid "$CSM_PID"
session once
finds "keys that were used again" --pid "$CSM_PID"
cp keep/all keep/needles

step "what was deleted is gone at once"
session delete
timeout 60 "$top/build/tests/system/bytesearch" keep/needles --pid "$CSM_PID" >out || true
for gone in scalar:p256 scalar:p521 d:rsa3072 seed:ed25519 value: pin:; do
    grep -q "$gone" out && fail "$gone is in memory after its deletion"
done
everywhere "after the deletions"
