#!/bin/bash
# The broker's memory is out of reach: no core file, not dumpable, no tracing by its own uid, secrets in locked memory
# that a core would not have; privileges are gone for good.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

status() { sed -nE "s/^$1:[[:space:]]*//p" "/proc/$CSM_PID/status"; }
step "privileges"
expect_equal Uid "$(status Uid | tr '\t' ' ' | tr -s ' ' | cut -d' ' -f1-4 | tr ' ' '\n' | sort -u | wc -l)" 1
[ "$(status Uid | cut -f1)" -ne 0 ] || fail "the broker is root"
[ "$(status Gid | cut -f1)" -ne 0 ] || fail "the broker is in root's group"
expect_equal Groups "$(status Groups | tr -d ' ')" ""
for set in CapInh CapPrm CapEff CapAmb; do
    expect_equal "$set" "$(status $set)" 0000000000000000
done
expect_equal NoNewPrivs "$(status NoNewPrivs)" 1
expect_equal Seccomp "$(status Seccomp)" 2
for task in "/proc/$CSM_PID/task"/*; do
    expect_equal "Seccomp of ${task##*/}" "$(sed -nE 's/^Seccomp:[[:space:]]*//p' "$task/status")" 2
    expect_equal "NoNewPrivs of ${task##*/}" "$(sed -nE 's/^NoNewPrivs:[[:space:]]*//p' "$task/status")" 1
done

step "no core, not dumpable, not traced by its own uid"
expect_equal "core limit" "$(awk '/^Max core file size/ {print $5, $6}' "/proc/$CSM_PID/limits")" "0 0"
expect_equal "owner of its memory" "$(stat -c %u "/proc/$CSM_PID/mem")" 0
broker_uid=$(status Uid | cut -f1)
expect_exit 1 as_uid "$broker_uid" head -c 1 "/proc/$CSM_PID/environ"
expect_exit 1 as_uid "$broker_uid" timeout 10 strace -qq -p "$CSM_PID"

step "no socket but AF_UNIX, nothing open that is not its own"
for fd in "/proc/$CSM_PID/fd"/*; do
    target=$(readlink "$fd") || continue
    case $target in
    socket:* | anon_inode:* | pipe:* | /memfd:* | /dev/null | /dev/tpm* | "$node"/state/*) ;;
    "$node"/csmd.log) ;;
    *) fail "open in the broker: $target" ;;
    esac
    case $target in
    socket:*)
        inode=${target//[^0-9]/}
        ! grep -qw "$inode" /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6 || fail "a network socket"
        ;;
    esac
done
[ "$(status VmLck | cut -d' ' -f1)" -gt 0 ] || fail "no locked memory"
