#!/bin/bash
# While csm(1) holds a value (its answer is not taken, its input has not ended, the daemon does not answer, a terminal is
# asked, a command runs) the value is only in memory that is locked and left out of core files.
# bound: 120
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
. "$top/tests/lib/memory.sh"
umask 077
mkdir keep
pid=
trap 'kill $(jobs -p) $pid 2>/dev/null || true; kill -CONT $CSM_PID' EXIT
session make
session_foreign

# holds WHAT PID: it has a value by now, in locked memory only; then it is ended.
holds() {
    local tries=100
    until search "$1" --locked-ok --pid "$2" && grep -q '^held: ' keep/found; do
        [ $((tries--)) -gt 0 ] || fail "$1: it holds nothing"
        sleep 0.05
    done
    kill "$2"
    wait "$2" 2>/dev/null || true
}

step "nobody reads what it writes"
mkfifo full silent
exec 8<>full
csm secret get d/long plain >full &
holds "secret get of one value" $!
csm secret get d/long >full &
holds "secret get of all" $!
csm --json secret get d/long >full &
holds "secret get as JSON" $!
exec 8>&-
for n in short block; do
    csm secret get d/$n plain -o silent &
    holds "secret get of $n to a pipe without a reader" $!
    csm --json secret get d/$n -o silent &
    holds "secret get of $n as JSON to a pipe without a reader" $!
done
csm decrypt rsa2048 keep/ciphertext -o silent &
holds "decrypt" $!
openssl pkey -in keep/peer.pem -pubout -out peer.pub
csm derive derive peer.pub -o silent &
holds "derive" $!
csm seal keep/sealed:one -o box
csm unseal box -o silent &
holds "unseal" $!

step "its input does not end"
exec 8<>full
csm secret set d/short plain=- <full &
pid=$!
cat keep/value:short >&8
holds "secret set" $pid
csm seal <full >/dev/null &
pid=$!
cat keep/sealed:one >&8
holds "seal" $pid
exec 8>&-

step "the daemon does not answer"
tr -d '\n' <<<"$(openssl rand -base64 300)" >keep/text
needle text <keep/text
printf '{"a": "%s", "b": {"base64": "%s"}, "c": ["%s"]}' "$(cat keep/text)" "$(base64 -w 0 keep/value:block)" \
    "$(cat keep/text)" >keep/json
kill -STOP "$CSM_PID"
csm secret set d/short --json - <keep/json &
json=$!
csm secret set d/short plain=@keep/value:long &
file=$!
csm secret set d/short "plain=$(cat keep/text)" &
literal=$!
holds "secret set from JSON" $json
holds "secret set from a file" $file
# What the shell gave it stands in the process's arguments until it is read.
holds "secret set of a literal" $literal
kill -CONT "$CSM_PID"

step "a terminal is asked"
tr -d '\n' <<<"$(openssl rand -base64 30)" >keep/typed
needle typed <keep/typed
py - <<'PY'
import os, pty, time
pid, tty = pty.fork()
if pid == 0:
    os.execvp("csm", ["csm", "secret", "set", "d/short", "k"])
def until(text):
    seen = b""
    while text not in seen:
        seen += os.read(tty, 1000)
until(b"k: ")
os.write(tty, open("keep/typed", "rb").read() + b"\n")
until(b"again: ")
with open("pid.new", "w") as out:
    out.write(str(pid))
os.rename("pid.new", "pid")
if os.fork() == 0:
    os.closerange(0, tty)
    time.sleep(20) # keeps the terminal
    os._exit(0)
PY
pid=$(cat pid)
holds "secret set that asks" "$pid"
pid=

step "a command runs"
csm exec --secret d/block -- sleep 100 &
pid=$!
node_await 10 pgrep -P $pid sleep >/dev/null || fail "csm exec starts nothing"
holds "exec" $pid
