#!/bin/bash
# csm-plughost, from inside: system calls are injected. A library in it has its own user and files; nothing of csmd's or of another
# library, no program, no other process, no socket unless its configuration allows it, no way back, and no PIN but its own.
if [ -z "${CSM_TEST_INSIDE:-}" ]; then
    folder=$(mktemp -d "${TMPDIR:-/tmp}/csm-plug.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
    chmod 755 "$folder"
    for name in one two; do
        mkdir "$folder/$name"
        echo "of $name" >"$folder/$name/file"
    done
    chown -R 59121 "$folder/one"
    chown -R 59122 "$folder/two"
    chmod 755 "$folder/two" # its own rights are not what keeps others out
    cat >"$folder/csmd.yaml" <<YAML
backends:
  default: soft
  one: {type: soft, user: "59121", write: [$folder/one], environment: {MINE: "1"}}
  two: {type: soft, user: "59122", read: [$folder/two], network: local}
  three: {type: soft, user: "59123", network: true}
YAML
    "$(dirname "$0")/../../scripts/with-node.sh" --backend soft --config "$folder/csmd.yaml" -- \
        env CSM_TEST_INSIDE="$(realpath "$0")" CSM_TEST_FOLDER="$folder" "$0"
    exit
fi
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
folder=$CSM_TEST_FOLDER

process() { # NAME
    pgrep -P "$(node_pid "$node" csmd)" -f "^csm-plughost: $1 "
}
in_it() { # NAME
    inside=$(process "$1") || fail "$1 has no process"
    inside_name="csm-plughost $1"
}
for name in one two three; do
    node_await 10 csm key create "k-$name" --backend "$name" >/dev/null 2>&1 || fail "$name is not there"
done
in_it one
# shellcheck source=../lib/inside.sh
. "$top/tests/lib/inside.sh"
opened() { # PATH FLAGS: may be opened
    local fd
    fd=$(call openat -100 "@$1" "$2" 0600)
    [ "$fd" -ge 3 ] || fail "in $inside_name $1: $fd"
    expect_equal close "$(call close "$fd")" 0
}

step "the injection works, and its own folder is its own"
expect_equal getpid "$(call getpid)" "$inside"
expect_equal getuid "$(call getuid)" 59121
opened "$folder/one/file" 2
opened "$folder/one/made" 0x42
opened /usr/lib/os-release 0

step "no files of others, whatever their modes"
chmod 777 "$folder"
refused openat -100 "@$folder/two/file" 0 0
refused openat -100 "@$folder/csmd.yaml" 0 0
refused openat -100 "@$folder/made" 0x42 0600
refused openat -100 @/etc/hostname 0 0
refused openat -100 @/etc/passwd 2 0
refused openat -100 "@/proc/$CSM_PID/maps" 0 0
refused openat -100 "@/proc/$(process two)/environ" 0 0
refused openat -100 "@$node/state/store/data.mdb" 0 0
refused openat -100 "@$folder/one/../two/file" 0 0
symlink=$(call symlinkat "@$folder/two/file" -100 "@$folder/one/link")
[ "$symlink" -eq 0 ] && refused openat -100 "@$folder/one/link" 0 0
refused linkat -100 "@$folder/two/file" -100 "@$folder/one/hard" 0
refused unlink "@$folder/two/file"
[ -e "$folder/two/file" ] || fail "another's file is gone"

step "no programs, no processes, no sockets"
refused execve @/bin/true 0 0
refused execveat -100 @/bin/true 0 0 0
refused fork
refused vfork
[ "$(check clone 0x11 0 0 0)" != allow ] || fail "a process by clone"
[ "$(check clone 0x01200011 0 0 0)" != allow ] || fail "fork"
[ "$(check clone3 0 0)" != allow ] || fail "clone3"
for family in 1 2 10 16 17 40; do
    refused socket $family 1 0
done
refused connect 3 0 0
refused kill "$CSM_PID" 9
refused kill "$(process two)" 9
refused tgkill "$(process two)" "$(process two)" 9
refused ptrace 16 "$(process two)" 0 0
refused process_vm_readv "$(process two)" 0 0 0 0 0
refused pidfd_open "$(process two)" 0
refused mount @none @/tmp @tmpfs 0 0
refused unshare 0x10000000
refused chroot @/tmp
refused bpf 0 0 0
refused io_uring_setup 8 0
refused userfaultfd 0
refused keyctl 0 0 0 0 0
refused prctl 4 1
refused setrlimit 4 0
no_identity_back

step "no core file, no tracing by its own user, its own environment only, and its descriptors are channels"
expect_equal "core files" "$(awk '/Max core file size/ {print $5, $6}' "/proc/$inside/limits")" "0 0"
as_uid 59121 cat "/proc/$inside/environ" >/dev/null 2>&1 && fail "its own user can look into it"
expect_equal "environment" "$(tr '\0' ' ' <"/proc/$inside/environ")" "MINE=1 "
expect_equal "groups" "$(awk '/^Groups:/ {print NF}' "/proc/$inside/status")" 1
expect_equal "capabilities" "$(awk '/^CapEff:|^CapPrm:|^CapBnd:/ {print $2}' "/proc/$inside/status" | sed 2q | sort -u)" 0000000000000000
expect_equal "no_new_privs" "$(awk '/^NoNewPrivs:/ {print $2}' "/proc/$inside/status")" 1
expect_equal "descriptors above the channels" "$(for f in "/proc/$inside/fd/"*; do
    [ "${f##*/}" -le 6 ] || readlink "$f"
done)" ""
expect_equal "csmd's log is not its own" "$(for n in 0 1 2; do readlink "/proc/$inside/fd/$n"; done | sort -u)" /dev/null
expect_equal "channels" "$(for n in 3 4 5 6; do readlink "/proc/$inside/fd/$n" | cut -c1-7; done | sort -u)" "socket:"

step "with network: local, Unix sockets only; with true, all"
in_it two
opened "$folder/two/file" 0
refused openat -100 "@$folder/two/file" 2 0
fd=$(call socket 1 1 0)
[ "$fd" -ge 3 ] || fail "a Unix socket: $fd"
refused socket 2 1 0
refused socket 10 2 0
in_it three
fd=$(call socket 2 1 0)
[ "$fd" -ge 3 ] || fail "a socket of the network: $fd"
refused socket 17 3 0
refused openat -100 "@$folder/one/file" 0 0

step "a PIN file that others can read or write, or that is none: csmd does not start"
cd "$work"
mkdir cfg
node_make "$work/cfg" soft "" ""
try_pin() { # WHAT WORDS
    expect_exit 1 timeout 20 "$top/build/bin/csmd" --config "$work/cfg/pin.yaml" --check
    grep -q "$2" err || fail "$1: $(cat err)"
}
grep -v '^backends' cfg/csmd.yaml >cfg/pin.yaml
echo "backends: {default: soft, one: {type: soft, user: \"59121\", pin: \"file:$work/pin\"}}" >>cfg/pin.yaml
try_pin "no file" "No such file"
echo 1234 >pin
chmod 644 pin
try_pin "others can read it" "others can read or change it"
chmod 620 pin
try_pin "others can write it" "others can read or change it"
chmod 600 pin
chown 59121 pin
try_pin "another's file" "others can read or change it"
rm pin
mkdir pin
try_pin "a folder" "regular file"
rmdir pin
echo 1234 >pin
chmod 600 pin
ok timeout 20 "$top/build/bin/csmd" --config "$work/cfg/pin.yaml" --check
! grep -q 1234 err out || fail "the PIN is told"
