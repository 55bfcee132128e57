#!/bin/bash
# csm-enrol, from inside: system calls are injected. It may speak to the network and read the files of the name service; no other
# file, no program, no process, no Unix socket but its channels, no way back. It dies with csmd's broker, and is started anew.
if [ -z "${CSM_TEST_INSIDE:-}" ]; then
    folder=$(mktemp -d "${TMPDIR:-/tmp}/csm-enrol.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
    cat >"$folder/csmd.yaml" <<YAML
enrolment:
  profiles:
    default:
      protocol: cms
      url: https://127.0.0.1:1
      root_sha256: "$(printf '%064d' 0)"
YAML
    CSM_SERVER=https://csm.test:8443 SECRET_OF_CSMD=1 "$(dirname "$0")/../../scripts/with-node.sh" --backend soft \
        --config "$folder/csmd.yaml" -- env CSM_TEST_INSIDE="$(realpath "$0")" "$0"
    exit
fi
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
process() { pgrep -P "$(node_pid "$node" csmd)" -x csm-enrol; }
started() { inside=$(process) && [ "$(find "/proc/$inside/task" -mindepth 1 -maxdepth 1 | wc -l)" -eq 4 ]; }
node_await 10 started || fail "csm-enrol does not run"
inside_name=csm-enrol
user=$(awk '/^Uid:/ {print $2}' "/proc/$inside/status")
# shellcheck source=../lib/inside.sh
. "$top/tests/lib/inside.sh"

step "the injection works; it is a user of its own, with no right"
expect_equal getpid "$(call getpid)" "$inside"
case $user in 0 | "$(awk '/^Uid:/ {print $2}' "/proc/$CSM_PID/status")") fail "its user is $user" ;; esac
expect_equal "groups" "$(awk '/^Groups:/ {print NF}' "/proc/$inside/status")" 1
expect_equal "capabilities" "$(awk '/^CapEff:|^CapPrm:|^CapInh:/ {print $2}' "/proc/$inside/status" | sort -u)" 0000000000000000
expect_equal "no_new_privs" "$(awk '/^NoNewPrivs:/ {print $2}' "/proc/$inside/status")" 1
expect_equal "environment" "$(tr '\0' ' ' <"/proc/$inside/environ")" "CSM_SERVER=https://csm.test:8443 "
expect_equal "core files" "$(awk '/Max core file size/ {print $5, $6}' "/proc/$inside/limits")" "0 0"
as_uid "$user" cat "/proc/$inside/environ" >/dev/null 2>&1 && fail "its own user can look into it"

step "every call that the filter allows is on this list"
allowed_at_most 40 <<'LIST'
connect sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg getsockopt setsockopt getsockname getpeername shutdown poll ppoll select
pselect6 read readv write writev close fstat newfstatat statx lseek fcntl clock_gettime clock_nanosleep nanosleep gettimeofday
time restart_syscall brk munmap mremap madvise mlock mlock2 munlock futex set_robust_list rseq rt_sigaction rt_sigprocmask
rt_sigreturn sigaltstack sched_yield sched_getaffinity exit exit_group membarrier getpid gettid getuid geteuid getgid getegid
getrandom uname sysinfo getrusage socket openat ioctl mmap mprotect clone prctl tgkill
LIST

step "the network, and the files of the name service"
for family in 2 10; do
    fd=$(call socket $family 1 0)
    [ "$fd" -ge 3 ] || fail "no socket of family $family: $fd"
    expect_equal close "$(call close "$fd")" 0
done
fd=$(call openat -100 @/etc/hosts 0 0)
[ "$fd" -ge 3 ] || fail "/etc/hosts: $fd"
expect_equal close "$(call close "$fd")" 0

step "no other file, and none to write"
refused openat -100 @/etc/hosts 2 0
refused openat -100 @/etc/passwd 0 0
refused openat -100 @/etc/ssl/openssl.cnf 0 0
refused openat -100 @/tmp/made 0x41 0600
refused openat -100 "@$node/csmd.yaml" 0 0
refused openat -100 "@$node/state/store/data.mdb" 0 0
refused openat -100 "@/proc/$CSM_PID/maps" 0 0
refused openat -100 @/proc/self/maps 0 0
for name in unlink mkdir rename link symlink chmod truncate; do
    refused $name "@$work" "@$work/other"
done

step "no other socket, nothing that serves, no program, no process"
for family in 1 16 17 40; do
    refused socket $family 1 0
done
refused socketpair 1 1 0 0
for name in bind listen accept accept4; do
    refused $name 3 0 0 0
done
refused execve @/bin/true 0 0
refused execveat -100 @/bin/true 0 0 0
refused fork
refused vfork
refused kill "$CSM_PID" 9
refused ptrace 16 "$CSM_PID" 0 0
refused process_vm_readv "$CSM_PID" 0 0 0 0 0
refused pidfd_open "$CSM_PID" 0
refused mount @none @/tmp @tmpfs 0 0
refused unshare 0x10000000
refused chroot @/tmp
refused bpf 0 0 0
refused io_uring_setup 8 0
refused userfaultfd 0
refused keyctl 0 0 0 0 0
refused ioctl 3 0x5412 0
no_code_no_process
no_identity_back

step "it is started anew when it dies, and does not outlive its broker"
kill -9 "$inside"
node_await 10 node_gone "$inside" || fail "it lives"
node_await 10 started || fail "it is not started again"
old=$inside
kill9 broker "with csm-enrol"
node_await 10 node_gone "$old" || fail "it outlives its broker"
node_await 10 started || fail "it is not started for the next broker"
