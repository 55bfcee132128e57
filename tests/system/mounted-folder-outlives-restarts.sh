#!/bin/bash
# The public folder that a container has mounted goes on working in it, whatever dies and starts again outside: the
# broker, the supervisor, all of csmd, by kill -9 or by a stop. The folder is never made anew, and what the container
# holds in it keeps csmd from nothing.
# bound: 180
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/spaces.sh"
need_namespaces
in_node --backend soft
policy <<YAML
version: 1
default: uid-namespaces
identities: {pods: {uid: $uid_a}}
rules: [{allow: ["*"], to: [pods], on: ["pods:*"]}]
YAML

mkdir inside
cp "$top/tests/lib/csmwire.py" inside/
cat >inside/stay.py <<'PY'
# Lives in the container from the beginning to the end; a line on stdin is a question, a line on stdout the answer.
import fcntl, os, sys, time
from csmwire import Conn, Closed, become
PUBLIC = "/run/csm/public"
held = []
for name in [PUBLIC] + [os.path.join(PUBLIC, n) for n in os.listdir(PUBLIC)]:
    try:
        held.append(os.open(name, os.O_RDONLY | os.O_NONBLOCK))
        fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pass # a socket cannot be opened
become(int(sys.argv[1]))
conn = Conn()
conn.call("key.create", {"key": "pods:k"})
print("ready", len(held), flush=True)
for line in sys.stdin:
    if line == "end\n":
        break
    end, tries, why = time.monotonic() + 20, 0, None
    while time.monotonic() < end:
        tries += 1
        try:
            conn.call("key.sign", {"key": "pods:k", "message": b"x"})
            why = None
            break
        except (Closed, OSError) as error:
            why = error
            time.sleep(0.02)
            try:
                conn = Conn()
            except OSError as error:
                why = error
    print("served" if why is None else "lost: %r" % why, flush=True)
PY
mkfifo ask tell
in_container /usr/bin/python3 stay.py $uid_a <ask >tell 2>stay.err &
stays=$!
exec 5>ask 6<tell
asked() { # WHAT
    local line=
    [ -z "${1:-}" ] || echo "$1" >&5
    read -r -t 30 line <&6 || fail "the container says nothing more: $(cat stay.err)"
    printf '%s' "$line"
}
expect_equal "the container" "$(asked)" "ready 1" # the folder, and nothing else that could be opened
folder=$(stat -c '%d %i' "$node/public")
socket=$(stat -c %i "$CSM_SOCKET")
goes_on() { # AFTER
    expect_equal "after $1" "$(asked question)" served
    expect_equal "the folder after $1" "$(stat -c '%d %i' "$node/public")" "$folder"
    expect_equal "what is in it after $1" "$(ls -A "$node/public")" csm.sock
}
goes_on nothing
rounds=$(count 3 30)

step "kill -9 of the broker, $rounds times: the socket stays too"
for ((i = 0; i < rounds; i++)); do
    kill -KILL "$(node_broker_pid "$node")"
    goes_on "kill -9 of the broker"
    expect_equal "the socket" "$(stat -c %i "$CSM_SOCKET")" "$socket"
done

step "kill -9 of the supervisor alone, and csmd is started at once"
for ((i = 0; i < rounds; i++)); do
    kill -KILL "$(node_pid "$node" csmd)"
    node_csmd_start "$node" || fail "it does not start: $(tail -n 5 "$node/csmd.log")"
    goes_on "kill -9 of the supervisor"
done

step "kill -9 of all of csmd"
for ((i = 0; i < rounds; i++)); do
    kill -KILL -- "-$(node_pid "$node" csmd)"
    [ $((i % 2)) -eq 0 ] || sleep 0.1
    node_csmd_start "$node" || fail "it does not start: $(tail -n 5 "$node/csmd.log")"
    goes_on "kill -9 of all"
done

step "a stop, some time without it, and a start"
for ((i = 0; i < rounds; i++)); do
    node_csmd_stop "$node"
    [ ! -e "$CSM_SOCKET" ] || fail "the socket was left behind"
    expect_equal "the folder after a stop" "$(stat -c '%d %i' "$node/public")" "$folder"
    node_csmd_start "$node" || fail "it does not start: $(tail -n 5 "$node/csmd.log")"
    goes_on "a stop"
done

step "the container ends by itself"
echo end >&5
wait "$stays" || fail "$(cat stay.err)"
