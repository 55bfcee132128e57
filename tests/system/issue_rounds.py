"""Clients that ask csm-server for certificates until it is killed: each by a token of its own, which is good for one.

    issue_rounds.py PORT ROOT.pem CSR TOKENS OUT CLIENTS

TOKENS has a token a line. OUT gets a line for each answer: the token's number and the serial. It ends when the server is gone.
"""
import http.client
import json
import ssl
import sys
import threading

port, root, csr, tokens, out, clients = sys.argv[1:]
trust = ssl.create_default_context(cafile=root)
body = json.dumps({'csr': open(csr, encoding='ascii').read()})
left = list(enumerate(open(tokens, encoding='ascii').read().split()))
lock = threading.Lock()


def work(result):
    connection = http.client.HTTPSConnection('localhost', int(port), context=trust, timeout=20)
    while True:
        with lock:
            if not left:
                return
            number, token = left.pop()
        try:
            # twice with the same token: one of them at most is answered with a certificate
            for _ in range(2):
                connection.request('POST', '/v1/cms/certificates', body, {
                    'Content-Type': 'application/json', 'Authorization': f'Bearer {token}'})
                answer = connection.getresponse()
                data = answer.read()
                if answer.status == 201:
                    with lock:
                        result.write(f'{number} {json.loads(data)["serial"]}\n')
                        result.flush()
        except (OSError, http.client.HTTPException):
            return


with open(out, 'a', encoding='ascii') as file:
    threads = [threading.Thread(target=work, args=(file,)) for _ in range(int(clients))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
