#!/bin/bash
# A message of a million small values, of which a part comes in pieces of 30 bytes, costs csmd about what it costs at
# once: each byte is looked at one time.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

# Clock ticks that the broker has had.
ticks() { awk '{ print $14 + $15 }' "/proc/$CSM_PID/stat"; }

before=$(ticks)
timeout 60 /usr/bin/python3 - <<'PYTHON'
import os
import socket
import time


def tree(depth, width):
    return b"\x01" if depth == 0 else bytes([0x90 | width]) + tree(depth - 1, width) * width


message = b"\x94\x00\x01\xa4ping\x91\x9f" + tree(5, 9) * 15
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s.connect(os.environ["CSM_SOCKET"])
try:
    s.settimeout(10)
    s.sendall(message[:600000])
    for i in range(600000, 630000, 30):
        s.sendall(message[i:i + 30])
        time.sleep(0.002)
    s.sendall(message[630000:])
    answer = s.recv(4096)
except (BrokenPipeError, ConnectionResetError):
    answer = b""  # the deadline of a message
assert b"protocol" in answer, answer  # params hold no map
PYTHON
spent=$(($(ticks) - before))
step "$((spent * 1000 / $(getconf CLK_TCK))) ms of the broker"
[ "$spent" -lt "$(($(getconf CLK_TCK) * 3 / 10))" ] || fail "$spent ticks for one message"
ok csm status
