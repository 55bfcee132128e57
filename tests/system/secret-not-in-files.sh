#!/bin/bash
# What was stored as a secret, and the private part of a software key, is in no file that csmd writes, and no command
# shows it to another place than asked: store, log, audit.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

step "store, use, replace and delete secrets with a marked value; sign with keys"
mark=$(openssl rand -hex 24)
ok csm domain create d
for n in 1 2 3 4 5; do
    printf 'value-%s-%s' "$mark" "$n" | ok csm secret set d/s$n plain=- "name-of-$n=x"
    ok csm secret get d/s$n
    ok csm secret get d/s$n plain
done
printf 'value-%s-again' "$mark" | ok csm secret set d/s1 plain=-
ok csm secret delete d/s2
ok csm key create soft --alg ed25519 --backend soft
echo data >msg
ok csm sign soft msg
expect_exit 4 csm secret get d/nothing-here
py - "$mark" <<'PY'
# Requests that fail, with the value in every place where a log line might take it along.
import sys
from csmwire import Conn, Refused
mark = "value-" + sys.argv[1]
conn = Conn()
for method, params in (("secret.set", {"secret": "d/s1", "pairs": [{"name": "k", "value": mark.encode()}], "expect": 99}),
                       ("secret.set", {"secret": "d/s1", "pairs": [{"name": "k", "type": "json", "value": (mark + "{").encode()}]}),
                       ("secret.set", {"secret": "d/s1", "pairs": [{"name": "k", "type": "what", "value": mark.encode()}]}),
                       ("secret.set", {"secret": "nodomain/s", "pairs": [{"name": "k", "value": mark.encode()}]}),
                       ("seal", {"data": mark.encode() * 4000}), ("unseal", {"sealed": mark.encode()})):
    try:
        conn.call(method, params)
    except Refused:
        pass
PY

step "search every file of the node"
search() {
    if grep -rlaF --exclude-dir=work "$mark" "$node"; then
        fail "the value is in the files above"
    fi
}
search
step "and again after a clean stop"
node_csmd_stop "$node"
search
grep -rlaF 'name-of-3' "$node/state" && fail "the name of a pair stands in clear in the store"
node_csmd_start "$node" || fail "csmd does not start again"
expect_equal "the value after all" "$(csm secret get d/s3 plain)" "value-$mark-3"
