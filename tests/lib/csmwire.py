"""csm's wire for tests, by hand: MessagePack-RPC over a Unix socket, nothing of csm's own code.

A Conn sends what it is told to, right or wrong, and reads whole answers with a bounded wait.
"""

import os
import socket
import struct
import subprocess
import time

import msgpack

SOCKET = os.environ.get("CSM_SOCKET", "/run/csm.sock")
ADMIN = os.environ.get("CSM_ADMIN_SOCKET", "/run/csm/admin.sock")


class Refused(Exception):
    """An error answer: .name, .code, .retryable."""

    def __init__(self, error):
        super().__init__("%s: %s" % (error["name"], error["message"]))
        self.error = error
        self.name = error["name"]
        self.code = error["code"]
        self.retryable = error["retryable"]


class Closed(Exception):
    """csmd ended the connection."""


class Conn:
    def __init__(self, path=None, timeout=30):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        self.sock.connect(path or SOCKET)
        self.unpacker = msgpack.Unpacker(raw=False, max_buffer_size=4 << 20)
        self.next_id = 1

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send_raw(self, data):
        self.sock.sendall(data)

    def send(self, method, params=None):
        msgid = self.next_id
        self.next_id += 1
        self.send_raw(pack_request(msgid, method, params))
        return msgid

    def recv(self):
        """The next whole answer: [1, msgid, error, result]."""
        while True:
            try:
                return next(self.unpacker)
            except StopIteration:
                pass
            try:
                data = self.sock.recv(65536)
            except (ConnectionResetError, BrokenPipeError):
                data = b""
            if not data:
                raise Closed()
            self.unpacker.feed(data)

    def call(self, method, params=None):
        msgid = self.send(method, params)
        kind, got, error, result = self.recv()
        assert kind == 1 and got == msgid, (kind, got, msgid)
        if error is not None:
            raise Refused(error)
        return result

    def ended(self, seconds=15):
        """True when csmd closes the connection within so many seconds; what it said before is dropped."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.sock.settimeout(max(0.01, end - time.monotonic()))
            try:
                if not self.sock.recv(65536):
                    return True
            except (ConnectionResetError, BrokenPipeError):
                return True
            except socket.timeout:
                return False
        return False


def pack_request(msgid, method, params=None):
    return msgpack.packb([0, msgid, method, [params or {}]], use_bin_type=True)


def refused(name, function, *args, **kwargs):
    """function must be refused with the error of that name (or one of those names)."""
    names = (name,) if isinstance(name, str) else name
    try:
        result = function(*args, **kwargs)
    except Refused as error:
        assert error.name in names, "%s, not %s: %r" % (error.name, names, args)
        return error.error
    raise AssertionError("answered, not refused %s: %r gave %r" % (names, args, result))


def reload():
    with Conn(ADMIN) as admin:
        return admin.call("policy.reload")


def rss_kib(pid):
    with open("/proc/%d/status" % pid) as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    raise AssertionError("no VmRSS")


def open_fds(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p / 100))]


def openssl_verifies(spki_der, signature, data, extra=()):
    """Does the openssl command line accept signature over data? (SHA-256 unless extra says otherwise.)"""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        def path(name, content):
            with open(os.path.join(folder, name), "wb") as out:
                out.write(content)
            return os.path.join(folder, name)

        key, sig, msg = path("key", spki_der), path("sig", signature), path("msg", data)
        done = subprocess.run(
            ["openssl", "dgst", "-sha256", "-verify", key, "-keyform", "DER", "-signature", sig, *extra, msg],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30, check=False)
        return done.returncode == 0


def become(uid):
    """For a child process: that user, no groups, for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def as_uid(uid, function):
    """Run function in a child that is that user; its exception is ours."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            become(uid)
            function()
            status = 0
        except BaseException:  # pylint: disable=broad-except
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert status == 0, "as uid %d: status %#x" % (uid, status)


def varint_array(n):
    """An array header that claims n elements."""
    return b"\xdd" + struct.pack(">I", n)
