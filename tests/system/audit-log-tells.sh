#!/bin/bash
# The audit log tells of every change and denial in a line of its own, and of uses by counts; never a value. In strict
# mode nothing is served while it cannot be written.
# bound: 150
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
log=$node/state/audit/audit.log
has() { # EVENT METHOD UID OBJECT RESULT
    py - "$log" "$@" <<'PY'
import json, sys
log, event, method, uid, thing, result = sys.argv[1:]
rows = [json.loads(line) for line in open(log)]
assert any(r["event"] == event and r["method"] == method and r["uid"] == int(uid) and r["object"] == thing and
           r["result"] == result for r in rows if "result" in r), (sys.argv[2:], rows[-5:])
PY
}
step "changes and denials, before the answer is out"
ok csm key create k
has change key.create 0 uid-0:k ok
ok csm domain create d
ok csm secret set d/s password=correct-horse
has change secret.set 0 uid-0:d/s ok
expect_exit 7 csm domain create d
has change domain.create 0 uid-0:d exists
expect_exit 3 as_uid $uid_a csm secret get uid-0:d/s
has denied secret.get $uid_a uid-0:d/s denied
ok csm key delete k
has change key.delete 0 uid-0:k ok
ok sh -c 'echo $$ >reloader; exec csm policy reload'
has change policy.reload 0 policy ok
grep -q "\"policy.reload\".*\"pid\":$(cat reloader)[,}]" "$log" || fail "not who asked for the reload: $(tail -1 "$log")"
kill -HUP "$(csm status --json | json supervisor_pid)"
signalled() { has change policy.reload 0 "policy (signal)" ok 2>/dev/null; }
node_await 10 signalled || fail "no line of a signal: $(tail -1 "$log")"
ok csm policy reload
ok csm audit tail -n 1
grep -qE 'Z [0-9]+ change policy.reload policy ok uid=0' "$work/out" || fail "csm audit tail does not show it"
denied as_uid $uid_a csm audit tail
denied as_uid $uid_a csm audit verify
step "denials beyond the tenth are counted, uses too"
for _ in $(seq 15); do
    as_uid $uid_b csm key show uid-0:none >/dev/null 2>&1 || true
done
expect_equal "denials with a line" "$(grep -c "\"denied\".*\"uid\":$uid_b" "$log")" 10
for _ in 1 2 3; do csm secret get d/s >/dev/null; done
echo small | csm seal -o sealed
csm unseal sealed -o /dev/null
counted() { grep -q '"event":"use","method":"secret.get","uid":0,"object":"uid-0:d/s","count":3' "$log" &&
    grep -q "\"event\":\"use\",\"method\":\"unseal\",\"uid\":0,\"object\":\"uid-0:\",\"count\":1" "$log" &&
    grep -q "\"event\":\"denied\".*\"uid\":$uid_b.*\"count\":5" "$log"; }
node_await 75 counted || { tail -3 "$log" >&2 && fail "no counted rows after a minute"; }
! grep -q correct-horse "$log" || fail "a value is in the log"
expect_equal "mode" "$(stat -c %a "$log")" 600
