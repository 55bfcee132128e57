"""Sends each record of malformed.txt to csmd on a connection of its own."""
import os
import socket
import sys

import msgpack

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "vectors"))
sys.dont_write_bytecode = True
from check_vectors import VECTORS, records  # noqa: E402

PING = msgpack.packb([0, 77, "ping", []])


class Connection:
    def __init__(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(5)
        self.sock.connect(os.environ["CSM_SOCKET"])
        self.unpacker = msgpack.Unpacker(raw=False)

    def send(self, data):
        self.sock.sendall(data)

    def answer(self):
        """The next response, None when the connection has ended."""
        while True:
            for message in self.unpacker:
                return message
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.unpacker.feed(data)


def check(record):
    """What is wrong, or None."""
    name, _, field = record["expect"].partition(" ")
    raw = bytes.fromhex(record["hex"])
    c = Connection()
    c.send(raw)
    if name == "incomplete":
        return None  # that csmd waits is shown by the tests of its deadlines
    ends = name == "protocol" or (name == "too_large" and not field)
    if not ends:
        c.send(PING)
    got = c.answer()
    if ends and got is None:
        return None  # no msgid to answer to
    if got is None or got[2] is None:
        return f"{got} instead of an error"
    if got[2]["name"] != name:
        return f"{got[2]} instead of {name}"
    if field and field not in got[2]["message"]:
        return f"the message does not name {field}: {got[2]['message']}"
    after = c.answer()
    if ends:
        return None if after is None else f"goes on after {name}"
    return None if after == [1, 77, None, {}] else f"does not go on after {name}: {after}"


def main():
    failed = checked = 0
    for record in records(os.path.join(VECTORS, "malformed.txt")):
        if record["direction"] != "client-to-server" or record["expect"] == "ok":
            continue
        checked += 1
        problem = check(record)
        if problem:
            print(f"{record['name']}: {problem}", file=sys.stderr)
            failed += 1
    print(f"{checked} messages, {failed} failed")
    return 1 if failed or checked < 60 else 0


if __name__ == "__main__":
    sys.exit(main())
