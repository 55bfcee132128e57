#!/bin/bash
# When the disk of the audit log is full: in strict mode nothing is done that could not be told, with a clear error, and
# all is served again once there is room; in normal mode csmd goes on, says so in its status, and the log tells of the gap.
# What was counted meanwhile is not lost, and the chain is whole. Where the store is on the same disk, the log takes back
# what it told of a change whose commit then found no room, also when there is room for that only later, or after a crash.
# bound: 150
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
log=$node/state/audit
state=$node/state
trap 'umount -l "$log" 2>/dev/null || true; umount -l "$state" 2>/dev/null || true' EXIT

# The folder becomes a file system of 128 KiB, and so much of it is taken that no line fits.
small() { # MODE
    node_csmd_stop "$node"
    umount "$log" 2>/dev/null || true
    rm -rf "$node/state"
    mkdir -m 0700 "$node/state" "$log"
    mount -t tmpfs -o "size=128k,mode=0700,uid=$owner,gid=$owner" tmpfs "$log" || { echo "skip: no tmpfs can be mounted" && exit 77; }
    chown "$owner:$owner" "$node/state"
    sed -i '/^audit:/d' "$node/csmd.yaml"
    echo "audit: {mode: $1}" >>"$node/csmd.yaml"
    node_csmd_start "$node" || fail "csmd does not start"
    ok csm key create k
    ok csm domain create d
    ok csm secret set d/s v=before
}
# The page in use takes lines until it is full.
fill() {
    dd if=/dev/zero of="$log/filler" bs=4096 status=none 2>/dev/null || true
    head -c 4096 /dev/zero >>"$log/filler" 2>/dev/null || true
}
warned() { status_field warnings | contains "$1"; }
owner=$(stat -c %u "$node/state")

step "strict: refused, with a clear error, as long as there is no room"
small strict
fill
refused=
for i in $(seq 40); do
    csm secret set d/s v="full$i" >"$work/out" 2>"$work/err" || { refused=$i && break; }
done
[ -n "$refused" ] || fail "changes go on though the disk is full"
grep -q 'the audit log cannot be written, and audit.mode is strict' "$work/err" || { cat "$work/err" >&2 && fail "not a clear error"; }
expect_exit 6 csm secret set d/s v=again
expect_exit 6 csm secret get d/s
grep -q 'audit.mode is strict' "$work/err" || fail "a use is refused without a clear error"
expect_exit 6 as_uid $uid_a csm secret get uid-0:d/s
expect_exit 6 csm key create k2
ok csm status
warned 'the audit log cannot be written (No space left on device): requests are refused' || fail "status does not tell"
expect_exit 1 test -e nothing
rm "$log/filler"
node_await 10 csm secret get d/s v >got 2>/dev/null || fail "not served again when there is room"
expect_equal "the value is that of the last change that was acknowledged" "$(cat got)" "$([ "$refused" -eq 1 ] && echo before || echo full$((refused - 1)))"
ok csm secret set d/s v=after
! warned 'cannot be written' || fail "status still tells"
ok csm audit verify --json
expect_equal "gap" "$(json notes.0.text <"$work/out")" "the log could not be written for a time: events are missing before this line"
grep -q '"event":"gap","since":[0-9]*,"changes":0,' "$log/audit.log" || fail "in strict mode nothing is missing"
expect_equal "changes with a line" "$(grep -c '"event":"change","method":"secret.set"' "$log/audit.log")" $((refused + 1))

step "strict, after kill -9 on the full disk"
fill
while csm secret set d/s v=x >/dev/null 2>&1; do :; done
broker=$(node_broker_pid "$node")
kill -9 "$broker"
node_await 10 node_gone "$broker" || fail "the broker lives"
node_await 20 node_status "$node" >/dev/null || fail "the broker is not started again"
expect_exit 6 csm secret get d/s
rm "$log/filler"
node_await 10 csm secret get d/s v >got 2>/dev/null || fail "not served again"
ok csm audit verify

step "normal: goes on, says so, and tells the gap"
small normal
fill
for i in $(seq 40); do ok csm secret set d/s v="full$i"; done
expect_equal "value" "$(csm secret get d/s v)" full40
denied as_uid $uid_a csm secret get uid-0:d/s
warned 'the audit log cannot be written (No space left on device): what happens is not in it' || fail "status does not tell"
warned 'events are not in the audit log' || fail "status does not count"
csm metrics | contains '^csm_audit_failing 1$' || fail "metrics do not tell"
# What is there is still whole: the store names no line that is not.
ok csm audit verify
written=$(grep -c '"event":"change"' "$log/audit.log")
rm "$log/filler"
told() { ! warned 'cannot be written' && ! warned 'are not in'; }
node_await 10 told || fail "status still tells"
ok csm secret set d/s v=after
ok csm audit verify
missing=$(sed -nE 's/.*"event":"gap".*"changes":([0-9]+),"denied":1.*/\1/p' "$log/audit.log")
# The key, the domain, and 42 sets.
expect_equal "changes with a line, and those of the gap" $((written + 1 + missing)) 44

# The folder of the store, with the log in it, becomes a file system on which 40 KiB are left.
one_disk() {
    node_csmd_stop "$node"
    umount "$log" 2>/dev/null || true
    umount "$state" 2>/dev/null || true
    rm -rf "$state"
    mkdir -m 0700 "$state"
    mount -t tmpfs -o "size=4m,mode=0700,uid=$owner,gid=$owner" tmpfs "$state" || fail "no tmpfs can be mounted"
    sed -i '/^audit:/d' "$node/csmd.yaml"
    echo "audit: {mode: strict}" >>"$node/csmd.yaml"
    node_csmd_start "$node" || fail "csmd does not start"
    ok csm domain create d
    dd if=/dev/zero of="$state/filler" bs=4096 status=none 2>/dev/null || true
    truncate -s -40K "$state/filler"
}
# Each line of a secret that was set is acknowledged, or taken back: by its `undone`, or by the next start, which names a
# line before it.
told_rightly() { # ACKNOWLEDGED
    ok csm audit verify
    cat "$log"/audit*.log >all
    expect_equal "changes that the log tells as made" "$(py - <<'PY'
import json
made = []
for line in open("all"):
    l = json.loads(line)
    if l["event"] == "change" and l["method"] == "secret.set" and l["result"] == "ok":
        made.append(l["seq"])
    elif l["event"] == "undone":
        made = [s for s in made if not l["first"] <= s <= l["last"]]
    elif l["event"] == "start":
        made = [s for s in made if s <= l["anchor"]]
print(len(made))
PY
)" "$1"
    expect_equal "secrets" "$(csm secret list d | grep -cE "^(d/)?(s[0-9]+|after)\b")" "$1"
}
for crash in no yes; do
    step "strict, store and log on one disk; a crash while it is full: $crash"
    one_disk
    good=0
    for i in $(seq 30); do
        if csm secret set "d/s$i" v="$(head -c $((900 + i * 37)) /dev/zero | tr '\0' x)" >/dev/null 2>&1; then
            good=$((good + 1))
        fi
    done
    [ "$good" -lt 30 ] || fail "the disk is not full"
    if [ "$crash" = yes ]; then
        # The page in use is filled, too: the line of the start does not fit.
        head -c 40960 /dev/zero >>"$state/filler" 2>/dev/null || true
        broker=$(node_broker_pid "$node")
        kill -9 "$broker"
        node_await 10 node_gone "$broker" || fail "the broker lives"
        node_await 20 node_status "$node" >/dev/null || fail "the broker is not started again"
    fi
    rm "$state/filler"
    node_await 10 csm secret set d/after v=1 >/dev/null 2>&1 || fail "not served again when there is room"
    told_rightly $((good + 1))
    grep -q '"event":"undone"' all || [ "$crash" = yes ] || fail "no commit found the disk full: nothing was tried"
done
