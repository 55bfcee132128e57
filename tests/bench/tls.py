"""nginx with its key in a file, in csmd and in SoftHSM2, and the front ends by themselves.

A member that cannot be started is told as not measured, as the others are.
"""
import os
import subprocess

from peers import PIN, SOFTHSM, run

BUILD = os.path.abspath(os.environ.get('CSM_BUILD', 'build'))
CSM = f'{BUILD}/bin/csm'
P11 = f'{BUILD}/lib/pkcs11/csm-pkcs11.so'
PROVIDERS = f'{BUILD}/lib/ossl-modules'
FIRST_PORT = 21443

OPENSSL_CNF = """openssl_conf = init
[init]
providers = providers
{engines}
[providers]
default = default_provider
keys = csm_provider
[default_provider]
activate = 1
[csm_provider]
module = {providers}/csm.so
activate = 1
[engines]
pkcs11 = pkcs11_engine
[pkcs11_engine]
dynamic_path = {engine}/pkcs11.so
MODULE_PATH = {module}
init = 1
[req]
distinguished_name = name
[name]
"""

NGINX_CONF = """daemon off;
pid {folder}/pid;
error_log {folder}/error.log crit;
user root;
worker_processes {cpus};
env CSM_SOCKET;
env OPENSSL_CONF;
env SOFTHSM2_CONF;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    ssl_session_cache off;
    ssl_session_tickets off;
    server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key "{key}"; }}
}}
"""


class Tls:
    """nginx by nginx, each with one key; all certificates are from one CA."""

    def __init__(self, peers, soft_socket, tpm_socket, softhsm_env):
        self.peers = peers
        self.sockets = {'soft': soft_socket, 'tpm2': tpm_socket}
        self.hsm = softhsm_env
        self.folder = peers.folder('tls')
        self.port = FIRST_PORT
        self.engine = None
        self.ca = f'{self.folder}/ca.pem'
        run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout',
             f'{self.folder}/ca.key', '-out', self.ca, '-subj', '/CN=bench', '-days', '2'])
        for backend in self.sockets:
            run([CSM, 'key', 'create', 'bench-tls', '--backend', backend], self.node(backend))

    def node(self, backend):
        return {'CSM_SOCKET': self.sockets[backend]}

    def openssl(self, module=None):
        """An openssl.cnf with the provider, and with the engine where a module is given."""
        if self.engine is None:
            told = subprocess.run(['openssl', 'version', '-e'], stdout=subprocess.PIPE, text=True, check=True, timeout=10)
            self.engine = told.stdout.split('"')[1]
        path = f'{self.folder}/{os.path.basename(module) if module else "provider"}.cnf'
        with open(path, 'w', encoding='ascii') as f:
            f.write(OPENSSL_CNF.format(engines='engines = engines' if module else '', providers=PROVIDERS,
                                       engine=self.engine, module=module))
        return {'OPENSSL_CONF': path}

    def issue(self, name, request):
        """The certificate for a request."""
        path = f'{self.folder}/{name}'
        with open(f'{path}.csr', 'wb') as f:
            f.write(request)
        run(['openssl', 'x509', '-req', '-in', f'{path}.csr', '-CA', self.ca, '-CAkey', f'{self.folder}/ca.key', '-days',
             '1', '-copy_extensions', 'copy', '-out', f'{path}.crt'])
        return f'{path}.crt'

    def nginx(self, name, key, certificate, env):
        """Its port."""
        folder = self.peers.folder(f'nginx-{name}')
        self.port += 1
        with open(f'{folder}/conf', 'w', encoding='ascii') as f:
            f.write(NGINX_CONF.format(folder=folder, cpus=os.cpu_count(), port=self.port, certificate=certificate, key=key))
        self.peers.start(folder, ['nginx', '-p', folder, '-c', f'{folder}/conf'], f'{folder}/pid', env)
        return str(self.port)

    def key_file(self):
        path = f'{self.folder}/file'
        env = self.openssl()
        run(['openssl', 'req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout',
             f'{path}.key', '-out', f'{path}.csr', '-subj', '/CN=file', '-addext', 'subjectAltName=DNS:localhost'], env)
        with open(f'{path}.csr', 'rb') as f:
            certificate = self.issue('file', f.read())
        return self.nginx('file', f'{path}.key', certificate, {})

    def csm(self, backend, engine=False):
        name = f'csm-{backend}{"-engine" if engine else ""}'
        env = self.node(backend)
        everything = dict(os.environ, **env)
        request = subprocess.run([CSM, 'csr', 'bench-tls', '--subject', '/CN=csm', '--san', 'dns:localhost'],
                                 env=everything, stdout=subprocess.PIPE, check=True, timeout=20).stdout
        certificate = self.issue(name, request)
        if engine:
            key = f'engine:pkcs11:pkcs11:token=uid-{os.getuid()};object=bench-tls;type=private'
            return self.nginx(name, key, certificate, dict(env, **self.openssl(P11)))
        reference = subprocess.run([CSM, 'key', 'reference', 'bench-tls'], env=everything, stdout=subprocess.PIPE,
                                   check=True, timeout=20).stdout
        key = f'{self.folder}/{name}.pem'
        with open(key, 'wb') as f:
            f.write(reference)
        return self.nginx(name, key, certificate, dict(env, **self.openssl()))

    def softhsm(self):
        """In a token of the bench's own; there is a PIN to give."""
        run(['pkcs11-tool', '--module', SOFTHSM, '--token-label', 'bench', '--login', '--pin', PIN, '--keypairgen',
             '--key-type', 'EC:prime256v1', '--label', 'tls', '--id', '746c73'], self.hsm)
        env = dict(self.openssl(SOFTHSM), **self.hsm)
        key = f'pkcs11:token=bench;object=tls;type=private;pin-value={PIN}'
        request = f'{self.folder}/softhsm.csr'
        run(['openssl', 'req', '-new', '-engine', 'pkcs11', '-keyform', 'engine', '-key', key, '-subj', '/CN=softhsm',
             '-addext', 'subjectAltName=DNS:localhost', '-out', request], env)
        with open(request, 'rb') as f:
            certificate = self.issue('softhsm', f.read())
        return self.nginx('softhsm', f'engine:pkcs11:{key}', certificate, env)


def groups(load, peers, hsm, soft_socket, tpm_socket, optional):
    """As bench.groups: group, title, members."""
    tls = optional(lambda: Tls(peers, soft_socket, tpm_socket, hsm))

    def server(start):
        return optional(lambda: start(tls)) if tls is not None else None

    def handshakes(port):
        if port is None:
            raise RuntimeError('its server is not there')
        return load('tls-handshake', 4, options=['--socket', port, '--key', tls.ca])

    kinds = {
        'csm, soft key': server(lambda t: t.csm('soft')),
        'key file': server(lambda t: t.key_file()),
        'SoftHSM2 by the PKCS#11 engine': server(lambda t: t.softhsm()),
        'csm by the PKCS#11 engine, soft key': server(lambda t: t.csm('soft', engine=True)),
        'csm, TPM key (swtpm)': server(lambda t: t.csm('tpm2')),
    }
    soft = {'CSM_SOCKET': soft_socket}
    return [
        ('tls', 'whole TLS 1.3 handshakes with nginx, P-256, 4 callers', {
            name: lambda port=port: handshakes(port) for name, port in kinds.items()}),
        ('pkcs11', 'C_Sign, P-256, software keys, 2 threads', {
            'csm-pkcs11': lambda: load('pkcs11-sign', 2, options=['--module', P11, '--pin', PIN, '--key', 'bench-tls'], env=soft),
            'SoftHSM2 in the process': lambda: load(
                'pkcs11-sign', 2, options=['--module', SOFTHSM, '--pin', PIN, '--key', 'bench'], env=hsm),
        }),
        ('provider', 'P-256 signatures, software keys, one thread', {
            'OpenSSL with the provider': lambda: load(
                'store-sign', 1, options=['--key', 'csm:bench-tls'], env=dict(soft, **tls.openssl())),
            'libcsm': lambda: load('libcsm-sign', 1, options=['--key', 'bench-tls'], env=soft),
        }),
    ]
