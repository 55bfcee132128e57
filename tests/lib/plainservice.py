"""A service for sidecars to stand before: HTTP on the loopback interface, one answer and close.

usage: plainservice.py PORT [--proxy] [--tls CHAIN KEY TRUST]

It answers with what it was told of its caller, a line each: `certificate URI` for each URI among the names of the
certificate in X-Client-Cert, `peer URI` for those of the caller's own (--tls), `proxy LINE` for a header of the PROXY
protocol, which has to be there with --proxy.
"""
import os
import socketserver
import ssl
import subprocess
import sys
import urllib.parse

TLS = None


def uris(certificate):
    text = subprocess.run(['openssl', 'x509', '-noout', '-ext', 'subjectAltName'], input=certificate, text=True,
                          env=dict(os.environ, OPENSSL_CONF='/dev/null'), capture_output=True, check=True, timeout=10).stdout
    return [word[4:].strip(',') for word in text.split() if word.startswith('URI:')]


class Service(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.settimeout(10)
        said = []
        if TLS is not None:
            try:
                self.request = TLS.wrap_socket(self.request, server_side=True)
            except (ssl.SSLError, OSError) as error:
                print('tls:', error, flush=True)
                return
            said += ['peer ' + name for kind, name in self.request.getpeercert()['subjectAltName'] if kind == 'URI']
        with self.request.makefile('rb') as stream:
            line = stream.readline().decode()
            if '--proxy' in sys.argv:
                if not line.startswith('PROXY '):
                    return
                said.append('proxy ' + line.strip())
                line = stream.readline().decode()
            while line.strip():
                name, _, value = line.partition(':')
                if name.lower() == 'x-client-cert':
                    said += ['certificate ' + uri for uri in uris(urllib.parse.unquote(value.strip()))]
                line = stream.readline().decode()
        body = ''.join(line + '\n' for line in ['the service'] + said)
        self.request.sendall(f'HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}'.encode())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == '__main__':
    if '--tls' in sys.argv:
        chain, key, trust = sys.argv[sys.argv.index('--tls') + 1:][:3]
        TLS = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=trust)
        TLS.load_cert_chain(chain, key)
        TLS.verify_mode = ssl.CERT_REQUIRED
    Server(('127.0.0.1', int(sys.argv[1])), Service).serve_forever()
