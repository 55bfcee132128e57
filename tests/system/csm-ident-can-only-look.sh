#!/bin/bash
# csm-ident, from inside: its seccomp filter is read and walked, and system calls are injected: it has the rights to look at
# every process and to read every file, and still nothing executes, connects, traces, signals, writes, or comes back to root.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
policy <<YAML
version: 1
default: uid-namespaces
identities:
  app: {uid: $uid_a, exe: $work/csm}
YAML
cp "$top/build/bin/csm" "$work/csm"
ok as_uid $uid_a "$work/csm" whoami

ident=$(pgrep -P "$(node_pid "$node" csmd)" -x csm-ident) || fail "csm-ident does not run"
inside=$ident inside_name="csm-ident"
# shellcheck source=../lib/inside.sh
. "$top/tests/lib/inside.sh"

step "the injection works: it looks at programs and reads files"
expect_equal getpid "$(call getpid)" "$ident"
fd=$(call openat -100 @/etc/shadow 0 0)
[ "$fd" -ge 0 ] || fail "a file of root's: $fd"
expect_equal close "$(call close "$fd")" 0
fd=$(call openat -100 "@/proc/$(node_pid "$node" csmd)/exe" 0x200000 0)
[ "$fd" -ge 0 ] || fail "the program of a process of root: $fd"
expect_equal close "$(call close "$fd")" 0

step "every call that the filter allows is on this list"
allowed_at_most 20 <<'LIST'
openat openat2 statx readlink readlinkat read pread64 fstat newfstatat lseek close recvfrom sendto write poll ppoll
clock_gettime clock_nanosleep restart_syscall munmap mremap madvise brk futex set_robust_list rseq rt_sigaction
rt_sigprocmask rt_sigreturn sigaltstack sched_yield sched_getaffinity exit exit_group membarrier getpid gettid getrandom
mmap mprotect clone prctl tgkill
LIST

step "conditions on arguments"
expect_equal "reading" "$(check openat -100 0 0x80000 0)" allow
for flags in 1 2 0x40 0x41 0x200 0x400 0x402 0x410000; do
    case $flags in
    0x410000) [ "$(check openat -100 0 $((flags | 2)) 0)" != allow ] || fail "O_TMPFILE" ;;
    *) [ "$(check openat -100 0 $flags 0)" != allow ] || fail "openat with flags $flags" ;;
    esac
done
expect_equal "its log" "$(check write 2 0 1)" allow
for fd in 1 3 5 6 7 8 100; do
    [ "$(check write $fd 0 1)" != allow ] || fail "writing to descriptor $fd"
done
expect_equal "mmap without exec" "$(check mmap 0 4096 3 0x22 -1 0)" allow
for fd in 0 1 2 3 4 0x100000002 0x7000000000000004; do
    [ "$(check close $fd)" != allow ] || fail "its own descriptor $fd is closed"
    [ "$(check lseek $fd 0 0)" != allow ] || fail "descriptor $fd, its log or socket, is moved"
done
expect_equal "closing what it opened" "$(check close 5)" allow
how=0x100000
expect_equal "openat2 as it was made for it" "$(check openat2 -100 0 $how 24)" allow
for at in 0 0x100008 0xfff8 0x7fff00000000 0x100000000100000; do
    [ "$(check openat2 -100 0 $at 24)" != allow ] || fail "openat2 with what lies at $at"
done
[ "$(check openat2 -100 0 $how 32)" != allow ] || fail "openat2 with more than it was made for"
for name in munmap mremap madvise mprotect; do
    expect_equal "$name elsewhere" "$(check $name 0x7f0000000000 4096 1 0)" allow
    for at in 0 $how 0x10000 0xff00000000100000 0x100000000100000; do
        [ "$(check $name "$at" 0x200000 1 0)" != allow ] || fail "$name from $at on, where the flags of openat2 are"
    done
done
[ "$(check mremap 0x7f0000000000 4096 4096 3 $how)" != allow ] || fail "mremap to a place"
[ "$(check mmap $how 4096 3 0x32 -1 0)" != allow ] || fail "mmap to a place"
grep -qE '^0*100000-0*101000 r--p ' "/proc/$ident/maps" || fail "the flags of openat2 are not where the filter has them"
expect_equal "mappings below them" "$(head -n 1 "/proc/$ident/maps" | cut -d- -f1 | sed 's/^0*//')" 100000
[ "$(check mmap 0 4096 3 1 5 0)" != allow ] || fail "a shared mapping"
no_code_no_process
[ "$(check prctl 8 1)" != allow ] || fail "PR_SET_KEEPCAPS"

step "nothing executes, no network, no other process, though it may look at all of them"
refused execve @/bin/true 0 0
refused execveat -100 @/bin/true 0 0 0
refused fork
refused vfork
refused socket 1 1 0
refused socket 2 1 0
refused connect 0 0 0
refused sendmsg 3 0 0
refused recvmsg 3 0 0
refused ptrace 16 1 0 0
refused process_vm_readv 1 0 0 0 0 0
refused process_vm_writev 1 0 0 0 0 0
refused kill "$CSM_PID" 9
refused pidfd_open 1 0
refused pidfd_getfd 3 0 0
refused open_by_handle_at 3 0 0
refused name_to_handle_at -100 @/ 0 0 0
refused kcmp 1 1 0 0 0
refused bpf 0 0 0
refused io_uring_setup 8 0
refused userfaultfd 0
refused perf_event_open 0 0 -1 -1 0
refused mount @none @/tmp @tmpfs 0 0
refused unshare 0x10000000
refused setns 0 0
refused chroot @/tmp
refused memfd_create @x 0
no_identity_back

step "nothing is written: not another's memory, not a file that everyone may write"
echo open >"$work/open"
chmod 0666 "$work/open"
refused openat -100 "@$work/open" 1 0
refused openat -100 "@$work/made" 0x41 0644
refused openat -100 "@/proc/$CSM_PID/mem" 2 0
refused unlink "@$work/open"
refused unlinkat -100 "@$work/open" 0
refused rename "@$work/open" "@$work/moved"
refused mkdir "@$work/folder" 0755
refused truncate "@$work/open" 0
refused chmod "@$work/open" 0777
how() { # FLAGS MODE: struct open_how
    python3 -c 'import struct, sys; print(struct.pack("<QQQ", int(sys.argv[1], 0), int(sys.argv[2], 0), 0).hex())' "$@"
}
refused close 2
refused openat2 -100 "@$work/made" "@x:$(how 0x41 0x1a4)" 24
refused openat2 -100 "@$work/open" "@x:$(how 0x201 0)" 24
refused openat2 -100 "@$work/open" "@x:$(how 1 0)" 24
refused openat2 -100 "@$work/open" "@x:$(how 0 0)" 24
refused pwrite64 2 @stolen 6 0
refused writev 2 0 0
refused dup2 0 2
refused dup3 0 2 0
refused fcntl 0 0 2
refused close_range 2 2 0
refused ftruncate 2 0
expect_equal "the file" "$(cat "$work/open")" open
[ ! -e "$work/made" ] || fail "a file was made"
fd=$(call openat -100 "@$work/open" 0 0)
[ "$fd" -ge 5 ] || fail "a file got the number $fd, which can be written to"
refused write "$fd" @stolen 6
expect_equal close "$(call close "$fd")" 0
how=0x100000
expect_equal "openat2 with the flags that it has" "$(fd=$(call openat2 -100 "@$work/csm" $how 24) && [ "$fd" -ge 5 ] &&
    call close "$fd")" 0

step "no core file, no tracing by its own user, and it ends with csmd's supervisor"
expect_equal "core files" "$(awk '/Max core file size/ {print $5, $6}' "/proc/$ident/limits")" "0 0"
owner=$(awk '/^Uid:/ {print $2}' "/proc/$ident/status")
as_uid "$owner" cat "/proc/$ident/environ" >/dev/null 2>&1 && fail "its own user can look into it"
expect_equal "its environment" "$(tr -d '\0' <"/proc/$ident/environ")" ""

step "and it serves on"
ok as_uid $uid_a "$work/csm" whoami
expect_equal "csm-ident" "$(pgrep -P "$(node_pid "$node" csmd)" -x csm-ident)" "$ident"
kill -KILL "$(node_pid "$node" csmd)"
node_await 5 node_gone "$ident" || fail "csm-ident outlives csmd"
