#!/bin/bash
# One user's connections have a limit; the next is told busy and closed; other users and the administrator still get in,
# and the places come back.
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
py <<'PY'
import os, time
from csmwire import ADMIN, Closed, Conn, Refused, as_uid, become
def fill():
    kept = []
    for _ in range(256):
        c = Conn()
        c.call("ping")
        kept.append(c)
    over = Conn()
    try:
        answer = over.recv()
        assert answer[2]["name"] == "busy" and answer[2]["retryable"], answer
        assert over.ended(5)
    except Closed:
        pass
    for c in kept:
        c.call("ping")
    for c in kept:
        c.close()
    end = time.monotonic() + 10
    while True:
        try:
            Conn().call("ping")
            return
        except (Closed, OSError, Refused):
            assert time.monotonic() < end, "the places do not come back"
            time.sleep(0.05)
as_uid(59101, fill)
holder = os.fork()
if holder == 0:
    become(59101)
    held = [Conn() for _ in range(256)]
    for c in held:
        c.call("ping")
    time.sleep(3)
    os._exit(0)
time.sleep(1)
as_uid(59102, lambda: Conn().call("whoami"))
assert Conn(ADMIN).call("status")["connections"] >= 256
os.waitpid(holder, 0)
PY
