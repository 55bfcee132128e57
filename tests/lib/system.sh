# shellcheck shell=bash
# What the scripts of tests/system and tests/interop share. Sourced first:
#
#   . "$(dirname "$0")/../lib/system.sh"
#   in_node --backend soft
#
# A script is run with no node; in_node starts it again inside one. Every wait is bounded, every process is ended by its
# number, everything that is written goes below $work.

set -euo pipefail
# shellcheck source=../../scripts/node-lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/node-lib.sh"
top=$node_top

# Two users who have no account.
# shellcheck disable=SC2034 # for the scripts
uid_a=59101 uid_b=59102

# in_node [OPTIONS OF with-node.sh]: go on inside a private node.
in_node() {
    if [ "${CSM_TEST_INSIDE:-}" != "$(realpath "$0")" ]; then
        CSM_TEST_INSIDE=$(realpath "$0") exec "$top/scripts/with-node.sh" "$@" -- "$0"
    fi
    unset CSM_TEST_INSIDE
    work=$CSM_NODE_DIR/work
    mkdir -p "$work"
    chmod 1777 "$work"
    node=$CSM_NODE_DIR
    cd "$work"
}

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}
step() { printf -- '- %s\n' "$*"; }
# The loader only warns of an object that is not there, and whatever the test is for never happens.
needs_preload() { # NAME
    [ -r "$node_build/tests/fault/$1.so" ] || fail "$node_build/tests/fault/$1.so is not there: make build/tests/fault/$1.so"
}

# The count for `make check`, or the one for `make check-long`.
count() { [ -z "${CSM_LONG:-}" ] && echo "$1" || echo "$2"; }

# as_uid UID COMMAND...: as that user, in no group of the caller's.
as_uid() {
    local uid=$1
    shift
    setpriv --reuid "$uid" --regid "$uid" --clear-groups -- "$@"
}

# expect_exit STATUS COMMAND...: its output goes to $work/out and $work/err.
expect_exit() {
    local wanted=$1 status=0
    shift
    "$@" >"$work/out" 2>"$work/err" || status=$?
    if [ "$status" -ne "$wanted" ]; then
        printf 'stdout: %s\nstderr: %s\n' "$(head -c 2000 "$work/out" | tr -d '\0')" "$(head -c 2000 "$work/err")" >&2
        fail "exit status $status, not $wanted: $*"
    fi
}
ok() { expect_exit 0 "$@"; }
denied() { expect_exit 3 "$@"; }

expect_same() { # WHAT FILE FILE
    cmp -s "$2" "$3" || { diff "$2" "$3" >&2 || true && fail "$1: not the same"; }
}
# COMMAND | contains PATTERN (or grep's options first): reads to the end, where `grep -q` goes at the first hit, and a
# command that still writes then has failed, by pipefail.
contains() { grep "$@" | cat >/dev/null; }
expect_equal() { # WHAT GOT WANTED
    [ "$2" = "$3" ] || fail "$1: '$2', not '$3'"
}

# kill -9 of the broker, or of all of csmd; csmd serves again when it returns.
kill9() { # broker|all WHAT
    local broker supervisor
    broker=$(node_broker_pid "$node")
    supervisor=$(node_pid "$node" csmd)
    if [ "$1" = all ]; then
        kill -9 "$supervisor" "$broker"
        node_await 10 node_gone "$supervisor" || fail "the supervisor lives"
    else
        kill -9 "$broker"
    fi
    node_await 10 node_gone "$broker" || fail "the broker lives"
    if [ "$1" = all ]; then
        node_csmd_start "$node" || { tail -5 "$node/csmd.log" >&2 && fail "csmd does not start again, $2"; }
    else
        node_await 20 node_status "$node" >/dev/null || fail "the broker is not started again, $2"
    fi
}
# Each fourth time all of it.
kill9_turn() { # ROUND
    if [ $(($1 % 4)) -eq 0 ]; then kill9 all "round $1"; else kill9 broker "round $1"; fi
}

# json FIELD.FIELD...: a field of the JSON on stdin, numbers and strings plain, the rest as JSON.
json() {
    /usr/bin/python3 -c 'import json, sys
v = json.load(sys.stdin)
for name in sys.argv[1].split("."):
    v = v[int(name)] if isinstance(v, list) else v[name]
print(v if isinstance(v, str) else json.dumps(v))' "$1"
}
# A field of what the administrator is told: status_field tpm.commands
status_field() {
    py -c 'import json, csmwire
print(json.dumps(csmwire.Conn(csmwire.ADMIN).call("status")))' | json "$1"
}

# policy TEXT-ON-STDIN: it is in force when this returns.
policy() {
    cat >"$node/policy.new"
    mv "$node/policy.new" "$node/policy.yaml"
    ok csm policy reload
}

py() { PYTHONPATH=$top/tests/lib PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 "$@"; }
