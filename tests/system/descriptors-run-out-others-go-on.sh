#!/bin/bash
# Where csmd has no descriptors left it takes no more connections for a while, without spinning; those that are there go on,
# changes and all, and who waits is served as soon as there are some again. Where they are few from the start a flood is
# told busy, and the administrator, and others once it is over, get in.
# bound: 120
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
log=$node/csmd.log

step "no descriptors left"
CSM_LOG=$log py <<'PY'
import os, select, socket, subprocess, time
import msgpack
from csmwire import ADMIN, SOCKET, Conn, open_fds, pack_request
old = Conn()
old.call("domain.create", {"domain": "d"})
old.call("key.create", {"key": "k"})
pid = Conn(ADMIN).call("status")["pid"]
with open("/proc/%d/status" % pid, encoding="ascii") as status:
    owner = [line.split()[1] for line in status if line.startswith("Uid:")][0]

def limit(soft):
    # As the broker's own user: root of a container may not.
    subprocess.run(["setpriv", "--reuid", owner, "--regid", owner, "--clear-groups", "prlimit", "--pid", str(pid),
                    "--nofile=%d:" % soft], check=True)

def ticks():
    with open("/proc/%d/stat" % pid, encoding="ascii") as stat:
        words = stat.read().rsplit(")", 1)[1].split()
    return int(words[11]) + int(words[12])

with open("/proc/%d/limits" % pid, encoding="ascii") as limits:
    before = [int(line.split()[3]) for line in limits if line.startswith("Max open files")][0]
limit(open_fds(pid) + 4)
waiting = []
for _ in range(40):
    s = socket.socket(socket.AF_UNIX)
    s.connect(SOCKET)
    try:
        s.sendall(pack_request(1, "ping"))
    except BrokenPipeError:
        pass  # it is turned away already
    waiting.append(s)
time.sleep(1.5)
answered = len(select.select(waiting, [], [], 0)[0])
began = ticks()
start = time.monotonic()
for i in range(100):
    old.call("ping")
    old.call("secret.set", {"secret": "d/s", "pairs": [{"name": "n", "value": b"%d" % i}]})
    old.call("key.sign", {"key": "k", "message": b"x"})
    got = old.call("secret.get", {"secret": "d/s"})
    assert got["pairs"][0]["value"] == b"%d" % i
while time.monotonic() < start + 2:
    time.sleep(0.05)
used = (ticks() - began) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - start)
assert used < 0.8, "csmd spins: %.2f of a processor" % used
limit(before)
busy = 0
end = time.monotonic() + 15
for s in waiting:
    ready = select.select([s], [], [], max(0, end - time.monotonic()))[0]
    assert ready, "who waited is not served once there are descriptors"
    try:
        answer = msgpack.unpackb(s.recv(4096))
    except ConnectionResetError:
        busy += 1  # turned away before its request was read
        continue
    assert answer[2] is None or (answer[2]["name"] == "busy" and answer[2]["retryable"]), answer
    busy += answer[2] is not None
# Some wait; some are turned away, after the descriptor for their connection was the last one.
assert busy > 0 or answered < 40, "4 descriptors were enough for 40 connections"
assert Conn(ADMIN).call("status")["pid"] == pid
Conn().call("ping")
with open(os.environ["CSM_LOG"], encoding="utf-8") as log:
    assert busy > 0 or "no descriptors left: accepting is paused" in log.read()
print("- %d of 40 were answered at once, %d told busy, all others in the end; %.2f of a processor meanwhile" % (
    answered, busy, used))
PY

step "few from the start, and a flood of connections"
node_csmd_stop "$node"
(ulimit -n 160 && node_csmd_start "$node") || fail "csmd does not start with 160 descriptors"
py <<'PY'
import os, time
from csmwire import ADMIN, Closed, Conn, Refused, become
old = Conn()
status = Conn(ADMIN).call("status")
flood = os.fork()
if flood == 0:
    become(59101)
    held, told = [], 0
    for _ in range(400):
        try:
            c = Conn(timeout=5)
            c.call("ping")
            held.append(c)
        except (Closed, OSError, Refused, AssertionError, TypeError):
            told += 1
    assert told > 100 and held, (told, len(held))
    time.sleep(3)
    os._exit(0)
time.sleep(1.5)
for i in range(20):
    old.call("secret.set", {"secret": "d/s", "pairs": [{"name": "n", "value": b"%d" % i}]})
    assert Conn(ADMIN).call("status")["pid"] == status["pid"], "the administrator does not get in"
assert os.waitpid(flood, 0)[1] == 0
end = time.monotonic() + 10
while True:
    try:
        Conn().call("key.sign", {"key": "k", "message": b"x"})
        break
    except (Closed, OSError, Refused, AssertionError, TypeError):
        assert time.monotonic() < end, "nobody else gets in when the flood is over"
        time.sleep(0.05)
PY
