"""Every route of csm-server is asked, as nobody and as somebody who gets what it is there for, and what is sent and answered is held
against openapi.yaml: every_route.py OPENAPI ROUTES FOLDER PORT PLAIN-PORT. ROUTES: what `csm-server --routes` prints; FOLDER: ca.sh's."""
import base64
import http.client
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.parse

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

import openapi

spec = openapi.load(sys.argv[1])
routes, queries = {}, {}
for line in open(sys.argv[2], encoding='ascii'):
    known, _, query = line.partition(' ? ')
    method, template, *doors = known.split()
    routes[method, template], queries[method, template] = doors, set(query.split())
folder, port, plain = sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM
exercised = set()


# ---- asking ----

def ask(method, path, who=None, token=None, body=None, kind='application/json', door=port):
    """Status and answer, which is as described. who: a file with certificate and key."""
    if door == plain:
        connection = http.client.HTTPConnection('localhost', plain, timeout=20)
    else:
        context = ssl.create_default_context(cafile=f'{folder}/root.pem')
        if who:
            context.load_cert_chain(f'{folder}/{who}.pem', f'{folder}/{who}.key')
        connection = http.client.HTTPSConnection('localhost', port, context=context, timeout=20)
    headers = {'Content-Type': kind} if body is not None else {}
    if token:
        headers['Authorization'] = 'Basic ' + base64.b64encode(b'x:' + token.encode()).decode()
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    template, described = openapi.held(spec, method, path, str(answer.status), body if kind == 'application/json' else None, data)
    kinds = described.get('content', {})
    got = (answer.getheader('Content-Type') or '').split(';')[0]
    assert not data or not kinds or got in [k.split(';')[0] for k in kinds], (method, path, answer.status, got, list(kinds))
    return answer.status, data, template


def good(method, path, want=None, **how):
    status, data, template = ask(method, path, **how)
    assert 200 <= status < 300 and want in (None, status), (method, path, status, data)
    exercised.add((method, template))
    return json.loads(data) if data.startswith(b'{') else data


def send(method, path, want=None, who=None, token=None, **fields):
    return good(method, path, want, who=who, token=token, body=json.dumps(fields))


# ---- what is sent ----

def request(name, host, curve=ec.SECP256R1()):
    """A new key, name.key, and a request for it."""
    key = ec.generate_private_key(curve)
    with open(f'{folder}/{name}.key', 'wb') as f:
        f.write(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return (x509.CertificateSigningRequestBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), False).sign(key, hashes.SHA256()))


def pem(csr):
    return csr.public_bytes(PEM).decode()


def keep(name, certificate):
    with open(f'{folder}/{name}.pem', 'w', encoding='ascii') as f:
        f.write(certificate)


def token(**fields):
    return send('POST', '/v1/cms/tokens', 201, who='admin', **fields)['token']


def issued(name, host, profile=None, **how):
    fields = {'profile': profile} if profile else {}
    answer = send('POST', '/v1/cms/certificates', 201, csr=pem(request(name, host)), **fields, **how)
    keep(name, answer['certificate'])
    return answer['serial']


# ---- the routes ----

def kind_of(template):
    return 'application/ocsp-request' if '/ocsp' in template else 'application/pkcs10' if '/est/' in template else 'application/json'


def nobody():
    """Whatever it is: an answer that is described, and never a fault of the server's."""
    for (method, template), doors in routes.items():
        path = '/'.join('x' if part.startswith('{') else part for part in template.split('/'))
        for door in (p for d, p in (('tls', port), ('plain', plain)) if d in doors):
            body = '{}' if method in ('POST', 'PUT') else None
            status = ask(method, path, body=body, door=door, kind=kind_of(template))[0]
            assert status < 500, (method, path, status)


def strange_queries():
    """A name that a route does not know is refused, and named, whoever asks; those that it knows are the ones that are described."""
    for (method, template), doors in routes.items():
        told = {p['name'] for p in spec['paths'][template][method.lower()].get('parameters', []) if p['in'] == 'query'}
        assert told == queries[method, template], (method, template, told ^ queries[method, template])
        path = '/'.join('x' if part.startswith('{') else part for part in template.split('/')) + '?colour=red'
        body = '{}' if method in ('POST', 'PUT') else None
        door = port if 'tls' in doors else plain
        status, data, _ = ask(method, path, who='admin' if door == port else None, body=body, door=door, kind=kind_of(template))
        assert status == 400 and b"no 'colour'" in data, (method, path, status, data)


def probes():
    for path in ('/healthz', '/readyz', '/metrics'):
        good('GET', path)


def certificates():
    serial = issued('web', 'web.example', token=token(names=['web.example']))
    again = send('POST', '/v1/cms/renew', 201, who='web', csr=pem(request('web2', 'web.example')))
    good('GET', '/v1/cms/certificates?limit=1&state=valid', who='admin')
    good('GET', f'/v1/cms/certificates/{serial}', who='admin')
    good('GET', f'/v1/cms/certificates/{serial}?format=pem', who='admin')
    send('POST', f'/v1/cms/certificates/{again["serial"]}/revoke', who='admin', reason='superseded')
    good('GET', '/v1/cms/inventory?limit=2', who='admin')


def usage():
    issued('node', 'n1.example', 'node', token=token(profile='node', any_name=True))
    with open(f'{folder}/node.pem', 'rb') as f:
        key = x509.load_pem_x509_certificate(f.read()).public_key()
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    now = int(time.time())
    send('POST', '/v1/cms/usage', who='node', reports=[{
        'key': 'uid-0:k', 'spki_sha256': digest.finalize().hex(), 'from': now - 100, 'to': now, 'signatures': 3, 'last_used': now - 1}])
    for form in ('json', 'csv'):
        good('GET', f'/v1/cms/usage?format={form}', who='admin')


def tokens():
    token(any_name=True)
    first = good('GET', '/v1/cms/tokens?limit=1', who='admin')['tokens'][0]['id']
    good('DELETE', f'/v1/cms/tokens/{first}', 204, who='admin')


def requests():
    for decision in ('approve', 'deny'):
        waits = send('POST', '/v1/cms/certificates', 202, token=token(any_name=True, profile='manual'),
                     csr=pem(request('late', 'late.example')))['request']
        good('GET', '/v1/cms/requests?state=waiting', who='admin')
        good('GET', f'/v1/cms/requests/{waits}', who='admin')
        send('POST', f'/v1/cms/requests/{waits}/{decision}', who='admin')


def authority():
    for form in ('json', 'pem', 'der'):
        good('GET', f'/v1/cms/ca?format={form}')
    csr = send('POST', '/v1/cms/ca', 200, who='admin', issuer='under', subject='/O=Example/CN=Under', self_signed=False)['csr']
    with open(f'{folder}/under.csr', 'w', encoding='ascii') as f:
        f.write(csr)
    subprocess.run(['sh', '-ec', 'openssl req -x509 -newkey rsa:2048 -nodes -keyout outside.key -out outside.pem -subj /CN=Outside '
                    '-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign; openssl x509 -req '
                    '-in under.csr -CA outside.pem -CAkey outside.key -days 20 -copy_extensions copyall -out under.pem'],
                   cwd=folder, check=True, timeout=60, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    chain = ''.join(open(f'{folder}/{name}.pem', encoding='ascii').read() for name in ('under', 'outside'))
    send('PUT', '/v1/cms/ca', who='admin', issuer='under', chain=chain)


def lists():
    end = time.monotonic() + 20
    while ask('GET', '/crl/default.crl', door=plain)[0] != 200:
        assert time.monotonic() < end, 'no list'
        time.sleep(0.1)
    good('GET', '/crl/default.crl', door=plain)
    good('GET', '/ca/default.cer', door=plain)
    good('GET', '/v1/cms/crl?issuer=default', who='admin')
    read = [x509.load_pem_x509_certificate(open(f'{folder}/{name}.pem', 'rb').read()) for name in ('web', 'root')]
    asks = ocsp.OCSPRequestBuilder().add_certificate(*read, hashes.SHA1()).build().public_bytes(DER)
    while ask('POST', '/ocsp', body=asks, kind='application/ocsp-request', door=plain)[0] != 200:
        assert time.monotonic() < end, 'no OCSP'
        time.sleep(0.1)
    for path in ('/ocsp', '/ocsp/default'):
        good('POST', path, body=asks, kind='application/ocsp-request', door=plain)
    good('GET', '/ocsp/' + urllib.parse.quote(base64.b64encode(asks).decode(), safe=''), door=plain)


def est():
    for at, profile, curve in (('', 'default', ec.SECP256R1()), ('/web', 'web', ec.SECP384R1())):
        base = '/.well-known/est' + at
        good('GET', base + '/cacerts')
        good('GET', base + '/csrattrs')
        csr = request('est', 'est.example', curve)
        data = base64.encodebytes(csr.public_bytes(DER))
        answer = good('POST', base + '/simpleenroll', token=token(any_name=True, profile=profile), body=data, kind='application/pkcs10')
        done = subprocess.run(['openssl', 'pkcs7', '-inform', 'DER', '-print_certs'], input=base64.b64decode(answer), check=True,
                              stdout=subprocess.PIPE, timeout=20)
        keep('est', done.stdout.decode())
        good('POST', base + '/simplereenroll', who='est', body=data, kind='application/pkcs10')


described = {(method.upper(), path) for path, item in spec['paths'].items() for method in item}
assert described == set(routes), f'routes and openapi.yaml are not the same: {described ^ set(routes)}'
for part in (nobody, strange_queries, probes, certificates, usage, tokens, requests, authority, lists, est):
    part()
missing = set(routes) - exercised
assert not missing, f'not exercised: {sorted(missing)}'
print(f'- {len(routes)} routes')
os._exit(0)
