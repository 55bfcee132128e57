"""Certificates over HTTP, connections kept: csm-server, with its issuer's key in the csmd of the soft node, beside cfssl serve."""
import http.client
import json
import os
import socket
import subprocess

from peers import BUILD, run

UID = 59141  # a user who has no account
SERVER = f'{BUILD}/bin/csm-server'


class Local(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path):
        super().__init__('localhost', timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self.path)


def ask(path, method, target, body=None):
    connection = Local(path)
    try:
        connection.request(method, target, json.dumps(body) if body else None, {'Content-Type': 'application/json'} if body else {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def listens(port):
    try:
        socket.create_connection(('127.0.0.1', port), 1).close()
        return True
    except OSError:
        return False


def authority(folder, names=('ca.pem', 'ca.key')):
    """A key and a certificate by itself, of P-256 like csm-server's."""
    run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=bench', '-days', '30',
         '-keyout', f'{folder}/{names[1]}', '-out', f'{folder}/{names[0]}', '-addext', 'basicConstraints=critical,CA:TRUE'])


def cfssl(peers):
    folder = peers.folder('cfssl')
    authority(folder)
    with open(f'{folder}/config.json', 'w', encoding='ascii') as f:
        json.dump({'signing': {'default': {'expiry': '720h', 'usages': ['digital signature', 'server auth', 'client auth']}}}, f)
    port = free_port()
    peers.start(folder, ['cfssl', 'serve', '-loglevel', '3', '-address', '127.0.0.1', '-port', str(port), '-ca', 'ca.pem', '-ca-key', 'ca.key',
                         '-config', 'config.json'], lambda: listens(port))
    return ['--socket', f'127.0.0.1:{port}']


def csm_server(peers, node_socket, more='', fill=None):
    """What leads the generator to it; more: of server.yaml; fill(state folder): before it starts."""
    folder = peers.folder('csm-server')
    os.chmod(folder, 0o755)
    os.mkdir(f'{folder}/state', 0o700)
    os.chown(f'{folder}/state', UID, UID)
    if fill is not None:
        fill(f'{folder}/state')
    port, admin = free_port(), f'{folder}/admin.sock'
    with open(f'{folder}/server.yaml', 'w', encoding='ascii') as f:
        f.write(f'listen: "127.0.0.1:{port}"\nadmin_socket: {admin}\nstate_dir: {folder}/state\ncsmd_socket: {node_socket}\n'
                f'user: "{UID}"\nhostnames: [localhost]\nlimits: {{requests_per_caller: 1000000}}\n{more}')

    def waits_for_its_authority():
        try:
            return ask(admin, 'GET', '/v1/cms/ca')[0] == 409
        except OSError:
            return False

    peers.start(folder, [os.path.abspath(SERVER), '--config', f'{folder}/server.yaml'], waits_for_its_authority)
    run(['openssl', 'req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=bench',
         '-keyout', f'{folder}/client.key', '-out', f'{folder}/client.csr'])
    with open(f'{folder}/client.csr', encoding='ascii') as f:
        status, made = ask(admin, 'POST', '/v1/cms/ca', {'subject': '/CN=bench CA', 'admin_csr': f.read()})
    if status != 201:
        raise RuntimeError(f'csm-server: {made}')
    with open(f'{folder}/client.key', encoding='ascii') as f:
        key = f.read()
    with open(f'{folder}/client.pem', 'w', encoding='ascii') as f:
        f.write(made['administrator']['certificate'] + key)
    with open(f'{folder}/root.pem', 'w', encoding='ascii') as f:
        f.write(made['root'])
    return ['--socket', f'127.0.0.1:{port}', '--key', f'{folder}/client.pem', '--module', f'{folder}/root.pem']


def groups(load, peers, soft_socket, optional):
    """As bench.groups: group, title, members."""
    ours = optional(lambda: csm_server(peers, soft_socket))
    theirs = optional(lambda: cfssl(peers))

    def certificates(work, options):
        if options is None:
            raise RuntimeError('its server is not there')
        return load(work, 8, options=options)

    return [('issue', 'certificates over kept connections, P-256, 8 blocking clients; csm-server: TLS, stored durably', {
        'csm-server': lambda: certificates('csm-issue', ours),
        'cfssl serve': lambda: certificates('cfssl-issue', theirs),
    })]
