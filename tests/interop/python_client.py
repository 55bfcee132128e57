"""A csm client from PROTOCOL.md alone: MessagePack-RPC on a Unix socket, the msgpack module, the openssl command.

Makes a key, signs, has openssl verify, sets and reads a secret, and has 1,000 requests in flight on one connection.
"""

import os
import socket
import subprocess
import tempfile

import msgpack


class Client:
    """The whole protocol: an array [0, id, method, [params]] out, an array [1, id, error, result] back."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(path)
        self.unpacker = msgpack.Unpacker(raw=False)
        self.id = 0

    def send(self, method, **params):
        self.id += 1
        self.sock.sendall(msgpack.packb([0, self.id, method, [params]]))
        return self.id

    def receive(self):
        for message in self.unpacker:
            return message
        while True:
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError("the daemon closed the connection")
            self.unpacker.feed(data)
            for message in self.unpacker:
                return message

    def call(self, method, **params):
        sent = self.send(method, **params)
        kind, answered, error, result = self.receive()
        assert (kind, answered) == (1, sent)
        if error is not None:
            raise RuntimeError("%s: %s" % (error["name"], error["message"]))
        return result


def openssl_accepts(spki, signature, message):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("key", spki), ("sig", signature), ("msg", message)):
            with open(os.path.join(folder, name), "wb") as out:
                out.write(content)
        done = subprocess.run(["openssl", "dgst", "-sha256", "-verify", "key", "-keyform", "DER", "-signature", "sig", "msg"],
                              cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=False)
        return done.returncode == 0


def main():
    client = Client(os.environ["CSM_SOCKET"])
    hello = client.call("hello", version=1, client="python")
    assert hello["version"] == 1 and hello["max_in_flight"] >= 1000, hello
    assert client.call("whoami")["uid"] == os.getuid()

    made = client.call("key.create", key="py", alg="p256")
    assert made["name"] == "py" and made["public"].startswith("-----BEGIN PUBLIC KEY-----")
    spki = client.call("key.public", key="py")["spki"]
    signature = client.call("key.sign", key="py", message=b"a message")["signature"]
    assert openssl_accepts(spki, signature, b"a message")
    assert not openssl_accepts(spki, signature, b"another message")

    # A message in parts.
    stream = client.call("key.sign_init", key="py")["stream"]
    for part in (b"a mes", b"sa", b"ge"):
        client.call("key.sign_update", stream=stream, data=part)
    assert openssl_accepts(spki, client.call("key.sign_final", stream=stream)["signature"], b"a message")

    client.call("domain.create", domain="py")
    value = bytes(range(256))
    first = client.call("secret.set", secret="py/s", pairs=[{"name": "user", "value": b"app", "type": "text"},
                                                            {"name": "key", "value": value}])
    assert first["version"] == 1
    got = client.call("secret.get", secret="py/s")
    assert {p["name"]: p["value"] for p in got["pairs"]} == {"user": b"app", "key": value}
    assert client.call("secret.get", secret="py/s", key="key")["pairs"][0]["value"] == value
    try:
        client.call("secret.get", secret="py/none")
    except RuntimeError as error:
        assert str(error).startswith("not_found"), error
    else:
        raise AssertionError("a secret that is not there was read")

    # 1,000 requests in flight; the answers come in any order, each once.
    sent, methods = {}, ("ping", "key.sign", "secret.get", "key.show")
    batch = []
    for n in range(1000):
        client.id += 1
        method = methods[n % 4]
        params = {"ping": {"data": b"%d" % n}, "key.sign": {"key": "py", "message": b"m%d" % n},
                  "secret.get": {"secret": "py/s"}, "key.show": {"key": "py"}}[method]
        sent[client.id] = (method, n)
        batch.append(msgpack.packb([0, client.id, method, [params]]))
    data, at = b"".join(batch), 0
    answered = set()
    # Sending waits when the daemon does not read: then read first.
    client.sock.setblocking(False)
    import select
    import time

    end = time.monotonic() + 60
    while len(answered) < 1000:
        assert time.monotonic() < end, "%d of 1000 answered" % len(answered)
        readable, writable, _ = select.select([client.sock], [client.sock] if at < len(data) else [], [], 1)
        if writable:
            at += client.sock.send(data[at:at + 65536])
        if readable:
            chunk = client.sock.recv(1 << 16)
            assert chunk, "the daemon closed the connection"
            client.unpacker.feed(chunk)
            for kind, msgid, error, result in client.unpacker:
                assert kind == 1 and error is None, (msgid, error)
                assert msgid in sent and msgid not in answered
                answered.add(msgid)
                method, n = sent[msgid]
                if method == "ping":
                    assert result["data"] == b"%d" % n
                if method == "key.sign" and n % 100 == 1:
                    assert openssl_accepts(spki, result["signature"], b"m%d" % n)
    print("uid %d: 1000 pipelined requests answered" % os.getuid())


if __name__ == "__main__":
    main()
