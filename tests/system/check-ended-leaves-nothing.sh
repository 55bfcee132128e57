#!/bin/bash
# scripts/check.sh that is ended by a signal ends its tests first: no csmd, no swtpm and no file stays behind, also of
# a test that does not listen.
# bound: 240
. "$(dirname "$0")/../lib/system.sh"
work=$(mktemp -d "${TMPDIR:-/tmp}/csm-ended.XXXXXX")
trap 'rm -rf "$work"' EXIT
export CSM_BUILD=$node_build

# A tree with two tests that hold a node.
tree=$work/tree
mkdir -p "$tree/tests/system"
cp -r "$top/scripts" "$tree/scripts"
cp -r "$top/tests/lib" "$tree/tests/lib"
printf 'tests-built:\n' >"$tree/Makefile"
for name in listens deaf; do
    cat >"$tree/tests/system/$name.sh" <<'TEST'
#!/bin/bash
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
name=$(basename "$0" .sh)
[ "$name" = listens ] || trap '' TERM
echo "$node $(cat "$node/csmd.pid") $(cat "$node/swtpm.pid") $CSM_PID $$" >"$top/$name.new"
mv "$top/$name.new" "$top/$name.up"
for _ in $(seq 600); do sleep 0.1; done
TEST
    chmod 755 "$tree/tests/system/$name.sh"
done

for signal in TERM HUP INT; do
    step "$signal"
    rm -f "$tree"/*.up
    env --default-signal=INT -- "$tree/scripts/check.sh" system/ >"$work/log" 2>&1 &
    check=$!
    up() { [ -e "$tree/listens.up" ] && [ -e "$tree/deaf.up" ]; }
    node_await 60 up || { cat "$work/log" >&2 && fail "the tests do not run"; }
    kill -$signal $check
    began=$SECONDS status=0
    wait $check || status=$?
    expect_equal "status" "$status" $((128 + $(kill -l $signal)))
    [ $((SECONDS - began)) -le 40 ] || fail "it took $((SECONDS - began)) s"
    grep -q "^ended by SIG$signal" "$work/log" || fail "no word of it: $(cat "$work/log")"
    ! grep -q passed "$work/log" || fail "a result is told: $(cat "$work/log")"
    for name in listens deaf; do
        read -r folder pids <"$tree/$name.up"
        for pid in $pids; do
            node_gone "$pid" || fail "$name: process $pid is left: $(tr '\0' ' ' <"/proc/$pid/cmdline")"
        done
        [ ! -e "${folder%/*/*}" ] || fail "$name: ${folder%/*/*} is left"
    done
done
