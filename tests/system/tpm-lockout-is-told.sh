#!/bin/bash
# Dictionary attack lockout of the TPM is told with the time that is left, which goes down; keys sign meanwhile, and
# when it is over that is told too.
# bound: 120
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2

export TPM2TOOLS_TCTI=$CSM_TPM_TCTI
tools() { timeout 30 "$@" >>tools.log 2>&1 || { tail -5 tools.log >&2 && fail "$*"; }; }
ok csm key create k
expect_equal "no lockout" "$(status_field tpm.lockout) $(status_field tpm.lockout_seconds)" "false 0"

step "three wrong guesses of another client's: lockout"
tools tpm2_dictionarylockout -s -n 3 -t 6 -l 6
tools tpm2_createprimary -C o -c prim.ctx
tools tpm2_flushcontext -t
tools tpm2_create -C prim.ctx -G ecc -u da.pub -r da.priv -p right
tools tpm2_flushcontext -t
tools tpm2_load -C prim.ctx -u da.pub -r da.priv -c da.ctx
tools tpm2_flushcontext -t
for _ in 1 2 3 4; do
    timeout 30 tpm2_sign -c da.ctx -g sha256 -o sig -p wrong tools.log 2>/dev/null && fail "a wrong value signs"
    timeout 30 tpm2_flushcontext -t
done

step "told in text and JSON, the time goes down, and the node's own keys sign"
py - <<'PY'
import json, subprocess, time
import csmwire

def told():
    tpm = json.loads(subprocess.run(["csm", "status", "--json"], capture_output=True, check=True, timeout=20).stdout)
    state = {b["name"]: b["state"] for b in tpm["backends"]}["tpm2"]
    return tpm["tpm"], state

end, seen, lines = time.monotonic() + 60, [], ""
conn = csmwire.Conn()
while time.monotonic() < end:
    tpm, state = told()
    if not tpm["lockout"] and not seen:
        time.sleep(0.2)
        continue
    conn.call("key.sign", {"key": "k", "message": b"while it is"})
    if not tpm["lockout"]:
        break
    assert tpm["lockout_counter"] >= 3 and tpm["lockout_seconds"] >= 1, tpm
    assert tpm["lockout_seconds"] <= 6 * (tpm["lockout_counter"] - 2), tpm
    if not lines:
        lines = subprocess.run(["csm", "status"], capture_output=True, check=True, timeout=20, text=True).stdout
    seen.append(tpm["lockout_seconds"])
    time.sleep(0.5)
print("seconds left, as told:", seen)
assert len(set(seen)) >= 3 and seen[0] > seen[-1], seen
assert all(a >= b for a, b in zip(seen, seen[1:])), seen
assert "lockout_seconds" in lines, lines
tpm, state = told()
assert not tpm["lockout"] and tpm["lockout_seconds"] == 0 and state == "ready", (tpm, state)
PY
tools tpm2_sign -c da.ctx -g sha256 -o sig -p right tools.log
