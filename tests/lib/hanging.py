"""Servers that take a client as far as a phase of HTTPS, and hang there. Their certificate is good.pem, its key key.pem."""
import socket
import ssl
import threading
import time

heads = []  # of requests that came whole, to any of them


def listening(port=0, backlog=16):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", port))
    s.listen(backlog)
    return s


def serve(play, port=0):
    """One that plays; its URL."""
    s = listening(port)

    def run():
        while True:
            c, _ = s.accept()
            threading.Thread(target=guarded, args=(c,), daemon=True).start()

    def guarded(c):
        try:
            play(c)
        except OSError:
            pass

    threading.Thread(target=run, daemon=True).start()
    return "https://127.0.0.1:%d" % s.getsockname()[1]


def tls(c):
    """After the whole head of a request."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("good.pem", "key.pem")
    c = context.wrap_socket(c, server_side=True)
    data = b""
    while b"\r\n\r\n" not in data:
        more = c.recv(4096)
        if not more:
            raise ConnectionResetError
        data += more
    heads.append(data)
    return c


def silent(c):
    while c.recv(4096):
        pass


def dribble(c, data, pause):
    for i in range(len(data)):
        c.sendall(data[i:i + 1])
        time.sleep(pause)


def tls_dribbles(c, pause=0.3):
    """A record that says it is long, byte by byte."""
    dribble(c, b"\x16\x03\x03\x3f\xff\x02" + b"\0" * 1000, pause)


def headers_hang(c):
    silent(tls(c))


def headers_dribble(c, pause=0.3):
    dribble(tls(c), b"HTTP/1.1 200 OK\r\nX: " + b"a" * 1000, pause)


def interim_for_ever(c):
    c = tls(c)
    while True:
        c.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.2)


def body_hangs(c):
    c = tls(c)
    c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    silent(c)


def body_dribbles(c, pause=0.3):
    c = tls(c)
    c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    dribble(c, b"1\r\n \r\n" * 100, pause)


def full_backlog(port=0):
    """A listener that nobody can connect to, as nobody accepts and its queue is full; what has to be kept, and its URL."""
    s = listening(port, 0)
    kept = [s]
    for _ in range(4):
        c = socket.socket()
        c.setblocking(False)
        c.connect_ex(s.getsockname())
        kept.append(c)
    time.sleep(0.2)
    return kept, "https://127.0.0.1:%d" % s.getsockname()[1]
