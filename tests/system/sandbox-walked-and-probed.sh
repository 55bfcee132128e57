#!/bin/bash
# The broker of the release binary, from inside: the seccomp filter that is installed is read and walked, and system
# calls are injected as root: nothing executes, no network, no tracing, no file outside, and root comes back by no call.
# release only
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2

# Without build/tests the other users' tests still run: this one needs its tool.
inject=$top/build/tests/system/inject
number() { # NAME: of a system call
    printf '#include <sys/syscall.h>\nSYS_%s\n' "$1" | gcc -E -P - | tail -n 1
}
call() { # NAME ARG...: prints the result in the broker
    local nr
    nr=$(number "$1")
    shift
    "$inject" "$CSM_PID" call "$nr" "$@"
}
check() { # NAME ARG...: prints the filters' verdict
    local nr
    nr=$(number "$1")
    shift
    "$inject" "$CSM_PID" check "$nr" "$@"
}
EPERM=-1 EACCES=-13
refused() { # NAME ARG...: the call fails with EPERM or EACCES, or is not there
    local result
    result=$(call "$@")
    case $result in
    "$EPERM" | "$EACCES" | -38) ;;
    *) fail "in the broker $* gave $result" ;;
    esac
}

step "the injection works: calls that are allowed"
expect_equal getpid "$(call getpid)" "$CSM_PID"
expect_equal geteuid "$(call geteuid)" "$(stat -c %u "$node/state")"
fd=$(call openat -100 "@$node/state" 0x10000 0)
[ "$fd" -ge 0 ] || fail "its own folder: $fd"
expect_equal close "$(call close "$fd")" 0

step "every call that the filter allows is on this list"
cat >known <<'LIST'
read write readv writev pread64 pwrite64 preadv pwritev close fstat newfstatat statx lseek openat open mkdir mkdirat unlink
unlinkat rename renameat renameat2 fsync fdatasync msync ftruncate fcntl flock dup getdents64 statfs fstatfs stat access
faccessat faccessat2 pipe2 eventfd2 fallocate recvmsg recvfrom sendmsg sendto accept4 getsockopt setsockopt getsockname
getpeername shutdown pidfd_open epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll clock_gettime
clock_getres clock_nanosleep nanosleep gettimeofday time timerfd_create timerfd_settime restart_syscall munmap mremap madvise
brk mlock mlock2 munlock mincore futex set_robust_list rseq rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait
sigaltstack sched_yield sched_getaffinity sched_setaffinity sched_setscheduler sched_getparam sched_getscheduler exit
exit_group membarrier getpid gettid getppid getuid geteuid getgid getegid getrlimit getrusage uname sysinfo getrandom
readlink readlinkat getcwd mmap mprotect clone prctl tgkill prlimit64
LIST
{
    echo '#include <sys/syscall.h>'
    tr ' ' '\n' <known | sed '/^$/d; s/^/SYS_/'
} | gcc -E -P - | grep -E '^[0-9]+$' | sort -n >known.numbers
"$inject" "$CSM_PID" allowed >walk
grep -E '^[0-9]+$' walk | sort -n >allowed.numbers
[ "$(wc -l <allowed.numbers)" -ge 40 ] || fail "the walk found almost nothing allowed: it does not work"
sort known.numbers >a
sort allowed.numbers >b
expect_equal "calls allowed that nobody listed" "$(comm -13 a b | xargs)" ""
expect_equal "other call conventions" "$(grep -cE 'x32|i386' walk || true)" 0

step "conditions on arguments"
for family in 0 1 2 3 10 16 17 31 38 40; do
    [ "$(check socket $family 1 0)" != allow ] || fail "socket family $family is allowed"
    [ "$(check socketpair $family 1 0)" != allow ] || fail "socketpair family $family is allowed"
done
expect_equal "mmap without exec" "$(check mmap 0 4096 3 0x22 -1 0)" allow
[ "$(check mmap 0 4096 5 0x22 -1 0)" != allow ] || fail "executable memory by mmap"
[ "$(check mprotect 0 4096 5)" != allow ] || fail "executable memory by mprotect"
[ "$(check clone 0x11 0 0 0)" != allow ] || fail "a process by clone"
[ "$(check clone 0x01200011 0 0 0)" != allow ] || fail "fork"
[ "$(check clone3 0 0)" != allow ] || fail "clone3"
[ "$(check prctl 4 1)" != allow ] || fail "PR_SET_DUMPABLE"
[ "$(check prctl 38 0)" != allow ] || fail "PR_SET_NO_NEW_PRIVS"
[ "$(check prlimit64 0 4 1)" != allow ] || fail "setting a limit"
[ "$(check tgkill "$CSM_PID" "$CSM_PID" 9)" != allow ] || fail "tgkill"

step "nothing executes, no network, no tracing, no other process"
refused execve @/bin/true 0 0
refused execveat -100 @/bin/true 0 0 0
refused fork
refused vfork
refused socket 2 1 0
refused socket 10 2 0
refused socket 16 3 0
refused ptrace 16 1 0 0
refused process_vm_readv 1 0 0 0 0 0
refused kill 1 0
refused connect 0 0 0
refused bpf 0 0 0
refused io_uring_setup 8 0
refused userfaultfd 0
refused keyctl 0 0
refused perf_event_open 0 0 -1 -1 0
refused mount @none @/tmp @tmpfs 0 0
refused unshare 0x10000000
refused setns 0 0
refused chroot @/tmp
refused init_module 0 0 @x
refused memfd_create @x 0
refused chmod "@$node/state" 0777
refused symlink @/etc/passwd "@$node/state/link"
refused link @/etc/passwd "@$node/state/link"

step "root comes back by no call"
for id in setuid setgid setfsuid setreuid setregid setresuid setresgid; do
    refused $id 0 0 0
done
refused setgroups 0 0
refused capset 0 0
refused prctl 47 2 0 0 0
expect_equal geteuid "$(call geteuid)" "$(stat -c %u "$node/state")"

step "no file outside but what /proc tells everyone (Landlock), whatever its mode"
echo secret >"$node/readable"
chmod 0666 "$node/readable"
for path in /etc/passwd /etc/shadow /proc/1/environ /dev/null "$node/readable" "$node/csmd.yaml" "$node/policy.yaml" "$top/Makefile" \
    /tmp / "$node/state/../readable"; do
    refused openat -100 "@$path" 0 0
done
refused openat -100 "@$node/written" 0x41 0644
refused unlink "@$node/readable"
refused rename "@$node/state/store" "@$node/store"
refused mkdir "@$node/new" 0755
[ -e "$node/readable" ] || fail "a file outside is gone"

step "and it serves on"
ok csm whoami
expect_equal "the broker" "$(node_broker_pid "$node")" "$CSM_PID"
