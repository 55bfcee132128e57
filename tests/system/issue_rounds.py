"""csm-server under issuance, killed or without its power at random moments, again and again.

    issue_rounds.py SERVER CONFIG FOLDER PORT SEED KILLS CUTS PRELOAD [KIND OF SYNC TO LEAVE OUT]

FOLDER has root.pem, web.csr, the socket admin.sock and the state; PRELOAD is tests/fault/powercut.so. Clients make tokens, each
good for one certificate, and ask for two with each. Who gets no answer asks again when csm-server is back. At the end each
certificate that was answered is in the inventory, each serial number once, and each token that was answered has one certificate:
not two, and not none. With a kind of sync left out that has to be noticed instead: exit status 3.
"""
import collections
import http.client
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import powercut

server, config, folder, port, seed, kills, cuts, preload = sys.argv[1:9]
deaf = sys.argv[9] if len(sys.argv) > 9 else ''
rng = random.Random(int(seed))
CLIENTS = 4
LOG = f'{folder}/cuts'
trust = ssl.create_default_context(cafile=f'{folder}/root.pem')
body = json.dumps({'csr': open(f'{folder}/web.csr', encoding='ascii').read()})
lock = threading.Lock()
told, waiting, answers = {}, [], []  # tokens by their id; ids that had no answer yet; id and serial number


class Noticed(Exception):
    """What must not be."""


class Local(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(f'{folder}/admin.sock')


def remote():
    return http.client.HTTPSConnection('localhost', int(port), context=trust, timeout=20)


def ask(connection, method, path, data=None, token=None):
    headers = {'Content-Type': 'application/json'}
    if token:
        headers['Authorization'] = f'Bearer {token}'
    connection.request(method, path, data, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


class Server:
    def __init__(self, with_preload, sync_left_out=''):
        env = dict(os.environ)
        if with_preload:
            env.update(LD_PRELOAD=preload, CSM_POWERCUT_DIR=f'{folder}/state', CSM_POWERCUT_LOG=LOG, CSM_POWERCUT_WHO='--config',
                       CSM_POWERCUT_DEAF=sync_left_out)
        with open(f'{folder}/log', 'ab') as log:
            self.process = subprocess.Popen([server, '--config', config], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True)
        with open(f'{folder}/pid', 'w', encoding='ascii') as f:
            f.write('%d\n' % self.process.pid)
        end = time.monotonic() + 60
        while not self.serves():
            if self.process.poll() is not None or time.monotonic() > end:
                raise Noticed('csm-server does not start again')
            time.sleep(0.01)

    @staticmethod
    def serves():
        try:
            return ask(remote(), 'GET', '/readyz')[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def ended(self):
        status = self.process.wait(30)
        assert status < 0, f'csm-server ended by itself: {status}'


def token_for(local):
    """The id of one that waits for an answer, or of a new one."""
    with lock:
        if waiting:
            return waiting.pop()
    status, data = ask(local, 'POST', '/v1/cms/tokens', '{"any_name": true}')
    assert status == 201, (status, data)
    new = json.loads(data)
    with lock:
        told[new['id']] = new['token']
    return new['id']


def issue(connection, name):
    status, data = ask(connection, 'POST', '/v1/cms/certificates', body, told[name])
    if status == 201:
        with lock:
            answers.append((name, json.loads(data)['serial']))
    elif status not in (401, 403):
        raise http.client.HTTPException(status, data)


def client(stop):
    local, https = Local('localhost'), remote()
    name = None
    while not stop():
        try:
            name = token_for(local)
            issue(https, name)
            if len(answers) % 3 == 0:
                issue(https, name)
        except (OSError, http.client.HTTPException):
            with lock:
                if name is not None and name not in waiting:
                    waiting.append(name)
            return


def one_round(cut):
    up = Server(cut, deaf if cut else '')
    over = threading.Event()
    threads = [threading.Thread(target=client, args=(over.is_set,), daemon=True) for _ in range(CLIENTS)]
    for t in threads:
        t.start()
    enough, end = len(answers) + rng.randint(1, 30), time.monotonic() + 60
    while len(answers) < enough:
        assert any(t.is_alive() for t in threads) and time.monotonic() < end, 'nothing is issued'
        time.sleep(0.002)
    if cut:
        powercut.arm(LOG, rng.randint(1, 40))
    else:
        time.sleep(rng.random() * 0.02)
        up.process.send_signal(signal.SIGKILL)
    up.ended()
    over.set()
    for t in threads:
        t.join()
    if cut:
        print(powercut.replay(LOG, 'all' if deaf else 'any', rng.randint(0, 1 << 30)))


def inventory():
    rows, after, local = [], '', Local('localhost')
    while True:
        status, data = ask(local, 'GET', f'/v1/cms/certificates?limit=500&after={after}')
        assert status == 200, data
        page = json.loads(data)
        rows += [(c['requester'], c['serial']) for c in page['certificates']]
        after = page.get('next')
        if not after:
            return rows


def expect(what, wrong):
    if wrong:
        raise Noticed(f'{what}: {wrong}')


def look():
    Server(False)
    client(lambda: not waiting)
    assert not waiting, 'somebody is not answered'
    rows = inventory()
    expect('a serial number twice', [s for s, n in collections.Counter(s for _, s in rows).items() if n > 1])
    expect('answered, and not in the inventory', {s for _, s in answers} - {s for _, s in rows})
    expect('a token was answered twice', [t for t, n in collections.Counter(t for t, _ in answers).items() if n > 1])
    of = collections.Counter(r for r, _ in rows)
    expect('tokens without a certificate, or with two', [(t, of[f'token {t}']) for t in told if of[f'token {t}'] != 1])
    assert len(answers) >= int(kills) + int(cuts), 'hardly anything was issued'
    return len(rows)


try:
    kinds = [False] * int(kills) + [True] * int(cuts)
    rng.shuffle(kinds)
    for each in kinds:
        one_round(each)
    print('%s kills, %s power cuts: %d certificates answered to %d tokens, %d in the inventory' % (
        kills, cuts, len(answers), len(told), look()))
except Noticed as error:
    print(error)
    sys.exit(3 if deaf else 1)
