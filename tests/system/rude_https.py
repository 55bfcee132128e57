"""Rude clients of csm-server from 127.0.0.2 to 127.0.0.9, and an honest one: rude_https.py URL CACERT SECONDS."""
import http.client
import os
import random
import socket
import ssl
import sys
import threading
import time
from urllib.parse import urlsplit

url, cacert, seconds = urlsplit(sys.argv[1]), sys.argv[2], float(sys.argv[3])
end = time.monotonic() + seconds
lax = ssl.create_default_context(cafile=cacert)
counts = {}


def dial():
    s = socket.socket()
    s.settimeout(5)
    s.bind(('127.0.0.%d' % random.randint(2, 9), 0))
    s.connect(('127.0.0.1', url.port))
    return s


def tls():
    return lax.wrap_socket(dial(), server_hostname='localhost')


def until_end(held):
    """Held open and fed a byte at a time, as long as it goes."""
    for s in held:
        try:
            s.send(b'x')
        except OSError:
            pass


def handshake():
    s = dial()
    s.send(b'\x16\x03\x01')
    return s


def head():
    s = tls()
    s.send(b'GET /healthz HT')
    return s


def body():
    s = tls()
    s.send(b'POST /v1/cms/certificates HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{')
    return s


def rubbish():
    s = tls()
    s.send(random.choice([os.urandom(500), b'GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n',
                          b'GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n' * 50, b'X' * 20000]))
    s.close()


def not_tls():
    s = dial()
    s.send(os.urandom(300))
    s.close()


def vanish():
    s = tls()
    s.send(b'GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n')
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
    s.close()


def rude(kind):
    held = []
    while time.monotonic() < end:
        try:
            s = kind()
            counts[kind.__name__] = counts.get(kind.__name__, 0) + 1
            if s is not None:
                held.append(s)
        except OSError:
            pass
        until_end(held[-20:])
        time.sleep(0.01)
    for s in held:
        s.close()


threads = [threading.Thread(target=rude, args=(k,)) for k in (handshake, head, body, rubbish, not_tls, vanish)]
for t in threads:
    t.start()
took = []
honest = http.client.HTTPSConnection('localhost', url.port, context=lax, timeout=20)
while time.monotonic() < end:
    at = time.monotonic()
    honest.request('GET', '/healthz')
    answer = honest.getresponse()
    text = answer.read()
    took.append(time.monotonic() - at)
    assert answer.status == 200 and b'ok' in text, (answer.status, text)
    time.sleep(0.005)
for t in threads:
    t.join()
took.sort()
print('rude:', counts, file=sys.stderr)
print('%d honest requests, half within %.1f ms, the slowest %.1f ms' % (len(took), took[len(took) // 2] * 1e3, took[-1] * 1e3),
      file=sys.stderr)
# Far from the ten seconds for which a rude client may sit there.
assert len(took) > 20 and took[-1] < 5, took[-5:]
assert all(counts.get(k, 0) > 5 for k in ('handshake', 'head', 'body', 'rubbish', 'not_tls', 'vanish')), counts
