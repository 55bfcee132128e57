#!/bin/bash
# Another client of the TPM takes our key out and puts its own at our handle, in the moment before each signature: what comes
# is an error or our own key's signature, never the foreign one's. A client without such care does sign with it.
# bound: 120
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
. "$top/tests/lib/tpmbus.sh"
bus_start
node_csmd_start "$node" || fail "csmd does not start on the bus"
echo data >msg
for k in one two; do
    ok csm key create $k --backend tpm2
    csm key public $k >$k.pem
done
py "$top/tests/lib/foreignkey.py" commands foreign.pem >foreign.commands
is_by() { openssl dgst -sha256 -verify "$1.pem" -signature sig msg >/dev/null 2>&1; }

step "the attack works where nobody looks: a password session signs with what is at the handle"
node_csmd_stop "$node"
bus_tell before 0000015d 1 "$(cat foreign.commands)"
py "$top/tests/lib/foreignkey.py" careless "$bus/sock" msg >sig
is_by foreign || fail "the other client's key did not get to the handle: this test tests nothing"
TSS2_LOG=all+none timeout 20 tpm2_flushcontext -T "$CSM_TPM_TCTI" -t
node_csmd_start "$node" || fail "csmd does not start again"

step "csmd: each signature once under attack, and all of them"
errors=0
for turn in $(seq "$(count 10 200)"); do
    k=one
    [ $((turn % 2)) -eq 0 ] || k=two
    bus_tell before 0000015d $((1 + turn % 3)) "$(cat foreign.commands)"
    rm -f sig
    if csm --timeout 1 sign $k msg -o sig 2>err; then
        is_by foreign && fail "the foreign key has signed"
        is_by $k || fail "a signature that is not $k's"
    else
        errors=$((errors + 1))
    fi
    bus_tell clear '*'
    # else the TPM is full of them soon
    TSS2_LOG=all+none timeout 20 tpm2_flushcontext -T "$CSM_TPM_TCTI" -t || true
done
grep -q '^0x00000167 0x00000000' "$bus/bus.log" || fail "the foreign key was never loaded"
[ "$(bus_count 00000167)" -ge 10 ] || fail "the attack was not made"
signs() { timeout 20 csm sign one msg -o sig 2>/dev/null && is_by one; }
node_await 10 signs || fail "no signature after the attack"
step "$errors errors"
