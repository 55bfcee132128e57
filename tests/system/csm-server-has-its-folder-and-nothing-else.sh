#!/bin/bash
# csm-server, from inside: its seccomp filter is read and walked, and system calls are injected. It has its folder, the sockets that it
# was given and Unix sockets; no other file, no program, no process, no connection of its own to the network, no way back to root.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft --server
server=$node/server
read -r inside <"$server/pid"
inside_name=csm-server
# shellcheck source=../lib/inside.sh
. "$top/tests/lib/inside.sh"
user=$(stat -c %u "$server/state")

step "the injection works; it is a user of its own, with no right"
expect_equal getpid "$(call getpid)" "$inside"
expect_equal geteuid "$(call geteuid)" "$user"
case $user in 0 | "$(awk '/^Uid:/ {print $2}' "/proc/$CSM_PID/status")") fail "its user is $user" ;; esac
expect_equal "groups" "$(awk '/^Groups:/ {print NF}' "/proc/$inside/status")" 1
expect_equal "capabilities" "$(awk '/^CapEff:|^CapPrm:|^CapInh:|^CapAmb:/ {print $2}' "/proc/$inside/status" | sort -u)" 0000000000000000
expect_equal "no_new_privs" "$(awk '/^NoNewPrivs:/ {print $2}' "/proc/$inside/status")" 1
expect_equal "threads without a filter" "$(awk '/^Seccomp:/ && $2 != 2' "/proc/$inside"/task/*/status)" ""
expect_equal "core files" "$(awk '/Max core file size/ {print $5, $6}' "/proc/$inside/limits")" "0 0"
as_uid "$user" cat "/proc/$inside/environ" >/dev/null 2>&1 && fail "its own user can look into it"
fd=$(call openat -100 "@$server/state/probe" 0x41 0600)
[ "$fd" -ge 3 ] || fail "its own folder: $fd"
expect_equal close "$(call close "$fd")" 0
expect_equal unlink "$(call unlink "@$server/state/probe")" 0

step "every call that the filter allows is on this list"
allowed_at_most 40 <<'LIST'
read write readv writev pread64 pwrite64 preadv pwritev close fstat newfstatat statx lseek openat open mkdir mkdirat unlink
unlinkat rename renameat renameat2 fsync fdatasync msync ftruncate fcntl flock dup getdents64 statfs fstatfs stat lstat access
faccessat faccessat2 pipe2 eventfd2 fallocate recvmsg recvfrom sendmsg sendto accept4 connect getsockopt setsockopt getsockname
getpeername shutdown epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll clock_gettime clock_getres
clock_nanosleep nanosleep gettimeofday time timerfd_create timerfd_settime restart_syscall munmap mremap madvise brk mlock mlock2
munlock mincore futex set_robust_list rseq rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait sigaltstack sched_yield
sched_getaffinity sched_getparam sched_getscheduler exit exit_group membarrier getpid gettid getppid getuid geteuid getgid getegid
getrlimit getrusage uname sysinfo getrandom readlink readlinkat getcwd socket ioctl mmap mprotect clone prctl tgkill prlimit64
LIST

step "conditions on arguments"
expect_equal "a Unix socket, to csmd" "$(check socket 1 1 0)" allow
for family in 0 2 3 10 16 17 31 38 40; do
    [ "$(check socket $family 1 0)" != allow ] || fail "socket family $family is allowed"
done
[ "$(check ioctl 3 0x5412)" != allow ] || fail "TIOCSTI"
[ "$(check prlimit64 0 4 1)" != allow ] || fail "setting a limit"
no_code_no_process

step "nothing executes, nothing listens anew, no tracing, no other process"
refused execve @/bin/true 0 0
refused execveat -100 @/bin/true 0 0 0
refused fork
refused vfork
refused socketpair 1 1 0 0
for name in bind listen accept; do
    refused $name 3 0 0
done
refused kill 1 0
refused pidfd_open 1 0
refused ptrace 16 1 0 0
refused process_vm_readv 1 0 0 0 0 0
refused bpf 0 0 0
refused io_uring_setup 8 0
refused userfaultfd 0
refused keyctl 0 0
refused memfd_create @x 0
refused mount @none @/tmp @tmpfs 0 0
refused unshare 0x10000000
refused setns 0 0
refused chroot @/tmp
refused chmod "@$server/state" 0777
refused symlink @/etc/passwd "@$server/state/link"
refused link @/etc/passwd "@$server/state/link"

step "root comes back by no call"
no_identity_back
expect_equal geteuid "$(call geteuid)" "$user"

step "no file outside (Landlock), whatever its mode"
echo secret >"$node/readable"
chmod 0666 "$node/readable"
for path in /etc/passwd /etc/ssl/openssl.cnf /proc/1/environ "/proc/$CSM_PID/maps" /dev/null "$node/readable" "$node/csmd.yaml" \
    "$node/state/store/data.mdb" "$top/Makefile" /tmp /; do
    refused openat -100 "@$path" 0 0
done
refused openat -100 "@$node/written" 0x41 0644
refused openat -100 "@$server/server.yaml" 2 0
refused unlink "@$node/readable"
refused rename "@$server/state/data.mdb" "@$node/data.mdb"
[ -e "$node/readable" ] || fail "a file outside is gone"

step "and it serves on"
expect_equal "healthz" "$(curl -sS -m 10 --cacert "$CSM_CACERT" -o /dev/null -w '%{http_code}' "$CSM_SERVER/healthz")" 200
read -r now <"$server/pid"
expect_equal csm-server "$now" "$inside"
