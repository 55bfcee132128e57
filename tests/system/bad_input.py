"""Every kind of bad input: what csmd must answer to it, and what must be as before afterwards."""

import array
import os
import socket
import struct
import time

import msgpack

from csmwire import Closed, Conn, Refused, as_uid, open_fds, pack_request, refused, rss_kib, varint_array

PID = int(os.environ["CSM_PID"])


def closes(name, data, error=None, then_eof=False):
    """csmd ends the connection over these bytes, with one error before it where the msgid could be read. With error:
    just that one; what was accepted before may be answered too."""
    conn = Conn()
    try:
        conn.send_raw(data)
        if then_eof:
            conn.sock.shutdown(socket.SHUT_WR)
    except (BrokenPipeError, ConnectionResetError):
        pass
    got = []
    try:
        conn.sock.settimeout(15)
        while True:
            got.append(conn.recv())
    except Closed:
        pass
    except socket.timeout:
        raise AssertionError("%s: not closed" % name) from None
    names = [answer[2]["name"] for answer in got if answer[2] is not None]
    if error is None:
        assert len(names) <= 1 and len(names) == len(got), (name, got)
    else:
        assert names == [error], (name, got)
    conn.close()


def stays(name, conn, data, error):
    """An error answer, and the connection goes on."""
    conn.send_raw(data)
    answer = conn.recv()
    assert answer[0] == 1 and answer[2] is not None and answer[2]["name"] == error, (name, answer)
    assert conn.call("ping", {"data": b"x"})["data"] == b"x"
    return answer[2]


def request(body):
    return b"\x94\x00\x07" + body


def framing():
    ping = pack_request(7, "ping")
    closes("not MessagePack at all", b"GET / HTTP/1.1\r\n\r\n")
    closes("a reserved byte", b"\xc1" * 8)
    closes("a map instead of an array", b"\x81\xa1a\x01")
    closes("too few elements", msgpack.packb([0, 7, "ping"]))
    closes("too many elements", msgpack.packb([0, 7, "ping", [{}], 1]))
    closes("a type that is none", msgpack.packb([9, 7, "ping", [{}]]))
    closes("an answer sent to csmd", msgpack.packb([1, 7, None, {}]))
    closes("a negative msgid", msgpack.packb([0, -1, "ping", [{}]]))
    closes("a msgid above 32 bits", msgpack.packb([0, 1 << 32, "ping", [{}]]))
    closes("a method that is no string", msgpack.packb([0, 7, 5, [{}]]))
    closes("params that are no array", msgpack.packb([0, 7, "ping", {}]))
    closes("two params", msgpack.packb([0, 7, "ping", [{}, {}]]))
    closes("a param that is no map", msgpack.packb([0, 7, "ping", [5]]))
    closes("more than 1 MiB", request(b"\xa4ping\x91\x81\xa4data\xc6" + struct.pack(">I", 2 << 20) + bytes(3 << 20)))
    closes("deeper than 8", request(b"\xa4ping\x91" + b"\x81\xa1a" * 9 + b"\xc0"))
    closes("a depth bomb", b"\x91" * 500000)
    closes("4 G elements claimed", varint_array(0xFFFFFFFF))
    closes("a count beyond its bytes", request(b"\xa4ping\x91\xdf\xff\xff\xff\xff") + bytes(100), then_eof=True)
    closes("a string beyond all bounds", request(b"\xdb\xff\xff\xff\xff") + b"x" * 100)
    closes("a duplicate key", request(b"\xa4ping\x91\x82\xa4data\xc4\x01x\xa4data\xc4\x01y"))
    closes("cut off", ping[:-3], then_eof=True)
    closes("cut off in its first byte", ping[:1], then_eof=True)
    closes("a msgid twice in flight", pack_request(7, "key.create", {"key": "slow", "alg": "rsa4096"}) + ping,
           error="protocol")


def fields():
    conn = Conn()
    pack = lambda method, params: pack_request(3, method, params)  # noqa: E731
    error = stays("unknown field", conn, pack("ping", {"surprise": 1}), "unsupported_field")
    assert "surprise" in error["message"], error
    for name, method, params in (
            ("a number for a string", "key.show", {"key": 5}),
            ("a string for bytes", "ping", {"data": "text"}),
            ("bytes for a string", "key.show", {"key": b"k"}),
            ("a missing field", "key.show", {}),
            ("a negative number", "random", {"bytes": -1}),
            ("a map for a list", "key.create", {"key": "k", "use": {}}),
            ("a string beyond its limit", "key.show", {"key": "k" * 5000}),
            ("bytes beyond their limit", "ping", {"data": b"x" * 65}),
            ("a float", "random", {"bytes": 1.5}),
            ("nil", "key.show", {"key": None})):
        conn.send_raw(pack(method, params))
        answer = conn.recv()
        assert answer[2] is not None and answer[2]["name"] in ("invalid", "protocol", "too_large"), (name, answer)
        conn = conn if answer[2]["name"] != "protocol" else Conn()
    conn.send_raw(request(b"\xa8key.show\x91\x81\xa3key\xa3\xff\xfe\xfd"))
    answer = conn.recv()
    assert answer[2] is not None, answer


def names():
    conn = Conn()
    conn.call("domain.create", {"domain": "names"})
    bad = ["", ".hidden", "-option", "a/b", "../up", "a:b:c", "st*r", "wh?t", "br[ck", "back\\slash", "nul\0", "nl\n",
           "del\x7f", "c1\x85", "x" * 129, "tab\t"]
    for name in bad:
        refused(("invalid", "too_large", "denied"), conn.call, "key.create", {"key": name})
        refused(("invalid", "too_large", "denied"), conn.call, "secret.set",
                {"secret": "names/" + name, "pairs": [{"name": "k", "value": b"v"}]})
        refused(("invalid", "too_large", "denied"), conn.call, "domain.create", {"domain": name})
    refused(("invalid", "denied"), conn.call, "key.create", {"key": "Upper:k"})
    refused(("invalid", "denied"), conn.call, "key.create", {"key": "-x:k"})
    assert [key["name"] for key in conn.call("key.list")["keys"]] in ([], ["slow"])
    for name in ("a", "x" * 128, "with space", "gr\u00fc\u00dfe", "a.b-c_d@e", "\U0001f511"):
        conn.call("key.create", {"key": name, "alg": "ed25519"})
        assert conn.call("key.show", {"key": name})["name"] == name
        conn.call("key.delete", {"key": name})


def pass_descriptors():
    before = open_fds(PID)
    for _ in range(20):
        conn = Conn()
        conn.call("ping")
        null = [os.open("/dev/null", os.O_RDONLY) for _ in range(10)]
        try:
            conn.sock.sendmsg([pack_request(9, "ping")],
                              [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", null))])
        except OSError:
            pass  # a kernel with SO_PASSRIGHTS refuses it for csmd
        else:
            assert conn.ended(10), "a passed descriptor did not end the connection"
        for fd in null:
            os.close(fd)
        conn.close()
    wait_for(lambda: open_fds(PID) <= before + 2, "descriptors stay installed: %d, then %d" % (before, open_fds(PID)))


def two_senders():
    """The first half of a message from one process, the second from another user's: never served as one."""
    conn = Conn()
    conn.call("ping")
    message = pack_request(5, "whoami")
    conn.send_raw(message[:6])
    time.sleep(0.2)
    conn.next_id = 6
    as_uid(59102, lambda: conn.send_raw(message[6:]))
    assert conn.ended(10), "bytes of two senders made one message"
    conn = Conn()
    conn.call("ping")
    as_uid(59102, lambda: conn.send_raw(message))
    assert conn.ended(10), "a message of another sender than the connector was taken"


def states():
    conn = Conn()
    refused("unknown_method", conn.call, "no.such.method")
    refused("unknown_method", conn.call, "")
    refused(("unsupported", "denied", "role", "state"), conn.call, "secret.watch")
    refused(("invalid", "not_found", "state"), conn.call, "key.sign_update", {"stream": 12345, "data": b"x"})
    refused(("invalid", "not_found", "state"), conn.call, "key.sign_final", {"stream": 12345})
    conn.send_raw(msgpack.packb([2, "note", [{}]]))
    try:
        conn.call("ping")
    except Closed:
        pass


def secrets():
    conn = Conn()
    pair = lambda n, v=b"v": {"name": n, "value": v}  # noqa: E731
    put = lambda pairs: conn.call("secret.set", {"secret": "names/s", "pairs": pairs})  # noqa: E731
    refused(("invalid", "too_large"), put, [pair("k%d" % i) for i in range(257)])
    refused(("invalid", "conflict", "exists"), put, [pair("k"), pair("k")])
    refused("too_large", put, [pair("k", b"x" * (768 * 1024 + 1))])
    assert put([pair("k%d" % i) for i in range(256)])["version"] == 1
    big = b"x" * (768 * 1024 - 16)
    assert put([pair("k", big)])["version"] == 2
    assert conn.call("secret.get", {"secret": "names/s"})["pairs"][0]["value"] == big


def wait_for(condition, text, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, text
        time.sleep(0.05)


def random_bytes():
    """Valid messages with bytes changed: the connection answers or ends, csmd lives."""
    import random

    rng = random.Random(7)
    samples = [pack_request(1, "key.create", {"key": "r", "alg": "p256", "use": ["sign"]}), pack_request(1, "status"),
               pack_request(1, "secret.set", {"secret": "names/r", "pairs": [{"name": "a", "value": b"b" * 40}]}),
               pack_request(1, "key.csr", {"key": "r", "subject": "/CN=x", "sans": ["dns:a", "ip:1.2.3.4"]})]
    for _ in range(400):
        data = bytearray(rng.choice(samples))
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        conn = Conn(timeout=5)
        try:
            conn.send_raw(bytes(data))
            conn.sock.shutdown(socket.SHUT_WR)
            while True:
                conn.recv()
        except (Closed, OSError, ValueError):
            pass
        conn.close()
    Conn().call("ping")


def main():
    before = rss_kib(PID)
    others = Conn()
    others.call("ping")
    for part in (framing, fields, names, pass_descriptors, two_senders, states, secrets, random_bytes):
        print("-", part.__name__, flush=True)
        part()
        others.call("ping")
    fds = open_fds(PID)
    wait_for(lambda: open_fds(PID) <= fds, "descriptors")
    grown = rss_kib(PID) - before
    assert grown < 64 * 1024, "grew by %d KiB" % grown
    try:
        others.call("whoami")
    except Refused as refusal:
        raise AssertionError("the other connection was hurt") from refusal


main()
