#!/bin/bash
# Where the limit of locked memory is too small csmd serves all the same, and says so; where it is large enough nothing is
# said, and what holds secrets is locked.
# shellcheck source=../lib/system.sh
. "$(dirname "$0")/../lib/system.sh"

# Inside, an ordinary user's own node.
if [ "${CSM_TEST_INSIDE:-}" = "$(realpath "$0")" ]; then
    csm key create k >/dev/null
    csm domain create d
    csm secret set d/s plain=value
    echo data | csm sign k - | wc -c
    csm secret get d/s plain
    echo
    csm status --json
    sed -nE 's/^VmLck:[^0-9]*//p' "/proc/$CSM_PID/status"
    exit 0
fi

# What another user runs lies where he can read it.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 0755 "$work"
mkdir -p "$work/tree/tests/system" "$work/tree/tests/lib" "$work/tree/build" "$work/tmp"
chmod 1777 "$work/tmp"
cp -r "$top/scripts" "$work/tree/"
cp -r "$top/build/bin" "$top/build/lib" "$work/tree/build/"
cp "$top/tests/lib/system.sh" "$work/tree/tests/lib/"
cp "$0" "$work/tree/tests/system/"
test=$work/tree/tests/system/${0##*/}
chmod -R go+rX "$work/tree"

run_with() { # BYTES
    (cd / && as_uid $uid_a prlimit --memlock="$1:$1" env TMPDIR="$work/tmp" CSM_TEST_INSIDE="$(realpath "$test")" \
        CSM_BUILD="$work/tree/build" timeout 60 "$work/tree/scripts/with-node.sh" --backend soft -- "$test") \
        >"$work/told" 2>"$work/err" || { cat "$work/err" >&2 && fail "a node with $1 bytes of locked memory does not serve"; }
    grep -qx value "$work/told" || fail "the value is not served"
}

for limit in 0 65536 3000000; do
    step "a limit of $limit bytes: served, and told"
    run_with $limit
    grep -q 'not all memory with secrets is locked' "$work/told" || fail "status does not tell"
done
step "a limit of 8 MiB: nothing to tell"
run_with 8388608
! grep -q 'not all memory with secrets is locked' "$work/told" || fail "status tells what is not so"
[ "$(tail -n 1 "$work/told" | cut -d' ' -f1)" -gt 2048 ] || fail "it is not locked"
