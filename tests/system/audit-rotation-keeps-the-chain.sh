#!/bin/bash
# The audit log goes on in a new file when one is full, and the chain with it, over restarts and kill -9; the oldest files
# go when there are too many, and the log says so; files that the administrator moves away are a fact, not a fault, and
# can be checked where they are.
# bound: 120
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
log=$node/state/audit
names() { find "$log" -type f -printf '%f\n' | sort; }
again() {
    node_csmd_stop "$node"
    sed -i '/^audit:/d' "$node/csmd.yaml"
    echo "audit: {$1}" >>"$node/csmd.yaml"
    node_csmd_start "$node" || fail "csmd does not start"
}
sets() { # FROM TO
    py - "$1" "$2" <<'PY'
import csmwire, sys
with csmwire.Conn() as c:
    for i in range(int(sys.argv[1]), int(sys.argv[2])):
        c.call("secret.set", {"secret": "d/s%d" % i, "pairs": [{"name": "v", "value": b"x"}]})
PY
}
verified() { # FIELD
    ok csm audit verify --json
    json "$1" <"$work/out"
}

step "files follow one another"
again 'max_size: 16KiB, max_files: 50'
ok csm domain create d
sets 0 200
expect_equal "files" "$(verified files)" "$(names | wc -l)"
[ "$(verified files)" -ge 3 ] || fail "no rotation"
expect_equal "the first line" "$(verified first)" 1
for _ in 1 2 3; do
    broker=$(node_broker_pid "$node")
    kill -9 "$broker"
    node_await 10 node_gone "$broker" || fail "the broker lives"
    node_await 20 node_status "$node" >/dev/null || fail "the broker is not started again"
    sets 200 260
    expect_equal "whole" "$(verified whole)" true
done
for i in $(seq 0 199); do echo "uid-0:d/s$i"; done >wanted
py "$top/tests/lib/auditlog.py" has "$log" wanted

step "tail reads over the turn of a file"
ok csm audit tail -n 300 --json
expect_equal "lines" "$(/usr/bin/python3 -c 'import json, sys
rows = json.load(sys.stdin)
assert [r["seq"] for r in rows] == list(range(rows[0]["seq"], rows[0]["seq"] + len(rows)))
print(len(rows))' <"$work/out")" 300
csm audit tail -n 0 -f >followed 2>&1 &
follower=$!
sleep 0.5
sets 300 420
node_await 10 grep -q 'd/s419' followed || { kill "$follower" && fail "tail -f does not follow over the turn"; }
kill "$follower"
wait "$follower" 2>/dev/null || true
expect_equal "lines that tail -f has shown" "$(grep -c 'secret.set' followed)" 120

step "what is moved away is a fact, and can be checked there"
mkdir moved
oldest=$(names | sed -n 1,2p)
for name in $oldest; do mv "$log/$name" moved/; done
expect_equal "whole" "$(verified whole)" true
expect_equal "notes" "$(verified notes.0.text)" "older lines are in files that are not here"
ok csm audit verify moved/*
ok csm audit verify moved/* "$log"/*
expect_equal "the first line" "$(csm audit verify --json moved/* "$log"/* | json first)" 1
ok csm audit verify --socket /nonexistent moved/*
sed -i '20s/uid":0/uid":1/' "moved/$(head -n 1 <<<"$oldest")"
expect_exit 1 csm audit verify moved/*
grep -q ':20: changed: ' "$work/out" || fail "not told where"
# One from the middle is missed.
middle=$(names | sed -n 2p)
mv "$log/$middle" moved/
expect_exit 1 csm audit verify
mv "moved/$middle" "$log/"
ok csm audit verify
# The file in use, too.
mv "$log/audit.log" "$log/audit-$(head -c 30 "$log/audit.log" | sed -E 's/.*seq":([0-9]+),.*/\1/' | xargs printf %012d).log"
ok csm secret set d/after v=1
expect_equal "whole" "$(verified whole)" true

step "the oldest go when there are too many"
again 'max_size: 16KiB, max_files: 3'
sets 0 300
expect_equal "files" "$(names | wc -l)" 3
expect_equal "whole" "$(verified whole)" true
grep -q '"event":"removed"' "$log"/* || fail "the log does not tell that a file was removed"
