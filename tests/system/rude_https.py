"""Rude clients of csm-server from 127.0.0.2 to 127.0.0.9, a hundred of each kind, and an honest one:
rude_https.py URL CACERT WINDOWS [URL OF ANOTHER SERVER]. beside.py has how it is measured. With another server, what it is held
against is the honest client while the same rude ones are at that server; without, while there are none."""
import http.client
import os
import random
import select
import signal
import socket
import ssl
import sys
import time
from urllib.parse import urlsplit

from beside import checked, compare, write_figures
from csmwire import percentile

url, cacert, windows = urlsplit(sys.argv[1]), sys.argv[2], int(sys.argv[3])
other = urlsplit(sys.argv[4]) if len(sys.argv) > 4 else None
SECONDS = 0.3 if windows == 1 else 0.5
CLIENTS, PROCESSES = 100, 2
PAUSE = 0.002  # an honest client that nobody knows may ask a thousand times a second
trust = ssl.create_default_context(cafile=cacert)
lax = ssl._create_unverified_context()  # pylint: disable=protected-access


# ---- the rude ones: each gives a connection to hold, or None ----

def dial(port, last=None):
    s = socket.socket()
    s.settimeout(5)
    s.bind(('127.0.0.%d' % (last or random.randint(2, 9)), 0))
    s.connect(('127.0.0.1', port))
    return s


def tls(port, last=None):
    return lax.wrap_socket(dial(port, last), server_hostname='localhost')


def from_one(port):
    return tls(port, 2)


def says(make, data):
    def say(port):
        s = make(port)
        if data:
            s.send(data)
        return s
    return say


def rubbish(port):
    s = tls(port)
    s.send(random.choice([os.urandom(500), b'GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n',
                          b'GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n' * 50, b'X' * 20000]))
    s.close()


def vanishes(port):
    s = tls(port)
    s.send(b'GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n')
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
    s.close()


def not_tls(port):
    s = dial(port)
    s.send(os.urandom(300))
    s.close()


BODY = (b'POST /v1/cms/certificates HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{')
ASKS = b'GET /v1/cms/ca HTTP/1.1\r\nHost: a\r\n\r\n'
# What each of the hundred says at first, and then again and again after so many seconds (None: nothing more).
HELD = {
    'silent connections': (says(dial, b''), b'', None),
    'half handshakes': (says(dial, b'\x16\x03\x01'), b'', None),
    'half heads': (says(tls, b'GET /healthz HT'), b'', None),
    'half bodies': (says(tls, BODY), b'', None),
    'one byte a second': (says(tls, b'GET /healthz HTTP/1.1\r\nX: '), b'x', 1),
    'a flood of requests': (says(from_one, ASKS), ASKS, 0),
}
# Each of these may ask for as much as it does: others wait their turn, for how long is a figure and no promise.
CROWD = 'a flood from eight addresses'
if other:
    HELD[CROWD] = (says(tls, ASKS), ASKS, 0)
AT_ONCE = {'connections that come and go': vanishes, 'rubbish': rubbish, 'no TLS': not_tls}


def hold(port, kind, ready):
    first, more, pause = HELD[kind]
    held = [first(port) for _ in range(CLIENTS // PROCESSES)]
    ready()
    for s in held:
        s.setblocking(False)
    while True:
        for s in held if pause is not None else ():
            try:
                s.send(more)
                while s.recv(65536):
                    pass
            except OSError:
                pass
        time.sleep(pause if pause is not None else 10)


def storm(port, kind, ready):
    done = 0
    while True:
        try:
            AT_ONCE[kind](port)
            done += 1
        except OSError:
            time.sleep(0.01)
        if done == 10:
            ready()
            done += 1


def begin(port, kind):
    """Processes of their own, which are there when it returns."""
    started = []
    for _ in range(PROCESSES):
        mine, its = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            mine.close()
            try:
                random.seed()
                os.nice(19)  # they are many machines: what they need of this one is not csm-server's to answer for
                (hold if kind in HELD else storm)(port, kind, lambda s=its: s.send(b'+'))
            except OSError as error:
                print(kind, error, file=sys.stderr)
            finally:
                os._exit(0)
        its.close()
        started.append((pid, mine))
    for _, mine in started:
        assert select.select([mine], [], [], 30)[0] and mine.recv(1) == b'+', 'the rude ones are not let in: ' + kind
    return started


def finish(started):
    for pid, mine in started:
        assert os.waitpid(pid, os.WNOHANG)[0] == 0, 'the rude ones have gone'
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        mine.close()


# ---- the honest one ----

def connect():
    return http.client.HTTPSConnection('localhost', url.port, context=trust, timeout=20)


def ask(connection):
    begun = time.monotonic()
    connection.request('GET', '/v1/cms/ca')
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200 and b'issuer' in text, (answer.status, text)
    return time.monotonic() - begun


def window(bounded=True):
    """p99 of its requests in ms, on a connection that is kept; now and then a new one."""
    kept, took = connect(), []
    longest = ask(kept)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or len(took) < 20:
        took.append(ask(kept))
        if len(took) % 50 == 0:
            new = connect()
            longest = max(longest, ask(new))
            new.close()
        time.sleep(PAUSE)
    kept.close()
    if not bounded:
        return percentile(took, 99) * 1e3
    return checked(len(took), max(took + [longest]) * 1e3, percentile(took, 99) * 1e3, SECONDS)


window()
for what in list(HELD) + list(AT_ONCE):
    at_other = {'calm': lambda w=what: begin(other.port, w), 'calm_finish': finish} if other else {}
    compare(what, lambda w=what: window(w != CROWD), windows, lambda w=what: begin(url.port, w), finish, **at_other)
write_figures()
