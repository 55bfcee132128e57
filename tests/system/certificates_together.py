"""Volleys of requests for certificates that reach csm-server at once, since it is stopped while they are sent.

    certificates_together.py FOLDER PORT SERVER BROKER ROUNDS

FOLDER has root.pem, web.csr, admin.{pem,key} and admin.sock; SERVER and BROKER are the processes csm-server and csmd."""
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time

folder, port, server, broker, rounds = sys.argv[1], *(int(a) for a in sys.argv[2:6])
trust = ssl.create_default_context(cafile=f'{folder}/root.pem')
administrator = ssl.create_default_context(cafile=f'{folder}/root.pem')
administrator.load_cert_chain(f'{folder}/admin.pem', f'{folder}/admin.key')
with open(f'{folder}/web.csr', encoding='ascii') as f:
    CSR = f.read()
JSON = {'Content-Type': 'application/json'}


class Local(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(f'{folder}/admin.sock')


def remote(context=trust):
    c = http.client.HTTPSConnection('localhost', port, context=context, timeout=30)
    c.connect()
    return c


def answer(c):
    a = c.getresponse()
    return a.status, json.loads(a.read() or b'null')


def ask(method, path, body=None):
    c = Local('localhost')
    c.request(method, path, json.dumps(body) if body else None, JSON if body else {})
    got = answer(c)
    c.close()
    return got


def token(**more):
    status, made = ask('POST', '/v1/cms/tokens', {'any_name': True, **more})
    if status != 201:
        raise SystemExit(f'token: {status} {made}')
    return made['token']


def stored():
    found, after = set(), ''
    while True:
        status, page = ask('GET', f'/v1/cms/certificates?limit=1000{"&after=" + after if after else ""}')
        if status != 200:
            raise SystemExit(f'inventory: {status} {page}')
        found |= {c['serial'] for c in page['certificates'] if c['requester'].startswith(('token', 'cert', 'uid'))}
        after = page.get('next', '')
        if not after:
            return found


class Request:
    def __init__(self, by=None, key=None, goes=False, context=trust, **body):
        self.body = json.dumps({'csr': CSR, **body})
        self.headers = dict(JSON, **({'Authorization': f'Bearer {by}'} if by else {}), **({'Idempotency-Key': key} if key else {}))
        self.goes, self.connection = goes, remote(context)

    def send(self):
        self.connection.request('POST', '/v1/cms/certificates', self.body, self.headers)

    def end(self):
        if self.goes:
            self.status, self.said = 0, None
        else:
            self.status, self.said = answer(self.connection)
        self.connection.close()
        return self.status


def volley(requests, meanwhile=None):
    """All of them at once."""
    os.kill(server, signal.SIGSTOP)
    try:
        for r in requests:
            r.send()
        for r in requests:
            if r.goes:
                r.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
                r.connection.close()
    finally:
        os.kill(server, signal.SIGCONT)
    if meanwhile:
        meanwhile()
    return [r.end() for r in requests]


def expect(what, got, wanted):
    if got != wanted:
        raise SystemExit(f'{what}: {got}, not {wanted}')


def verified(requests):
    """Each certificate is signed, and by its own issuer."""
    files = {}
    for n, r in enumerate(requests):
        if r.status == 201:
            issuer = f'{folder}/volley-{r.said["issuer"]}'
            files.setdefault(issuer, []).append(f'{folder}/volley-{n}')
            for name, text in ((issuer, r.said['chain']), (f'{folder}/volley-{n}', r.said['certificate'])):
                with open(name, 'w', encoding='ascii') as f:
                    f.write(text)
    for issuer, certificates in files.items():
        subprocess.run(['openssl', 'verify', '-CAfile', issuer, *certificates], check=True, timeout=60)


def mixed(number):
    before = stored()
    once, same = token(), token()
    # the first ones keep the workers busy while the rest gathers
    good = [Request(context=administrator, profile=p) for p in ('default', 'default', 'other', 'default', 'other')]
    twins = [Request(by=once) for _ in range(3)]
    again = [Request(by=same, key=f'volley-{number}') for _ in range(3)]
    bad = {400: Request(context=administrator, csr='nothing'), 403: Request(context=administrator, ttl=2000000),
           202: Request(context=administrator, profile='byhand', ttl=80000 + number), 401: Request(by='A' * 43), 0: Request(context=administrator, goes=True)}
    volley([*good, *twins, *bad.values(), *again])
    expect('good ones', [r.status for r in good], [201] * 5)
    expect('one token', sorted(r.status for r in twins), [201, 403, 403])
    for r in twins:
        if r.status == 403 and 'token is spent' not in r.said['error']['message']:
            raise SystemExit(f'one token: {r.said}')
    expect('the same again', [r.status for r in again], [201] * 3)
    expect('the same again', len({r.said['serial'] for r in again}), 1)
    expect('others', [r.status for r in bad.values()], list(bad))
    if 'csmd' not in bad[403].said['error']['message']:
        raise SystemExit(f'refused by another than csmd: {bad[403].said}')
    told = {r.said['serial'] for r in [*good, *twins, *again] if r.status == 201}
    expect('certificates', len(told), 7)
    verified([*good, *twins, *again])
    new = stored() - before
    # who went away may have been heard before
    if not told <= new or len(new) > 8:
        raise SystemExit(f'told {told}, stored {new}')


def slow():
    """For a moment nothing comes from csmd: what it is asked for by itself and what together both wait, and no answer is lost."""
    requests = [Request(context=administrator) for _ in range(20)]

    def pause():
        os.kill(broker, signal.SIGSTOP)
        time.sleep(0.2)
        os.kill(broker, signal.SIGCONT)

    for _ in range(2):
        expect('csmd is slow', volley(requests, pause), [201] * 20)
        requests = [Request(context=administrator) for _ in range(20)]
    for r in requests:
        r.connection.close()


def dies():
    """Each has an answer, and what was promised is there."""
    requests = [Request(context=administrator) for _ in range(20)]
    statuses = volley(requests, lambda: os.kill(broker, signal.SIGKILL))
    if set(statuses) - {201, 503}:
        raise SystemExit(f'csmd died: {statuses}')
    told = {r.said['serial'] for r in requests if r.status == 201}
    expect('certificates', len(told), statuses.count(201))
    verified(requests)
    if not told <= stored():
        raise SystemExit('what was told is not there')
    end = time.monotonic() + 30
    while volley([Request(context=administrator)]) != [201]:
        if time.monotonic() > end:
            raise SystemExit('csmd is back, and csm-server does not find it')
        time.sleep(0.1)
    return statuses.count(503)


for n in range(rounds):
    mixed(n)
slow()
lost = dies()
mixed(rounds)
print(f'{rounds + 1} volleys of 16, 2 with csmd stopped, one in which it died ({lost} of 20 were told to come again)')
