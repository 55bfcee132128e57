#!/bin/bash
# Whatever a server does, a job of csm-enrol ends in its time: one that hangs in any phase, from DNS to the last byte, one that lets a
# byte a second through, one that is not to be trusted. A token goes to none of them, and into no log; other jobs go on meanwhile.
# bound: 90
. "$(dirname "$0")/../lib/system.sh"
work=$(mktemp -d) && cd "$work"
trap 'rm -rf "$work"' EXIT
py "$top/tests/system/enrol_servers.py" "$node_build/bin/csm-enrol" 2>log || { cat log >&2 && fail "as above"; }
grep -q 'failed: timeout' log || fail "the log says nothing"
! grep -q 'SecretToken' log || fail "the token is in the log"
