#!/bin/bash
# Run the tests: one line for each test program or script, the tail of what a failed one said, and at the end those that
# failed once more and the line "N passed, N failed". One more runs at a time than there are processors (CSM_JOBS), since
# many of them wait; those that measure time run by themselves.
#
# usage: check.sh [PATTERN...]       PATTERN: only tests whose name contains one of them
#
# A script says what it needs in comments at its top:
#   # bound: SECONDS          how long it may take (default 120)
#   # bound-long: SECONDS     the same with CSM_LONG=1 (default: ten times the bound)
#   # alone                   nothing else may run beside it: it measures time
# Exit status 77 of a script, with a line "skip: REASON", is a skip; anything else but 0 is a failure. CSM_LONG=1: full
# counts. The results stay in build/check/. Ended by a signal, it ends its tests, and is gone when they are.
set -uo pipefail
self=$(realpath "$0")
cd "$(dirname "$self")/.." || exit 1
out=$PWD/build/check
export CSM_LONG=${CSM_LONG:-}
# shellcheck source=node-lib.sh
. scripts/node-lib.sh

# Children run in the background, so that a signal is acted on at once: it is passed on as TERM, and then they are
# waited for. A shell's background children ignore INT, which those of the tests must not.
children=() ended_by=''
told() { # SIGNAL
    ended_by=$1
    [ ${#children[@]} -eq 0 ] || kill -TERM "${children[@]}" 2>/dev/null || true
}
trap 'told TERM' TERM
trap 'told HUP' HUP
trap 'told INT' INT
start() { # COMMAND...
    env --default-signal=INT,QUIT -- "$@" &
    children+=($!)
    [ -z "$ended_by" ] || kill -TERM $! 2>/dev/null
}
# Wait until at most that many are left; `status` is that of the last one.
wait_for_all_but() { # COUNT
    local i
    while [ ${#children[@]} -gt "$1" ]; do
        wait -n "${children[@]}"
        for i in "${!children[@]}"; do
            node_gone "${children[i]}" || continue
            wait "${children[i]}" 2>/dev/null && status=0 || status=$?
            unset "children[i]"
        done
        children=("${children[@]}")
    done
}
leave_if_ended() {
    [ -n "$ended_by" ] || return 0
    echo "ended by SIG$ended_by"
    exit $((128 + $(kill -l "$ended_by")))
}

# ---- one test: check.sh --one FILE ------------------------------------------------
# FILE holds kind, name, bound, and the command, a line each.
run_one() {
    local job=$1 kind name bound command start end status=0 counts passed failed skipped word tmp
    { read -r kind && read -r name && read -r bound && read -r command; } <"$job"
    start=$(date +%s%N)
    # A folder of its own, which every uid can reach, and in which nothing may be left behind.
    tmp=${job##*/}
    tmp=$CSM_CHECK_TMP/${tmp%%-*}
    mkdir -p "$tmp"
    # timeout passes a signal on to all of its group, and kills what is left of it 20 s later.
    TMPDIR=$tmp start timeout -k 20 "$bound" bash -c "$command" </dev/null >"$job.log" 2>&1
    wait_for_all_but 0
    end=$(date +%s%N)
    if [ -n "$(ls -A "$tmp")" ]; then
        { echo "left behind:" && ls -A "$tmp"; } >>"$job.log"
        [ "$status" -ne 0 ] || status=1
    fi
    end_nodes "$tmp"
    rm -rf "$tmp"
    leave_if_ended >/dev/null
    if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
        echo "(did not end within $bound s)" >>"$job.log"
    fi
    if [ "$kind" = cmocka ]; then
        counts=$(cmocka_counts "$status" <"$job.log")
    elif [ "$status" -eq 77 ] && grep -q '^skip: ' "$job.log"; then
        counts='0 0 1'
    else
        counts="$((status == 0)) $((status != 0)) 0"
    fi
    read -r passed failed skipped <<<"$counts"
    word=ok
    [ "$skipped" -eq 0 ] || word="ok, $skipped skipped"
    [ "$failed" -eq 0 ] || word=FAILED
    printf '%s\n' "$counts" >"$job.result"
    {
        printf '%-58s %6d.%d s  %s\n' "$name" $(((end - start) / 1000000000)) $(((end - start) / 100000000 % 10)) "$word"
        [ "$skipped" -eq 0 ] || grep -E '^skip: |\[  SKIPPED \] [a-z]' "$job.log" | sed 's/^/    /' | sort -u | head -20
        [ "$failed" -eq 0 ] || show_failure
    } >"$job.line"
    # One write, so that lines of two tests do not mix.
    cat "$job.line"
}

# What was killed before it could take its node down: csmd and swtpm are in groups of their own.
end_nodes() { # FOLDER
    local file
    while read -r file; do
        node_csmd_stop "${file%/*}"
        node_swtpm_stop "${file%/*}"
    done < <(find "$1" -maxdepth 3 \( -name csmd.pid -o -name swtpm.pid \))
}

# What cmocka found, or the end of what was said (a sanitizer's list of leaks after a failed test says nothing).
show_failure() {
    echo "    exit status $status; all of it is in ${job#"$PWD"/}.log"
    {
        grep -aE '^\[  (ERROR  |FAILED )|^\[   LINE|^SUMMARY: ' "$job.log" | head -n 30
        if ! grep -qaE '^\[  (ERROR  |FAILED )' "$job.log"; then
            tail -n 40 "$job.log"
        fi
    } | sed 's/^/    | /'
}

# "passed failed skipped" of one cmocka program: its own figures, and one failure more where the exit status says
# that something went wrong that they do not show.
cmocka_counts() {
    awk -v status="$1" '
        /^\[  PASSED  \] [0-9]+ test/ { passed += $4 }
        /^\[  FAILED  \].* [0-9]+ test/ { for (i = 4; i <= NF; i++) if ($i ~ /^[0-9]+$/) { failed += $i; break } }
        /^\[  SKIPPED \].* [0-9]+ test/ { for (i = 4; i <= NF; i++) if ($i ~ /^[0-9]+$/) { skipped += $i; break } }
        END {
            if ((status != 0 || passed + failed + skipped == 0) && failed == 0)
                failed = 1
            print passed + 0, failed + 0, skipped + 0
        }'
}

if [ "${1:-}" = --one ]; then
    run_one "$2"
    exit 0
fi

# ---- the list ------------------------------------------------------------------
if [ "$(id -u)" -ne 0 ]; then
    echo "check.sh: run as root: the tests take other users' places and probe what root may do" >&2
    exit 1
fi
rm -rf "$out"
mkdir -p "$out"
build_log=$out/build.log
printf 'building\n'
build_start=$SECONDS
start make -j"$(nproc)" "tests-built${CSM_LONG:+-long}" >"$build_log" 2>&1
wait_for_all_but 0
leave_if_ended
if [ "$status" -ne 0 ]; then
    tail -n 40 "$build_log"
    echo "the build failed"
    echo "0 passed, 1 failed"
    exit 1
fi
printf '%-58s %6d.0 s\n' "build" $((SECONDS - build_start))

count=0
wanted=("$@")
# add together|alone KIND NAME BOUND COMMAND
add() {
    local pattern hit=
    [ ${#wanted[@]} -gt 0 ] || hit=1
    for pattern in "${wanted[@]}"; do
        [[ $3 != *"$pattern"* ]] || hit=1
    done
    [ -n "$hit" ] || return 0
    count=$((count + 1))
    local job
    job=$out/$(printf '%03d' "$count")-${3//\//_}
    printf '%s\n' "$2" "$3" "$4" "$5" >"$job"
    printf '%s\n' "$job" >>"$out/$1"
}
header() { sed -nE "1,25s/^# $2: *([0-9]+).*/\1/p" "$1" | head -n 1; }
add_script() { # FILE
    local bound when=together
    bound=$(header "$1" bound)
    bound=${bound:-120}
    if [ -n "$CSM_LONG" ]; then
        local long
        long=$(header "$1" bound-long)
        bound=${long:-$((bound * 10))}
    fi
    [ -z "$(sed -n '1,25{/^# alone$/p}' "$1")" ] || when=alone
    case $1 in
    # Sanitizers are on where time and the sandbox of the release are not the question.
    tests/interop/*) add "$when" script "${1#tests/}" "$bound" "CSM_BUILD=build/asan $1" ;;
    *.py) add "$when" script "${1#tests/}" "$bound" "/usr/bin/python3 $1" ;;
    *) add "$when" script "${1#tests/}" "$bound" "$1" ;;
    esac
}

# What takes long goes first.
add together script lint/tidy 2400 "scripts/lint.sh tidy"
[ -z "${CSM_COVERAGE:-1}" ] || add together script coverage 2400 "make -j$(nproc) cov"
add together script lint/cppcheck 1200 "scripts/lint.sh cppcheck"
if [ -d tests/fuzz ]; then
    seconds=10
    [ -z "$CSM_LONG" ] || seconds=300
    for source in tests/fuzz/fuzz_*.c; do
        target=${source#tests/fuzz/fuzz_}
        target=${target%.c}
        add together script "fuzz/$target" $((seconds + 120)) "scripts/fuzz.sh $target $seconds"
    done
fi
for source in tests/unit/test_*.c tests/vectors/test_*.c tests/conformance/test_*.c; do
    [ -e "$source" ] || continue
    program=${source#tests/}
    program=${program%.c}
    bound=300
    [ -z "$CSM_LONG" ] || bound=3600
    add together cmocka "$program" "$bound" "build/asan/tests/$program"
done
if [ -n "$CSM_LONG" ]; then
    add alone script soak 1200 "scripts/soak.sh 600"
    # Races between threads: the same programs and load on the thread sanitizer's build.
    for program in build/tsan/tests/unit/test_*; do
        [ ! -x "$program" ] || add together cmocka "tsan/${program##*/}" 3600 "TSAN_OPTIONS=halt_on_error=1 $program"
    done
    for script in reloads-drop-nothing racing-creates-one-wins tpm-restart-under-load tpm-other-client-flushes; do
        add alone script "tsan/$script" 3600 \
            "CSM_LONG= CSM_BUILD=build/tsan TSAN_OPTIONS=halt_on_error=1 tests/system/$script.sh"
    done
fi
for script in tests/lint/*.sh tests/vectors/*.py tests/interop/*.sh tests/interop/*.py tests/system/*.sh; do
    [ -x "$script" ] && add_script "$script"
done
for linter in layers calls size words shell python; do
    add together script "lint/$linter" 600 "scripts/lint.sh $linter"
done

# ---- run, count ----------------------------------------------------------------
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
CSM_CHECK_TMP=$(mktemp -d /tmp/csm-check.XXXXXX) || exit 1
export CSM_CHECK_TMP
trap 'rm -rf "$CSM_CHECK_TMP"' EXIT
chmod 0755 "$CSM_CHECK_TMP"
touch "$out/together" "$out/alone"
run_all() { # LIST HOW-MANY-AT-A-TIME
    local job
    while [ -z "$ended_by" ] && read -r job; do
        start "$self" --one "$job"
        wait_for_all_but $(($2 - 1))
    done <"$1"
    wait_for_all_but 0
    leave_if_ended
}
run_all "$out/together" "${CSM_JOBS:-$(($(nproc) + 1))}"
run_all "$out/alone" 1

passed=0 failed=0 skipped=0
while read -r job; do
    p=0 f=1 s=0
    [ ! -e "$job.result" ] || read -r p f s <"$job.result"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done < <(cat "$out/together" "$out/alone")
if [ "$count" -eq 0 ]; then
    echo "no test of that name"
    failed=1
fi
# What failed once more, where a reader of the end alone sees it.
[ "$failed" -eq 0 ] || while read -r job; do
    ! grep -q ' FAILED$' "$job.line" 2>/dev/null || cat "$job.line"
done < <(cat "$out/together" "$out/alone")
printf '%s in %d s\n' "all done" $((SECONDS - build_start))
if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ "$failed" -eq 0 ]
