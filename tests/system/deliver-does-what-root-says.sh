#!/bin/bash
# csm-deliver puts certificates into the folders that root's deliver.yaml names, as their owner's, and runs the hooks as
# their user with nothing of its own; a hook that fails or hangs has what was there before put back; no file of others is
# written, and no configuration but root's is taken.
# bound: 150
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/certs.sh"
in_node --backend soft

make_ca root
for key in web other; do
    ok csm key create $key
    csm csr $key --subject /CN=$key >$key.csr
done
for i in 1 2 3 4 5 6; do
    issue web.csr root web$i.pem -set_serial 0x10$i
    cat web$i.pem root.pem >gen$i
done
mkdir "$node/t"
chmod 0755 "$node/t"
folder=$node/t/web

target() { # the hook's script on stdin; further lines of the target as arguments
    cat >"$node/t/hook.new"
    chmod 0755 "$node/t/hook.new"
    mv "$node/t/hook.new" "$node/t/hook"
    {
        printf 'state_dir: %s/delivered\ntargets:\n  web:\n    key: "uid-0:web"\n    folder: %s\n    owner: "%s"\n' \
            "$node" "$folder" "$uid_a"
        printf '    mode: "0640"\n    hook: [%s/t/hook, one, "two words"]\n' "$node"
        [ $# -eq 0 ] || printf '    %s\n' "$@"
    } >"$node/deliver.new"
    mv "$node/deliver.new" "$node/deliver.yaml"
    ok csm policy reload
}
delivery() { status_field deliveries | json "0.$1" 2>/dev/null; }
state_is() { [ "$(delivery state)" = "$1" ]; }
serial_is() { [ "$(json serial <"$folder/meta.json" 2>/dev/null)" = "$1" ]; }
await_that() { node_await 20 "$@" || { tail -5 "$node/csmd.log" >&2 && status_field deliveries >&2 && fail "not so: $*"; }; }
pid_of_deliver() { pgrep -P "$(node_pid "$node" csmd)" -x csm-deliver; }

step "a certificate that is there already is delivered when the target comes"
ok csm cert install web gen1
target <<'SH'
#!/bin/sh
exec >"$CSM_FOLDER/../../work/hook.$CSM_EVENT" 2>&1
echo "$# $1 $2 $CSM_TARGET $CSM_KEY"
cat "$CSM_FOLDER/meta.json" | grep -c serial
id -u; id -g; id -G
env | sed 's/=.*//' | sort | xargs
ls /proc/self/fd | xargs
[ "$(ps -o sid= -p $$ | tr -d ' ')" = $$ ] && echo session
grep -E '^Cap(Eff|Prm|Inh)' /proc/self/status | tr -d '0\t' | tr '\n' ' '; echo
cat
SH
await_that state_is delivered
expect_equal "whose, and how" "$(stat -c '%u %g %a' "$folder" "$folder/cert.pem" | tr '\n' ' ')" "$uid_a $uid_a 750 $uid_a $uid_a 640 "
openssl verify -CAfile "$folder/ca.pem" "$folder/cert.pem" >/dev/null || fail "what was delivered"
csm key reference web | cmp -s - "$folder/key.pem" || fail "key.pem"
expect_equal "the hook" "$(cat hook.delivered)" "2 one two words web uid-0:web
1
$uid_a
$uid_a
$uid_a
CSM_EVENT CSM_FOLDER CSM_KEY CSM_TARGET HOME LANG LOGNAME PATH PWD USER
0 1 2 3
session
CapInh: CapPrm: CapEff: "
expect_equal "cert show" "$(csm cert show web --json | json delivered)" "$(delivery delivered)"
[ "$(json delivered <"$folder/meta.json" 2>/dev/null)" = "" ] || fail "meta.json tells of deliveries"

step "a new one follows at once, and what is delivered is not delivered again"
rm hook.delivered
first=$(delivery fingerprint)
not_the_first() { [ "$(delivery fingerprint)" != "$first" ]; }
ok csm cert install web gen2
await_that serial_is 0102
await_that test -s hook.delivered
# csmd is told when all of it is done and on record.
await_that not_the_first
await_that state_is delivered
rm hook.delivered
kill9 all "for a start"
await_that state_is delivered
[ ! -e hook.delivered ] || fail "delivered again"
expect_equal "what is left beside it" "$(find "$node/t" -name '.*.csm-*')" ""

step "who takes the folder away gets it again"
rm -r "$folder"
# it looks within half a minute, and whenever it is told to
kill -HUP "$(pid_of_deliver)"
await_that serial_is 0102
await_that state_is delivered

step "a hook that fails: what was there is there again, and the hook has been told"
cp "$node/t/hook" hook.good
target <<'SH'
#!/bin/sh
echo "$CSM_EVENT $(grep -o '"serial": "[0-9]*"' "$CSM_FOLDER/meta.json")" >>"$CSM_FOLDER/../../work/events"
[ "$CSM_EVENT" = rolled-back ] || exit 3
SH
ok csm cert install web gen3
await_that state_is failed
expect_equal "the serial" "$(json serial <"$folder/meta.json")" 0102
expect_equal "events" "$(cat events)" 'delivered "serial": "0103"
rolled-back "serial": "0102"'
delivery why | contains 'status 3; rolled back' || fail "why: $(delivery why)"
csm cert show web --json | json delivery_error | contains '^web: the hook ended with status 3' || fail "cert show"
grep -q 'was not delivered to web: invalid: the hook ended with status 3' "$node/csmd.log" || fail "the log"
[ "$(delivery next_try)" -gt "$(date +%s)" ] || fail "next_try"
audited() { grep -h '"method":"deliver.done"' "$node"/state/audit/audit*.log | grep '"object":"uid-0:web"' | grep -c "\"target\":\"web\",\"outcome\":\"$1\""; }
expect_equal "the audit log" "$(audited delivered) $(audited rolled_back) $(audited kept)" "3 1 0"

step "it is tried again by itself"
cp hook.good "$node/t/hook"
await_that serial_is 0103
await_that state_is delivered

step "one that hangs is ended with all of its group, and so is what it had begun"
target 'deadline: 1s' <<'SH'
#!/bin/sh
[ "$CSM_EVENT" = rolled-back ] && exit 0
sleep 600 &
echo $! $$ >"$CSM_FOLDER/../../work/pids"
wait
SH
ok csm cert install web gen4
await_that state_is failed
expect_equal "the serial" "$(json serial <"$folder/meta.json")" 0103
delivery why | contains 'longer than 1 s' || fail "why: $(delivery why)"
read -r a b <pids
node_await 5 node_gone "$a" || fail "it still sleeps"
node_await 5 node_gone "$b" || fail "it still waits"

step "while one hangs, others have their turn; what hangs has no second one"
cp "$node/deliver.yaml" one.yaml
for i in 1 2; do
    issue other.csr root other$i.pem -set_serial 0x20$i
    cat other$i.pem root.pem >other-gen$i
done
ok csm cert install other other-gen1
printf '#!/bin/sh\necho "$$ $CSM_EVENT" >>"$CSM_FOLDER/../../work/hung"\n[ "$CSM_EVENT" = rolled-back ] || exec sleep 600\n' >"$node/t/hang"
chmod 0755 "$node/t/hang"
cat >>"$node/deliver.yaml" <<YAML
  web2: {key: "uid-0:web", folder: $node/t/web2, owner: "$uid_a", hook: [$node/t/hang], deadline: 60s}
  other: {key: "uid-0:other", folder: $node/t/other, owner: "$uid_a"}
YAML
ok csm policy reload
await_that test -s "hung"
on_its_way() { status_field deliveries | contains '"delivering"'; }
await_that on_its_way
delivered_beside() { [ "$(json serial <"$node/t/other/meta.json" 2>/dev/null)" = 0201 ]; }
await_that delivered_beside
# a newer certificate of what hangs waits for the end of it, and disturbs nobody
deliverer=$(pid_of_deliver)
ok csm cert install web gen5
await_that state_is failed # web's own hook, whose time is short
ok csm cert install other other-gen2
delivered_beside() { [ "$(json serial <"$node/t/other/meta.json" 2>/dev/null)" = 0202 ]; }
await_that delivered_beside
expect_equal "hooks of what hangs" "$(grep -c delivered hung)" 1
expect_equal "csm-deliver" "$(pid_of_deliver)" "$deliverer"
ok csm cert install web gen4
kill "$(cut -d' ' -f1 hung)" # its time would be over in a minute
cp one.yaml "$node/deliver.yaml"
ok csm policy reload

step "without roll_back the new one stays"
target 'roll_back: false' <<'SH'
#!/bin/sh
exit 4
SH
await_that serial_is 0104
await_that state_is failed
expect_equal "the audit log" "$(audited kept)" 1

step "a configuration that is not root's, or has a fault, is not taken; the one before stays in force"
cp hook.good "$node/t/hook"
cp "$node/deliver.yaml" good.yaml
# at once, not with its next question half a minute later
soon() {
    local end=$((SECONDS + 8))
    until "$@"; do
        [ $SECONDS -lt $end ] || { tail -5 "$node/csmd.log" >&2 && status_field warnings >&2 && fail "not soon: $*"; }
        sleep 0.05
    done
}
warned() { status_field warnings | contains "deliver.yaml is not in force: $1"; }
chown $uid_a "$node/deliver.yaml"
ok csm policy reload
soon warned '.*has to be root'
chown 0 "$node/deliver.yaml"
chmod 0666 "$node/deliver.yaml"
ok csm policy reload
soon warned '.*nobody else may write'
chmod 0644 "$node/deliver.yaml"
sed 's/owner/owners/' good.yaml >"$node/deliver.yaml"
ok csm policy reload
soon warned 'line 6, column 5: .*owners'
ok csm cert install web gen5
await_that serial_is 0105
await_that state_is delivered
expect_exit 1 "$node_build/bin/csm-deliver" --check --config "$node/deliver.yaml"
cp good.yaml "$node/deliver.yaml"
ok "$node_build/bin/csm-deliver" --check --config "$node/deliver.yaml"
ok csm policy reload
not_warned() { [ "$(status_field warnings)" = "[]" ] || ! warned ''; }
soon not_warned

step "nobody but root is told of targets, and the public socket does not serve csm-deliver's methods"
as_uid $uid_a csm status --json | json deliveries | contains -x '\[\]' || fail "targets are told"
py -c 'import csmwire
for method in ("deliver.next", "deliver.done"):
    for path in (csmwire.SOCKET, csmwire.ADMIN):
        try:
            csmwire.Conn(path).call(method, {"job": 1})
        except csmwire.Refused as e:
            assert e.name == "role", (method, path, e.name)
        else:
            raise AssertionError(method)'

step "the process that hears csmd has few rights, no sockets to make, no programs to execute"
main=$(pid_of_deliver | sed -n 1p)
expect_equal "its rights" "$(grep CapEff "/proc/$main/status" | cut -f2)" 000000000000000b
grep -q '^Seccomp:.2' "/proc/$main/status" || fail "no seccomp"
hooks=$(pgrep -P "$main")
expect_equal "processes that run hooks" "$(wc -w <<<"$hooks")" 5
for pid in $hooks; do
    expect_equal "descriptors that lead to csmd, of one that runs hooks" "$(find "/proc/$pid/fd" -lname 'socket:*' | wc -l)" 1
done

step "an owner who plants links in the folder around has nothing of others written"
mkdir "$node/t/his" "$node/t/roots"
echo root >"$node/t/roots/cert.pem"
chmod 0700 "$node/t/roots"
folder=$node/t/his/web
ln -s "$node/t/roots" "$folder"
chown -h "$uid_a" "$node/t/his" "$folder"
target </dev/null
await_that state_is failed
expect_equal "root's file" "$(cat "$node/t/roots/cert.pem")" root
expect_equal "and no other" "$(find "$node/t/roots" | wc -l)" 2
delivery why | contains 'is no folder' || fail "why: $(delivery why)"
chown "$uid_b" "$node/t/his"
rm "$folder"
ok csm cert install web gen6
why_is() { delivery why | contains "$1"; }
await_that why_is "belongs to uid $uid_b"
[ ! -e "$folder" ] || fail "made in a folder of another user"

step "csm-deliver's filter allows no call that is not on this list, and no file but those folders'"
inside=$(pid_of_deliver) inside_name=csm-deliver
# shellcheck source=../lib/inside.sh
. "$top/tests/lib/inside.sh"
expect_equal getpid "$(call getpid)" "$inside"
allowed_at_most 30 <<'LIST'
read write openat openat2 close fstat newfstatat statx lseek getdents64 mkdirat unlinkat renameat renameat2 symlinkat readlinkat fsync
flock fchown fchownat fchmod fcntl recvfrom sendto poll ppoll clock_gettime clock_nanosleep restart_syscall brk munmap mremap madvise
futex rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack exit exit_group getpid gettid getuid geteuid getrandom mmap mprotect
tgkill
LIST
no_code_no_process
no_identity_back
for name in socket socketpair connect execve fork vfork clone ptrace kill mount chroot setns; do
    refused $name 1 1 0 0
done
for path in /etc/passwd /etc/shadow "$node/csmd.yaml" "$node/state/store/data.mdb" /proc/1/environ; do
    refused openat -100 "@$path" 0 0
done
refused openat -100 "@$node/written" 0x41 0644

step "the example has no fault"
cp "$top/scripts/examples/deliver/deliver.yaml" example.yaml
ok "$node_build/bin/csm-deliver" --check --config "$work/example.yaml"

step "without the file it ends"
rm "$node/deliver.yaml"
ok csm policy reload
ended() { ! pid_of_deliver >/dev/null; }
await_that ended
