#!/bin/bash
# A rule that names an executable, by path or by digest, serves that program and no other, through the sandboxed broker
# and csm-ident with its two rights; digests are computed once, and anew when the file was written.
# bound: 180
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

ident_pid() { # of csm-ident, which is a child of the supervisor
    local pid
    pid=$(pgrep -P "$(node_pid "$node" csmd)" -x csm-ident) || return 1
    printf '%s' "$pid"
}
no_ident() { ! ident_pid >/dev/null; }
a() { as_uid $uid_a "$@"; }
bin=$work/bin
mkdir "$bin"
chmod 0755 "$bin"
cp "$top/build/bin/csm" "$bin/deployer"
cp "$bin/deployer" "$bin/other"
digest() { sha256sum "$1" | cut -d' ' -f1; }

step "no rule needs it: csm-ident does not run"
expect_exit 1 ident_pid
ok csm policy reload
expect_exit 1 ident_pid

rule() { # SELECTORS of the identity
    policy <<YAML
version: 1
identities:
  deploy: {uid: $uid_a, $1}
  root: {uid: 0}
namespaces:
  web: {home-of: [deploy]}
rules:
  - {allow: ["key.*", "secret.*", "domain.*"], to: [deploy, root], on: ["web:*"]}
YAML
}
rule "exe: $bin/deployer"
node_await 5 ident_pid >/dev/null || fail "csm-ident was not started"
expect_equal "in status" "$(status_field ident.state)" running

step "it is its own user with two rights, its own filter, no way to more, and no other descriptor"
ident=$(ident_pid)
field() { sed -nE "s/^$1:[[:space:]]*(.*)/\1/p" "/proc/$ident/status"; }
wanted=$(sed -nE 's/^users:.*ident: "([0-9]+)".*/\1/p' "$node/csmd.yaml")
expect_equal "its uids" "$(field Uid | xargs)" "$wanted $wanted $wanted $wanted"
expect_equal "its gids" "$(field Gid | xargs)" "$wanted $wanted $wanted $wanted"
expect_equal "its groups" "$(field Groups | xargs)" ""
# CAP_DAC_READ_SEARCH is 2, CAP_SYS_PTRACE 19
for set in CapPrm CapEff; do
    expect_equal $set "$(field $set)" 0000000000080004
done
for set in CapInh CapAmb; do
    expect_equal $set "$(field $set)" 0000000000000000
done
expect_equal "no new privileges" "$(field NoNewPrivs)" 1
expect_equal "seccomp" "$(field Seccomp)" 2
expect_equal "the broker's seccomp" "$(sed -nE 's/^Seccomp:\s*//p' "/proc/$CSM_PID/status")" 2
csm status --json | contains 'landlock: on' || fail "the broker has no Landlock domain"
find "/proc/$ident/fd" -type l -printf '%f %l\n' >"$work/fds"
expect_equal "its sockets" "$(grep -c 'socket:' "$work/fds")" 1
expect_equal "network" "$(find "/proc/$ident/fd" -lname '*/net/*' | wc -l)" 0

step "the program is served, by any method, with its home; nobody else is"
ok a "$bin/deployer" key create tls
ok a "$bin/deployer" key show web:tls
echo data >"$work/data"
chmod 0644 "$work/data"
ok a "$bin/deployer" sign tls "$work/data" -o /dev/null
head -c 2000000 /dev/zero >"$work/long"
chmod 0644 "$work/long"
ok a "$bin/deployer" sign tls "$work/long" -o /dev/null
ok a "$bin/deployer" domain create db
ok a "$bin/deployer" secret set db/s k=v
expect_equal "the secret" "$(a "$bin/deployer" secret get db/s k)" v
denied a "$bin/other" key show web:tls
denied a "$bin/other" secret get web:db/s
denied as_uid $uid_b "$bin/deployer" key show web:tls
cp "$bin/deployer" "$work/deployer"
denied a "$work/deployer" key show web:tls
ln "$work/deployer" "$bin/linked"
denied a "$bin/linked" key show web:tls
ln -s "$bin/deployer" "$work/symlink"
ok a "$work/symlink" key show web:tls
# an identity that does not depend on the program has what it had
ok csm key show web:tls

step "the path, not the name that it once had: moved, deleted and replaced programs, and another mount namespace's"
mv "$bin/deployer" "$bin/moved"
denied a "$bin/moved" key show web:tls
mv "$bin/moved" "$bin/deployer"
ok a "$bin/deployer" key show web:tls
if unshare --mount true 2>/dev/null; then
    cp /bin/true "$work/true"
    # shellcheck disable=SC2016 # for the inner shell
    denied unshare --mount --propagation private sh -c 'mount --bind "$1" "$2" && shift 2 && exec "$@"' sh "$bin/other" \
        "$bin/deployer" setpriv --reuid $uid_a --regid $uid_a --clear-groups "$bin/deployer" key show web:tls
    ok unshare --mount --propagation private setpriv --reuid $uid_a --regid $uid_a --clear-groups "$bin/deployer" key show \
        web:tls
fi
denied a setarch --addr-no-randomize "$bin/deployer" key show web:tls
grep -q "fixed addresses" "$work/err" || fail "the reason is not told: $(cat "$work/err")"

step "policy explain knows the selector"
explained() { csm policy explain key.show web:tls --as "$1" --json | json allowed; }
expect_equal "the program" "$(explained "uid=$uid_a,exe=$bin/deployer")" true
expect_equal "another one" "$(explained "uid=$uid_a,exe=$bin/other")" false
expect_equal "none" "$(explained "uid=$uid_a")" false

step "policy check warns of interpreters and of programs that their user can write; so does the log"
warnings() { csm policy check "$work/checked.yaml"; }
printf 'version: 1\nidentities:\n  a: {uid: %s, exe: %s}\n  b: {uid: %s, exe: /usr/bin/perl}\n' $uid_a "$bin/deployer" $uid_b \
    >"$work/checked.yaml"
chown $uid_a "$bin/deployer"
warnings | contains "line 3: identity a: $bin/deployer belongs to uid $uid_a" || fail "no warning: $(warnings)"
warnings | contains "line 4: identity b: /usr/bin/perl runs whatever" || fail "no warning: $(warnings)"
csm policy check --json "$work/checked.yaml" | json warnings | contains "belongs to uid $uid_a" || fail "no warning in JSON"
ok csm policy reload
node_await 5 grep -q "identity deploy: $bin/deployer belongs to uid $uid_a" "$node/csmd.log" || fail "no warning in the log"
chown 0 "$bin/deployer"
! warnings | contains "belongs to" || fail "a warning of a file that is root's: $(warnings)"

step "csm-ident is killed: it is back at once, and nothing is served in its place meanwhile"
kill -KILL "$ident"
ok a "$bin/deployer" key show web:tls
denied a "$bin/other" key show web:tls
[ "$(ident_pid)" != "$ident" ] || fail "it is not another one"

step "the broker is killed: the next one has a csm-ident of its own"
ident=$(ident_pid)
kill -KILL "$CSM_PID"
node_await 20 node_status "$node" >/dev/null || fail "the broker is not back"
ok a "$bin/deployer" key show web:tls
[ "$(ident_pid)" != "$ident" ] || fail "it is not another one"

step "a csm-ident that is stopped: refused after its time, not served, and others go on"
ident=$(ident_pid)
kill -STOP "$ident"
a "$bin/deployer" key show web:tls >"$work/late" 2>&1 && fail "served without a look" &
late=$!
ok csm key show web:tls
wait "$late" || true
grep -q unavailable "$work/late" || fail "not unavailable: $(cat "$work/late")"
kill -CONT "$ident"
ok a "$bin/deployer" key show web:tls

step "by digest: the same file under any name; a changed one is refused"
rule "exe: {sha256: $(digest "$bin/deployer")}"
ok a "$bin/deployer" key show web:tls
ok a "$bin/other" key show web:tls
printf x >>"$bin/other"
denied a "$bin/other" key show web:tls
rule "exe: {path: $bin/deployer, sha256: $(digest "$bin/other")}"
denied a "$bin/deployer" key show web:tls
denied a "$bin/other" key show web:tls

step "1 GiB: computed once, known the second time, computed anew when it was written"
big=$bin/big
cp "$top/build/bin/csm" "$big"
truncate -s 1G "$big"
sleep 1.1 # a file just written is not remembered
rule "exe: {path: $big, sha256: $(digest "$big")}"
looked() { printf '%s %s' "$(status_field ident.hashed)" "$(status_field ident.cached)"; }
read -r hashed cached <<<"$(looked)"
ok a "$big" key show web:tls
read -r hashed_now cached_now <<<"$(looked)"
expect_equal "computed" $((hashed_now - hashed)) 1
hashed=$hashed_now
for time in second third; do
    read -r hashed cached <<<"$(looked)"
    ok a "$big" key show web:tls
    printf '  the %s time: %s us\n' "$time" "$(status_field ident.last_us)"
    read -r hashed_now cached_now <<<"$(looked)"
    expect_equal "computed the $time time" $((hashed_now - hashed)) 0
    [ "$cached_now" -gt "$cached" ] || fail "not known from before"
done
if [ "$(stat -f -c %T "$big")" != tmpfs ]; then
    for change in "one byte in the middle" "nothing but the times"; do
        read -r hashed cached <<<"$(looked)"
        case $change in
        one*) printf x | dd of="$big" bs=1 seek=536870912 conv=notrunc status=none ;;
        nothing*) printf '\0' | dd of="$big" bs=1 seek=536870912 conv=notrunc status=none ;;
        esac
        sleep 1.1
        case $change in
        one*) denied a "$big" key show web:tls ;;
        nothing*) ok a "$big" key show web:tls ;;
        esac
        read -r hashed_now cached_now <<<"$(looked)"
        [ "$hashed_now" -gt "$hashed" ] || fail "$change: not computed anew"
    done
fi

step "while a large file is hashed others are served"
truncate -s 512M "$big"
policy <<YAML
version: 1
identities:
  deploy: {uid: $uid_a, exe: {sha256: $(digest "$big")}}
  other: {uid: $uid_b, exe: $bin/deployer}
rules:
  - {allow: ["key.*"], to: [deploy, other], on: ["web:*"]}
YAML
asked_more() { [ "$(status_field ident.asked)" -gt "$asked" ]; }
served=0
for _ in 1 2 3 4; do # again where the machine is so fast that nothing came in between
    [ "$served" -lt 3 ] || break
    touch "$big"
    sleep 1.1
    hashed=$(status_field ident.hashed) asked=$(status_field ident.asked)
    a "$big" key show web:tls >/dev/null 2>"$work/err" &
    hashing=$!
    node_await 10 asked_more || fail "it was not looked at"
    while ok as_uid $uid_b "$bin/deployer" key show web:tls && [ "$(status_field ident.hashed)" -eq "$hashed" ]; do
        served=$((served + 1))
        node_gone "$hashing" && break
    done
    wait "$hashing" || fail "after its hash: $(cat "$work/err")"
done
printf '  %s requests meanwhile\n' "$served"
[ "$served" -gt 0 ] || fail "nobody was served meanwhile"
rm "$big"

step "no rule needs it any more: it ends"
policy <<YAML
version: 1
default: uid-namespaces
YAML
node_await 5 no_ident || fail "csm-ident still runs"
ok a "$bin/deployer" key create own
