# shellcheck shell=bash
# A process of the release, from inside: its seccomp filter is walked, and system calls are injected (tests/system/inject.c).
# Sourced after in_node; who sources it sets `inside`, the process, and `inside_name`, what it is called in a failure.
: "${top:?}" "${inside:?}" "${inside_name:?}"
inject=$top/build/tests/system/inject

number() { # NAME: of a system call
    printf '#include <sys/syscall.h>\nSYS_%s\n' "$1" | gcc -E -P - | tail -n 1
}
call() { # NAME ARG...: prints the result in the process
    local nr
    nr=$(number "$1")
    shift
    "$inject" "$inside" call "$nr" "$@"
}
check() { # NAME ARG...: prints the filters' verdict
    local nr
    nr=$(number "$1")
    shift
    "$inject" "$inside" check "$nr" "$@"
}
refused() { # NAME ARG...: the call fails with EPERM or EACCES, or is not there
    local result
    result=$(call "$@")
    case $result in
    -1 | -13 | -38) ;;
    *) fail "in $inside_name $* gave $result" ;;
    esac
}

# The filter allows no call but those on stdin, and at least so many.
allowed_at_most() { # LEAST
    {
        echo '#include <sys/syscall.h>'
        tr ' ' '\n' | sed '/^$/d; s/^/SYS_/'
    } | gcc -E -P - | grep -E '^[0-9]+$' | sort >a
    "$inject" "$inside" allowed >walk
    grep -E '^[0-9]+$' walk | sort >b
    [ "$(wc -l <b)" -ge "$1" ] || fail "the walk found almost nothing allowed: it does not work"
    expect_equal "calls allowed that nobody listed" "$(comm -13 a b | xargs)" ""
    expect_equal "other call conventions" "$(grep -cE 'x32|i386' walk || true)" 0
}

# What every process of csmd's that has a filter is refused by the arguments of calls that it needs.
no_code_no_process() {
    [ "$(check mmap 0 4096 5 0x22 -1 0)" != allow ] || fail "executable memory by mmap"
    [ "$(check mprotect 0 4096 5)" != allow ] || fail "executable memory by mprotect"
    [ "$(check clone 0x11 0 0 0)" != allow ] || fail "a process by clone"
    [ "$(check clone 0x01200011 0 0 0)" != allow ] || fail "fork"
    [ "$(check clone3 0 0)" != allow ] || fail "clone3"
    [ "$(check prctl 4 1)" != allow ] || fail "PR_SET_DUMPABLE"
    [ "$(check tgkill "$inside" "$inside" 9)" != allow ] || fail "tgkill"
}
no_identity_back() {
    local id
    for id in setuid setgid setfsuid setreuid setregid setresuid setresgid; do
        refused $id 0 0 0
    done
    refused setgroups 0 0
    refused capset 0 0
}
