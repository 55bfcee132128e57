"""What a broker holds in memory, how long it takes to start, what others feel of bad peers: on nodes of their own, with
the software back end and the root key in a file.
"""
import json
import os
import resource
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import time

import msgpack

from issue import authority, free_port, listens
from peers import Peers

TOP = os.path.abspath(f'{os.path.dirname(os.path.abspath(__file__))}/../..')
BUILD = os.path.abspath(os.environ.get('CSM_BUILD', 'build'))
sys.path.insert(0, f'{TOP}/tests/lib')
from csmwire import Conn, pack_request  # noqa: E402  pylint: disable=wrong-import-position

KEYS = 1000
CONNECTIONS = 10000
CROWD = 1000
SECRETS = 100000
DOMAINS = 100
STARTS = 7
MEMORY_ROUNDS = 3
AT_A_TIME = 200  # requests in flight of one who fills a store
DESCRIPTORS = 64  # of a process that holds connections, beside them


class Node:
    """A csmd in a folder of its own, stopped and started at will."""

    def __init__(self, folder, config=''):
        self.folder = folder
        self.process = None
        os.mkdir(folder, 0o755)
        with open(f'{folder}/given.yaml', 'w', encoding='ascii') as f:
            f.write(config)
        subprocess.run(['bash', '-c', '. "$0"; node_make "$1" soft "" "" "$1/given.yaml"', f'{TOP}/scripts/node-lib.sh',
                        folder], check=True, timeout=20, stdin=subprocess.DEVNULL)
        self.socket = f'{folder}/public/csm.sock'
        self.admin = f'{folder}/admin.sock'

    def start(self, method='ping', params=None):
        """Seconds from before csmd is executed to the first answer to that request."""
        with open(f'{self.folder}/csmd.log', 'ab') as log:
            begin = time.monotonic()
            self.process = subprocess.Popen([f'{BUILD}/bin/csmd', '--config', f'{self.folder}/csmd.yaml'],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        while True:
            try:
                with Conn(self.socket, timeout=20) as conn:
                    conn.call(method, params)
                return time.monotonic() - begin
            except (FileNotFoundError, ConnectionRefusedError):
                if self.process.poll() is not None or time.monotonic() - begin > 20:
                    raise RuntimeError(f'csmd does not start: {self.log_tail()}') from None
                time.sleep(0.0005)

    def log_tail(self):
        with open(f'{self.folder}/csmd.log', encoding='utf-8', errors='replace') as log:
            return log.read()[-500:]

    def broker(self):
        with Conn(self.admin) as conn:
            return conn.call('status')['pid']

    def stop(self):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self.process = None

    def close(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def pipelined(path, requests):
    """Many requests on one connection, AT_A_TIME in flight; each has to be answered with a result."""
    with Conn(path) as conn:
        waiting, more = 0, True
        requests = enumerate(requests)
        while more or waiting:
            batch = []
            while more and waiting + len(batch) < AT_A_TIME:
                try:
                    n, (method, params) = next(requests)
                    batch.append(pack_request(n, method, params))
                except StopIteration:
                    more = False
            conn.send_raw(b''.join(batch))
            waiting += len(batch)
            for _ in range(min(waiting, AT_A_TIME // 2) if more else waiting):
                _, _, error, _ = conn.recv()
                if error is not None:
                    raise RuntimeError(f'a request failed: {error}')
                waiting -= 1


# ---- memory ----

def memory(pid):
    """MiB of a process: resident, of it anonymous, and its proportional share, which is None where it may not be read."""
    names = {'VmRSS': 'rss_mib', 'RssAnon': 'anon_mib', 'VmLck': 'locked_mib'}
    taken = {'rss_mib': None, 'anon_mib': None, 'locked_mib': None, 'pss_mib': None}
    with open(f'/proc/{pid}/status', encoding='utf-8') as f:
        for line in f:
            name = line.split(':', 1)[0]
            if name in names:
                taken[names[name]] = int(line.split()[1]) / 1024
    try:
        with open(f'/proc/{pid}/smaps_rollup', encoding='utf-8') as f:
            for line in f:
                if line.startswith('Pss:'):
                    taken['pss_mib'] = int(line.split()[1]) / 1024
    except OSError:
        pass
    return taken


def settled(pid):
    """The memory of a process once it no longer changes."""
    last = memory(pid)
    for _ in range(20):
        time.sleep(0.1)
        now = memory(pid)
        if now['rss_mib'] == last['rss_mib']:
            break
        last = now
    return now


def memory_of_keys(folder):
    """Idle; with many keys just made; after the next start; with each of them used once."""
    node = Node(folder)
    try:
        node.start()
        taken = {'idle': settled(node.broker())}
        pipelined(node.socket, (('key.create', {'key': f'k{i}', 'alg': 'p256'}) for i in range(KEYS)))
        taken['keys stored'] = settled(node.broker())
        node.stop()
        node.start()
        taken['keys stored, started again'] = settled(node.broker())
        pipelined(node.socket, (('key.sign', {'key': f'k{i}', 'digest': b'd' * 32}) for i in range(KEYS)))
        taken['keys used'] = settled(node.broker())
        return taken
    finally:
        node.close()


def memory_of_connections(folder):
    """What connections that have spoken, each twice, and now are silent add."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < CONNECTIONS + 2 * DESCRIPTORS:
        raise RuntimeError(f'the hard limit of open files is {hard}')
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # csmd does the same by itself
    node = Node(folder, f'limits: {{connections_per_uid: {CONNECTIONS}, connections: {CONNECTIONS + 64}}}\n')
    held = []
    try:
        node.start()
        pid = node.broker()
        taken = {'none': settled(pid)}
        message = pack_request(1, 'ping')
        answer = None
        for _ in range(CONNECTIONS):
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            held.append(s)
            s.settimeout(20)
            s.connect(node.socket)
            s.sendall(message)
            answer = s.recv(4096)
            if msgpack.unpackb(answer)[2] is not None:
                raise RuntimeError(f'connection {len(held)}: {msgpack.unpackb(answer)[2]}')
        for s in held:  # each is there, and answers
            s.sendall(message)
        for s in held:
            if s.recv(4096) != answer:
                raise RuntimeError('a connection is not answered')
        taken['connections'] = settled(pid)
        return taken
    finally:
        for s in held:
            s.close()
        node.close()


def in_words(name, m):
    share = f', Pss {m["pss_mib"]:.1f}' if m['pss_mib'] is not None else ''
    return f'{name}: VmRSS {m["rss_mib"]:.1f} MiB, anonymous {m["anon_mib"]:.1f}, locked {m["locked_mib"]:.1f}{share}'


def measure_memory(top):
    """What table.LIMITS asks for, in MiB, a value a round, and `details`."""
    result = {'idle': [], 'keys stored': [], 'keys used': [], 'connections add': [], 'rounds': []}
    for _ in range(MEMORY_ROUNDS):
        keys = memory_of_keys(f'{top}/node')
        conns = memory_of_connections(f'{top}/node')
        for name in ('idle', 'keys stored', 'keys used'):
            result[name].append(keys[name]['rss_mib'])
        result['connections add'].append(conns['connections']['rss_mib'] - conns['none']['rss_mib'])
        result['rounds'].append({'keys': keys, 'connections': conns})
    result['details'] = [in_words(name, m) for name, m in {**keys, f'{CONNECTIONS} connections': conns['connections']}.items()]
    result['details'].append(f'connections of one process, with limits.connections_per_uid raised and '
                             f'{resource.getrlimit(resource.RLIMIT_NOFILE)[1]} descriptors')
    return result


# ---- start ----

def name_of(i):
    return f'd{i % DOMAINS}/s{i}'


def fill(node):
    pipelined(node.socket, (('domain.create', {'domain': f'd{i}'}) for i in range(DOMAINS)))
    pipelined(node.socket, (('secret.set', {'secret': name_of(i), 'pairs': [
        {'name': 'v', 'value': struct.pack('>Q', i) * 8}]}) for i in range(SECRETS)))


def measure_start(top):
    """Milliseconds from the execution of csmd to the answer to a first secret.get, the store in the page cache."""
    node = Node(f'{top}/node')
    result = {'empty': [node.start() * 1e3], 'full': []}
    try:
        for _ in range(STARTS - 1):
            node.stop()
            result['empty'].append(node.start() * 1e3)
        begin = time.monotonic()
        fill(node)
        filled = time.monotonic() - begin
        for i in range(STARTS):
            node.stop()
            result['full'].append(node.start('secret.get', {'secret': name_of(SECRETS - 1 - i)}) * 1e3)
        result['details'] = [f'{SECRETS} secrets were set in {filled:.1f} s, one connection, {AT_A_TIME} in flight']
        return result
    finally:
        node.close()


# ---- beside bad peers ----

def beside(script, top, **environment):
    """How much a client's p99 grows beside what a script of tests/system does, which writes to the file that $BESIDE_FIGURES names."""
    path = f'{top}/{script}.json'
    subprocess.run([f'{TOP}/tests/system/{script}.sh'], check=True, timeout=240,
                   env=dict(os.environ, BESIDE_FIGURES=path, **environment), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    with open(path, encoding='ascii') as f:
        taken = json.load(f)
    result = {what: [m['ratio']] for what, m in taken.items()}
    result['details'] = [f'{what}: p99 {m["p99_ms"]:.3f} ms, without {m["idle_p99_ms"]:.3f} ms' for what, m in taken.items()]
    return result


def measure_others(top):
    return beside('slow-and-silent-peers-bounded', top, SLOW_PEERS=str(CROWD))


def measure_hanging(top):
    return beside('ca-that-hangs-slows-no-signature', top, CSM_LONG='1')


NGINX = """daemon off; pid nginx.pid; error_log error.log; worker_processes auto; user root;
events {{ worker_connections 4096; }} http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path tmp;
proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
server {{ listen 127.0.0.1:{port} ssl; ssl_certificate ca.pem; ssl_certificate_key ca.key; location / {{ return 200 "{text}"; }} }} }}
"""


def measure_rude(top):
    """Held against the same client of csm-server's while the rude ones are at an nginx, which has as much to do."""
    peers = Peers(top)
    folder, port = peers.folder('rude'), free_port()
    authority(folder)
    with open(f'{folder}/conf', 'w', encoding='ascii') as f:
        f.write(NGINX.format(port=port, text='x' * 1000))
    try:
        peers.start(folder, ['nginx', '-p', folder, '-c', f'{folder}/conf'], lambda: listens(port))
        return beside('slow-and-rude-https-clients-hold-nobody-up', top, CSM_LONG='1', OTHER_SERVER=f'https://localhost:{port}')
    finally:
        peers.close()
