"""csm-server with the certificates of `build/tests/bench/inventory fill`: which there are, which each filter tells, what a client of its
doors sees and how long that takes. Who finds something wrong raises AssertionError."""
import http.client
import json
import re
import socket
import ssl
import subprocess
import time
from urllib.parse import quote

PAGE = 100   # certificates of a page whose time is taken
LONG = 1000  # of one that is not
OURS = re.compile(r'/O=x/CN=host(\d+)\.example$')


# ---- what there is ----

def serial(i):
    """As dbfix_cert of tests/lib/dbfix.c."""
    mixed = i * 2654435761
    return bytes([0x40] + [mixed >> 8 * (n % 4) & 0xff for n in range(1, 8)] + [i >> 8 * (15 - n) & 0xff for n in range(8, 16)])


LATER = set()  # revoked by this module


def revoked(i):
    return i % 10 == 0 or i in LATER


def expired(i):
    return i % 20 == 19


def valid(i):
    return not revoked(i) and not expired(i)


def not_after(i, base):
    return base - 1000 - i % 5000 if expired(i) else base + 100000 + 60 * (i % 50000)


def issued(i, base):
    return base - 100000 + i // 100


def filters(n, base):
    """Name, query, and which of the numbers below n it tells."""
    one = n * 5 // 7
    early, late = base + 100000 + 60 * 1000, base + 100000 + 60 * 1500
    recent = issued(n - n // 50, base)

    def soon(i):
        return early < not_after(i, base) < late

    return [
        ('all', {}, lambda i: True),
        ('serial', {'serial': serial(one).hex()}, lambda i: i == one),
        ('name', {'name': f'host{one}.example'}, lambda i: i == one),
        ('name, glob', {'name': '*42.example'}, lambda i: i % 100 == 42),
        ('name, glob, none', {'name': '*no such name*'}, lambda i: False),
        ('name, none', {'name': 'nobody.example'}, lambda i: False),
        ('san', {'san': f'uri:spiffe://td/{one}'}, lambda i: i == one),
        ('san, glob', {'san': 'uri:spiffe://td/77*'}, lambda i: str(i).startswith('77')),
        ('san, glob, one', {'san': f'*/{one}'}, lambda i: i == one),
        ('node', {'node': 'node7'}, lambda i: i % 100 == 7),
        ('node, none', {'node': 'node100'}, lambda i: False),
        ('requester', {'requester': 'cert 3'}, lambda i: i % 10 == 3),
        ('requester and node, none', {'requester': 'cert 3', 'node': 'node4'}, lambda i: False),
        ('requester and node', {'requester': 'cert 3', 'node': 'node13'}, lambda i: i % 100 == 13),
        ('profile', {'profile': 'rare'}, lambda i: i % 1000 == 0),
        ('issuer, none', {'issuer': 'other'}, lambda i: False),
        ('revoked', {'state': 'revoked'}, revoked),
        ('valid', {'state': 'valid'}, valid),
        ('expired', {'state': 'expired'}, expired),
        ('revoked and profile', {'state': 'revoked', 'profile': 'rare'}, lambda i: i % 1000 == 0),
        ('revoked and node, none', {'state': 'revoked', 'node': 'node7'}, lambda i: False),
        ('expired and name, glob', {'state': 'expired', 'name': '*19.example'}, lambda i: i % 100 == 19),
        ('expires', {'expires_after': early, 'expires_before': late}, soon),
        ('expires, none', {'expires_before': base - 100000}, lambda i: False),
        ('expires and profile', {'expires_after': base, 'profile': 'rare'}, lambda i: i % 1000 == 0),
        ('expires and requester', {'expires_before': base, 'requester': 'cert 9'}, expired),
        ('issued', {'issued_after': recent}, lambda i: issued(i, base) > recent),
        ('issued and requester, none', {'issued_after': base + 10 ** 6, 'requester': 'cert 3'}, lambda i: False),
    ]


# ---- a client ----

class Server:
    """The doors of a csm-server to an administrator: files of his certificate and key, and of the root."""

    def __init__(self, port, public, cert, key, root):
        self.port, self.public, self.root = port, public, root
        self.context = ssl.create_default_context(cafile=root)
        self.context.load_cert_chain(cert, key)

    def https(self):
        return http.client.HTTPSConnection('localhost', self.port, timeout=60, context=self.context)

    def plain(self):
        return http.client.HTTPConnection('127.0.0.1', self.public, timeout=60)


def ask(connection, method, path, body=None, headers=None):
    """Status, body, milliseconds to its last byte."""
    begin = time.monotonic()
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    content = answer.read()
    return answer.status, content, (time.monotonic() - begin) * 1e3


def page(connection, query, limit, after):
    path = '/v1/cms/certificates?' + '&'.join(f'{k}={quote(str(v))}' for k, v in {**query, 'limit': limit, 'after': after}.items())
    status, content, ms = ask(connection, 'GET', path)
    assert status == 200, (status, content[:300], path)
    answer = json.loads(content)
    return answer['certificates'], answer['next'], ms


def check_row(row, i, base):
    assert row['serial'] == serial(i).hex() and row['node'] == f'node{i % 100}' and row['requester'] == f'cert {i % 10}', row
    assert row['profile'] == ('rare' if i % 1000 == 0 else 'default') and row['not_after'] == not_after(i, base), row
    assert row['san'] == [f'dns:host{i}.example', f'uri:spiffe://td/{i}'] and row['issued'] == issued(i, base), row
    assert row['state'] == ('revoked' if revoked(i) else 'expired' if expired(i) else 'valid'), row


def walk(connection, query, n, base):
    """Each of our numbers that its pages tell, in their order, and the cursors of the pages."""
    numbers, cursors, after = [], [''], ''
    while True:
        rows, after, _ = page(connection, query, LONG, after)
        for row in rows:
            ours = OURS.match(row['subject'])
            if ours is None:  # csm-server's own, and what is issued meanwhile
                continue
            i = int(ours[1])
            check_row(row, i, base)
            numbers.append(i)
        if not after:
            return numbers, cursors
        cursors.append(after)
        assert len(cursors) < 20 + n // 50, 'pages without end'


def check_filter(connection, name, query, wanted, n, base):
    """All that it tells, each once, in order. The cursors of first, middle and last pages."""
    numbers, cursors = walk(connection, query, n, base)
    told = set(numbers)
    assert len(told) == len(numbers), f'{name}: one twice'
    assert told == {i for i in range(n) if wanted(i)}, f'{name}: {len(told)} told, {sum(wanted(i) for i in range(n))} wanted'
    exact = any(k in ('node', 'requester') or (k in ('name', 'san') and '*' not in v) or v == 'revoked' for k, v in query.items())
    if not exact and any(k.startswith('expires') or v == 'expired' for k, v in query.items()):
        keys = [not_after(i, base) for i in numbers]
    else:
        keys = [-issued(i, base) for i in numbers]
    assert keys == sorted(keys), f'{name}: not in order'
    return [cursors[0], cursors[len(cursors) // 2], cursors[-1]]


def page_times(connection, query, starts, pages):
    """Milliseconds of pages from each start on, again from there where they end."""
    times = []
    for start in starts:
        after = start
        for _ in range(pages):
            _, following, ms = page(connection, query, PAGE, after)
            times.append(ms)
            after = following or start
    return times


def p95(values):
    return sorted(values)[int(len(values) * 0.95)]


def measure_pages(server, n, base, pages):
    """Of each filter the p95 of a page, checked; it is for the caller to have others issue meanwhile."""
    connection, result = server.https(), {}
    for name, query, wanted in filters(n, base):
        starts = check_filter(connection, name, query, wanted, n, base)
        result[name] = round(p95(page_times(connection, query, starts, pages)), 2)
    connection.close()
    return result


# ---- revocation ----

def ocsp_request(server, i):
    return subprocess.run(['openssl', 'ocsp', '-issuer', server.root, '-serial', '0x' + serial(i).hex(), '-no_nonce', '-reqout',
                           '/dev/stdout'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, check=True).stdout


def ocsp_says(server, connection, i, request):
    """True: revoked; False: good (RFC 6960 4.2.1, CertStatus behind the serial)."""
    status, answer, _ = ask(connection, 'POST', '/ocsp', request, {'Content-Type': 'application/ocsp-request'})
    at = answer.find(serial(i))
    assert status == 200 and at > 0, (status, answer[:100])
    tag = answer[at + 16]
    assert tag in (0x80, 0xa1), f'status {tag:x}'
    return tag == 0xa1


def revoke(connection, i):
    body = json.dumps({'reason': 'superseded'})
    status, answer, _ = ask(connection, 'POST', f'/v1/cms/certificates/{serial(i).hex()}/revoke', body, {'Content-Type': 'application/json'})
    assert status == 200, (status, answer)
    LATER.add(i)


def entry(i):
    """Of a list, as far as its serial goes."""
    return b'\x02\x10' + serial(i)


def revoke_to_ocsp(server, numbers):
    """Milliseconds from the sending of each revocation to the end of the first OCSP answer that says so."""
    admin, public, times = server.https(), server.plain(), []
    for i in numbers:
        request = ocsp_request(server, i)
        assert not ocsp_says(server, public, i, request), f'{i} is revoked already'
        begin = time.monotonic()
        revoke(admin, i)
        while not ocsp_says(server, public, i, request):
            assert time.monotonic() - begin < 60, 'it is never told'
        times.append((time.monotonic() - begin) * 1e3)
    return times


def revoke_to_list(server, i, keep=None):
    """Milliseconds from the sending of a revocation to the last byte of the first full list that has it, fetched at the public door
    by one who asks again each 20 ms whether there is a new one."""
    admin, public = server.https(), server.plain()
    status, old, _ = ask(public, 'GET', '/crl/default.crl')
    assert status == 200 and entry(i) not in old, status
    begin = time.monotonic()
    revoke(admin, i)
    tag = ''
    while True:
        public.request('GET', '/crl/default.crl', headers={'If-None-Match': tag})
        answer = public.getresponse()
        content = answer.read()
        if answer.status == 200 and entry(i) in content:
            break
        assert answer.status in (200, 304) and time.monotonic() - begin < 120, answer.status
        tag = answer.getheader('ETag')
        time.sleep(0.02)
    ms = (time.monotonic() - begin) * 1e3
    if keep is not None:
        with open(keep, 'wb') as f:
            f.write(content)
    return ms


class SlowReaders:
    """They ask for the full list and take next to nothing of it: by plain HTTP, and each third one over TLS."""

    def __init__(self, server, n):
        self.held = []
        for i in range(n):
            tls = i % 3 == 2
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.settimeout(60)
            s.connect(('127.0.0.1', server.port if tls else server.public))
            if tls:
                s = server.context.wrap_socket(s, server_hostname='localhost')
            path = '/v1/cms/crl?format=der' if tls else '/crl/default.crl'
            s.sendall(f'GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n'.encode())
            assert s.recv(12) == b'HTTP/1.1 200'
            self.held.append(s)

    def close(self):
        for s in self.held:
            s.close()


# ---- memory ----

def memory(pid):
    """MiB: resident now, and at most since its start."""
    with open(f'/proc/{pid}/status', encoding='ascii') as f:
        taken = dict(line.split(':', 1) for line in f)
    return [int(taken[name].split()[0]) / 1024 for name in ('VmRSS', 'VmHWM')]


class Issuing:
    """Clients that issue meanwhile: two, connections kept, one request at a time each. `load`: tests/bench/load with what leads it to
    the server."""

    def __init__(self, load, server):
        self.server = server
        self.last = self.newest()
        self.process = subprocess.Popen([load[0], 'csm-issue', '--clients', '2', '--seconds', '3600', *load[1:]],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def newest(self):
        connection = self.server.https()  # one that is kept would be idle for too long
        try:
            return page(connection, {}, 1, '')[0][0]['serial']
        finally:
            connection.close()

    def one_more(self):
        """Until there is one, or they have ended. Those of one second have no order of time."""
        end, newest = time.monotonic() + 30, self.last
        while newest == self.last and self.process.poll() is None and time.monotonic() < end:
            newest = self.newest()
            time.sleep(0.02)
        issues, self.last = newest != self.last, newest
        return issues

    def stop(self):
        self.process.kill()
        why = self.process.communicate(timeout=10)[1]
        return why.decode(errors='replace')[-300:]

    def __enter__(self):
        if not self.one_more():
            raise AssertionError('nothing is issued: ' + self.stop())
        return self

    def __exit__(self, *_):
        issues = self.one_more()
        why = self.stop()
        assert issues, 'nothing is issued any more: ' + why
