#!/bin/bash
# The broker of the release binary, from inside: the seccomp filter that is installed is read and walked, and system
# calls are injected as root: nothing executes, no network, no tracing, no file outside, and root comes back by no call.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2

inside=$CSM_PID inside_name="the broker"
# shellcheck source=../lib/inside.sh
. "$top/tests/lib/inside.sh"

step "the injection works: calls that are allowed"
expect_equal getpid "$(call getpid)" "$CSM_PID"
expect_equal geteuid "$(call geteuid)" "$(stat -c %u "$node/state")"
fd=$(call openat -100 "@$node/state" 0x10000 0)
[ "$fd" -ge 0 ] || fail "its own folder: $fd"
expect_equal close "$(call close "$fd")" 0

step "every call that the filter allows is on this list"
allowed_at_most 40 <<'LIST'
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

step "conditions on arguments"
for family in 0 1 2 3 10 16 17 31 38 40; do
    [ "$(check socket $family 1 0)" != allow ] || fail "socket family $family is allowed"
    [ "$(check socketpair $family 1 0)" != allow ] || fail "socketpair family $family is allowed"
done
expect_equal "mmap without exec" "$(check mmap 0 4096 3 0x22 -1 0)" allow
no_code_no_process
[ "$(check prctl 38 0)" != allow ] || fail "PR_SET_NO_NEW_PRIVS"
[ "$(check prlimit64 0 4 1)" != allow ] || fail "setting a limit"

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
no_identity_back
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
