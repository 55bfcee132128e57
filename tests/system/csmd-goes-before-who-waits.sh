#!/bin/bash
# csmd, the broker and its threads have the nice value of csmd.yaml, -2 unless it says otherwise; what csmd was started
# with is left alone. Where the kernel groups processes by sessions, csmd's group has it too, and nobody else's.
# shellcheck source=../lib/system.sh
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

stop_all() {
    local dir
    for dir in "$work"/node-*; do node_csmd_stop "$dir"; done
}
trap stop_all EXIT

nice_of() { # FOLDER IN /proc
    sed -E 's/.*\) //' "$1/stat" | cut -d' ' -f17
}
group_of() { # PID: "" where the kernel does not group
    [ "$(cat /proc/sys/kernel/sched_autogroup_enabled 2>/dev/null || echo 0)" = 1 ] || return 0
    sed 's/.* nice //' "/proc/$1/autogroup"
}
ours=$(group_of $$)

# A node whose csmd.yaml has LINE, started with the nice value STARTED: WANTED is what it has then.
looks() { # NAME LINE STARTED WANTED
    local dir=$work/node-$1 pid task
    mkdir -p "$dir"
    echo "$2" >"$dir/given.yaml"
    node_make "$dir" soft "" "" "$dir/given.yaml"
    (renice -n "$3" $BASHPID >/dev/null && node_csmd_start "$dir") || fail "csmd does not serve: $(tail -n 3 "$dir/csmd.log")"
    for pid in "$(node_pid "$dir" csmd)" "$(node_broker_pid "$dir")"; do
        for task in "/proc/$pid/task/"*; do
            expect_equal "$1: nice of $(cat "$task/comm")" "$(nice_of "$task")" "$4"
        done
        [ -z "$ours" ] || expect_equal "$1: nice of the session" "$(group_of "$pid")" "$4"
    done
    expect_equal "$1: nice of our own session" "$(group_of $$)" "$ours"
}
step "unless told otherwise"
looks default "log_level: info" 0 -2
step "as csmd.yaml says"
looks configured "nice: 4" 0 4
looks not-at-all "nice: 0" 0 0
step "as it was started"
looks started "nice: -5" 3 3
