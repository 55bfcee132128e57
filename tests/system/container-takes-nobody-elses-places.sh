#!/bin/bash
# What a container holds (connections, bytes that wait) is charged to it, whatever its uids: it has as much as one user,
# and its root keeps neither the host's root nor another container's from being served, nor the administrator.
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/spaces.sh"
need_cgroups
in_node --backend soft

id=$(printf '%08d' $$) # our own, whatever else runs on this machine
box() { printf "$1%.0s" {1..56} && printf '%s' "$id"; }
greedy=/system.slice/docker-$(box a).scope
modest=/system.slice/docker-$(box b).scope
pod=/kubepods.slice/kubepods-podc0000000_1111_2222_3333_4444$id.slice
make_groups "$greedy" "$modest" "$pod" "$pod/crio-$(box d).scope" "$pod/crio-$(box e).scope"

cat >greedy.py <<'PY'
import ctypes, os, select, signal, sys, time
from csmwire import ADMIN, Closed, Conn, become
root, greedy, modest, pod, one, two = sys.argv[1:]

def enter(path):
    with open(root + path + "/cgroup.procs", "w") as f:
        f.write("0")

def child(function, *args):
    pid = os.fork()
    if pid == 0:
        try:
            function(*args)
            os._exit(0)
        except BaseException:  # pylint: disable=broad-except
            import traceback
            traceback.print_exc()
        os._exit(1)
    return pid

def ended_well(pid):
    assert os.waitpid(pid, 0)[1] == 0

def served(c):
    try:
        c.send("whoami")
        return c.recv()[2] is None # "busy" answers no request
    except (Closed, OSError):
        return False

def take(path, uid, n):
    """As many connections as there are, up to n, in that group."""
    enter(path)
    become(uid)
    kept = [Conn() for _ in range(n)]
    return [c for c in kept if served(c)]

def hold(path, uid, n, expect, ready, over):
    kept = take(path, uid, n)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL) # PR_SET_PDEATHSIG: it does not outlive a test that failed
    assert len(kept) == expect, len(kept)
    # Half a message each: together not much less than what one user may have waiting.
    for c in kept[:37]:
        c.sock.settimeout(2)
        try:
            c.send_raw(b"\x94\x00\x09\xa4ping\x91\x81\xa4data\xc6\x00\x0f\x00\x00" + b"x" * 900000)
        except OSError:
            pass
    os.write(ready, b"x")
    assert select.select([over], [], [], 20)[0]
    os.read(over, 1)

def expect_served(path, uid):
    assert len(take(path, uid, 3)) == 3

def administer():
    with Conn(ADMIN) as admin:
        admin.call("policy.reload")
        admin.call("policy.check", {"policy": "version: 1\n" + "#" * 300000 + "\n"})

ready, over = os.pipe(), os.pipe()
holder = child(hold, greedy, 0, 300, 256, ready[1], over[0])
assert select.select([ready[0]], [], [], 20)[0] and os.read(ready[0], 1) == b"x"
print("- the container has what one user has, under all of its uids")
ended_well(child(lambda: (enter(greedy), become(59101), served(Conn()) and sys.exit(1))))
print("- the host's root, another container's, and the administrator are served")
ended_well(child(expect_served, modest, 0))
for _ in range(3):
    assert served(Conn())
    c = Conn()
    c.call("key.create", {"key": "k%d" % _})
    c.call("key.sign", {"key": "k%d" % _, "message": b"x" * 500000})
    c.close()
    administer()
os.write(over[1], b"x")
ended_well(holder)

print("- the containers of a pod have its places together")
ready, over = os.pipe(), os.pipe()
holders = [child(hold, one, 0, 200, 200, ready[1], over[0])]
assert select.select([ready[0]], [], [], 20)[0] and os.read(ready[0], 1) == b"x"
holders.append(child(hold, two, 59101, 100, 56, ready[1], over[0]))
assert select.select([ready[0]], [], [], 20)[0] and os.read(ready[0], 1) == b"x"
assert served(Conn())
os.write(over[1], b"xx")
for pid in holders:
    ended_well(pid)

print("- root in no container that is known has its uid's places, and none of the administrator's")
holder = child(hold, "", 0, 300, 256, ready[1], over[0])
assert select.select([ready[0]], [], [], 20)[0] and os.read(ready[0], 1) == b"x"
assert not served(Conn())
administer()
os.write(over[1], b"x")
ended_well(holder)

print("- and the places come back")
end = time.monotonic() + 10
while True:
    try:
        ended_well(child(expect_served, greedy, 0))
        ended_well(child(expect_served, two, 0))
        break
    except AssertionError:
        assert time.monotonic() < end
        time.sleep(0.05)
PY
py greedy.py "$cgroup_root" "$greedy" "$modest" "$pod" "$pod/crio-$(box d).scope" "$pod/crio-$(box e).scope"
