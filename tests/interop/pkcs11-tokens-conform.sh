#!/bin/bash
# The back end pkcs11 keeps every promise of the plugin ABI on tokens of others: SoftHSM2, and tpm2-pkcs11 over
# tpm2-abrmd. What a token cannot do is known, and nothing else is passed by.
# bound: 240
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${CSM_BUILD:-build/asan}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

export CSM_PLUGIN=$PWD/$build/lib/csm/plugins/pkcs11.so
# These libraries lose memory by themselves: SoftHSM2 some bytes with each use of an Ed25519 key. That the back end does
# not is seen in unit/test_pkcs11, with a library that is clean.
export ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0
# Larger RSA keys take long to make, and differ in nothing else.
[ -n "${CSM_LONG:-}" ] || export CSM_TOKEN_ALGS=p256,p384,p521,rsa2048,ed25519

object=$CSM_PLUGIN
conform() { # TOKEN PROGRAM WHAT-IT-LACKS...
    local token=$1 program=$2 skipped
    shift 2
    tests/lib/with_token.py "$token" timeout 200 "$build/tests/conformance/$program" >"$work/out" 2>&1 ||
        { cat "$work/out"; echo "FAILED: $program on $token" >&2; exit 1; }
    skipped=$(sed -n 's/^\[  SKIPPED \] \([a-z0-9_]*\)$/\1/p' "$work/out" | LC_ALL=C sort -u | tr '\n' ' ')
    [ "$skipped" = "$(printf '%s\n' "$@" | LC_ALL=C sort | tr '\n' ' ')" ] ||
        { echo "FAILED: $program on $token passes by: $skipped" >&2; exit 1; }
    grep -q '^\[  PASSED  \] [1-9]' "$work/out" || { echo "FAILED: $program on $token did nothing" >&2; exit 1; }
}

conform softhsm test_plugins multi_part_signatures sealing counters_grow
conform softhsm test_plugins_damage decrypt_outputs
conform tpm2 test_plugins multi_part_signatures sealing counters_grow ed25519_messages
conform tpm2 test_plugins_damage derive_outputs

# In the process that csmd gives it, where it has no files but its own.
CSM_PLUGIN=remote:$object
conform softhsm test_plugins multi_part_signatures sealing counters_grow
conform tpm2 test_plugins multi_part_signatures sealing counters_grow ed25519_messages
