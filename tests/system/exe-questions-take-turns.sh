#!/bin/bash
# One user keeps csm-ident busy with thousands of requests that need a look at his program: another user's requests under
# a rule by executable are all answered, none after more than 250 ms.
# alone
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
cp "$top/build/bin/csm" "$work/csm"
chmod 755 "$work/csm"
policy <<YAML
version: 1
identities:
  flooder: {uid: $uid_a, exe: /usr/bin/true}
  victim: {uid: $uid_b, exe: $work/csm}
  root: {uid: 0}
rules:
  - {allow: [secret.get], to: [flooder], on: ["vault:other/*"]}
  - {allow: [secret.get], to: [victim], on: ["vault:safe/*"]}
  - {allow: ["*"], to: [root], on: ["vault:*"]}
YAML
ok csm domain create vault:safe
ok csm secret set vault:safe/s v=1

step "the flood: four connections, each with a thousand requests on their way all the time"
cat >flood.py <<'PY'
import os, sys, threading, time
import csmwire
csmwire.become(int(sys.argv[1]))
REQUESTS = b"".join(csmwire.pack_request(1000 + i, "secret.get", {"secret": "vault:other/s"}) for i in range(1000))
answered = 0
def flood():
    global answered
    conn = csmwire.Conn()
    while True:
        conn.send_raw(REQUESTS)
        for _ in range(1000):
            conn.recv()
            answered += 1
for _ in range(4):
    threading.Thread(target=flood, daemon=True).start()
time.sleep(float(sys.argv[2]))
print(answered, flush=True)
os._exit(0)
PY
PYTHONPATH=$top/tests/lib nice -n 19 /usr/bin/python3 flood.py "$uid_a" 10 >flooded &
flood=$!
sleep 3

step "others meanwhile"
/usr/bin/python3 - setpriv --reuid "$uid_b" --regid "$uid_b" --clear-groups "$work/csm" secret get vault:safe/s v <<'PY'
import subprocess, sys, time
took = []
for _ in range(20):
    begin = time.monotonic()
    done = subprocess.run(sys.argv[1:], capture_output=True, check=False)
    took.append(round((time.monotonic() - begin) * 1000))
    assert done.returncode == 0, done.stderr
took.sort()
print("  milliseconds: median %d, longest %d" % (took[10], took[-1]))
assert took[-1] <= 250, took
PY
kill -0 "$flood" || fail "the flood was over before"
wait "$flood"
[ "$(cat flooded)" -ge 2000 ] || fail "no flood: $(cat flooded) requests"
echo "  $(cat flooded) requests of the flood"
