# shellcheck shell=bash
# Containers and cgroups for the scripts of tests/system, made by hand from what the kernel has. Sourced after system.sh.
# shellcheck disable=SC2154 # work, top, uid_a are system.sh's

# ---- cgroups ----

# Sets cgroup_root, the root of the unified hierarchy; a skip where no groups can be made in it.
need_cgroups() {
    for cgroup_root in /sys/fs/cgroup/unified /sys/fs/cgroup ""; do
        [ ! -w "$cgroup_root/cgroup.procs" ] || break
    done
    if [ -z "$cgroup_root" ] || [ "$(id -u)" -ne 0 ] || [ "$(stat -Lc %i /proc/self/ns/cgroup)" != 4026531835 ]; then
        echo "skip: no unified cgroup hierarchy to make groups in"
        exit 77
    fi
}

# make_groups PATH...: from the hierarchy's root; they go when the script ends.
cgroups_made=()
make_groups() {
    local path i
    trap remove_groups EXIT
    for path in "$@"; do
        cgroups_made+=("$path")
        # Another test may take a parent away that it believes to be its own.
        for ((i = 0; i < 50; i++)); do
            if mkdir -p "$cgroup_root$path" 2>/dev/null; then break; fi
            sleep 0.02
        done
        [ -d "$cgroup_root$path" ] || fail "cannot make the cgroup $path"
    done
}
# What is below them goes too, so that no other test may have anything there; parents that others use stay.
remove_groups() {
    local path i
    for path in "${cgroups_made[@]}"; do
        # The last process of a group may still be on its way out.
        for ((i = 0; i < 100; i++)); do
            [ -d "$cgroup_root$path" ] || break
            find "$cgroup_root$path" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.02
        done
        while path=$(dirname "$path") && [ "$path" != / ] && rmdir "$cgroup_root$path" 2>/dev/null; do
            :
        done
    done
}

# in_group PATH UID COMMAND...
in_group() {
    local path=$1 uid=$2
    shift 2
    (echo "$BASHPID" >"$cgroup_root$path/cgroup.procs" && as_uid "$uid" "$@")
}
# group_told PATH UID FIELD: what whoami says there; nothing where it has no such field.
group_told() {
    in_group "$1" "$2" csm whoami --json | field "$3"
}

# A field of the object on stdin, empty where it is not there.
field() {
    /usr/bin/python3 -c 'import json, sys
v = json.load(sys.stdin).get(sys.argv[1], "")
print(v if isinstance(v, str) else json.dumps(v))' "$1"
}

# ---- containers ----

# in_container COMMAND...: root in mount, pid, cgroup, ipc, uts and network namespaces of its own, with the system's
# programs and nothing of the node but its public folder, mounted read-only at /run/csm/public, as pods have it. It has
# all capabilities: no engine gives more. /inside has copies of what is in $work/inside; csm is on the path, CSM_SOCKET set.
in_container() {
    mkdir -p "$work/inside" "$work/root"
    unshare --mount --pid --cgroup --ipc --uts --net --fork --kill-child --propagation private \
        /bin/bash "$top/tests/lib/container.sh" "$work/root" "$CSM_NODE_DIR" "$work/inside" "$@"
}
need_namespaces() {
    if ! unshare --mount --pid --cgroup --ipc --uts --net --fork true 2>/dev/null ||
        ! as_uid "$uid_a" unshare --user --map-root-user true 2>/dev/null; then
        echo "skip: no user, mount, pid and cgroup namespaces can be made here"
        exit 77
    fi
}
