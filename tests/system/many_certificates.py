"""many_certificates.py PORT PUBLIC-PORT FOLDER CERTIFICATES TIME PID LOAD PAGES LIST: what is asked of a csm-server with many
certificates (tests/lib/manycerts.py has which). Tells times, and judges none of them; the memory of the server it does judge."""
import sys
import time

import manycerts as many

MIB = 64
SLOW_READERS = 20
REVOKED_LATER = 8  # beside the tenth

port, public, folder, n, base, pid, load, pages, keep = sys.argv[1:]
port, public, n, base, pages = int(port), int(public), int(n), int(base), int(pages)
server = many.Server(port, public, f'{folder}/admin.pem', f'{folder}/admin.key', f'{folder}/root.pem')


def say(text):
    print(f'- {text}', flush=True)


def await_list():
    """The one of the start."""
    end = time.monotonic() + 60
    while many.ask(server.plain(), 'GET', '/crl/default.crl')[0] != 200:
        assert time.monotonic() < end, 'there is no list'
        time.sleep(0.1)


def small(what):
    now, most = many.memory(pid)
    say(f'{what}: {now:.1f} MiB resident, {most:.1f} at most until now')
    assert most < MIB, f'{what}: {most:.1f} MiB'


await_list()
small('at the start')
issuing = [load, '--socket', f'127.0.0.1:{port}', '--key', f'{folder}/both.pem', '--module', f'{folder}/root.pem']
with many.Issuing(issuing, server):
    for name, ms in many.measure_pages(server, n, base, pages).items():
        say(f'pages of {name}: p95 {ms} ms')
    small('after all pages')
    times = many.revoke_to_ocsp(server, [10 * k + 1 for k in range(REVOKED_LATER - 4)])
    say(f'revocation to OCSP answer: {max(times):.0f} ms at most')
    readers = many.SlowReaders(server, SLOW_READERS)
    say(f'revocation to list, beside {SLOW_READERS} slow readers and those who issue: {many.revoke_to_list(server, 7, keep):.0f} ms')
    small('with slow readers')
say('revocations to lists, one after the other, nobody issues: '
    + ', '.join(f'{many.revoke_to_list(server, i, keep):.0f} ms' for i in (17, 27, 37)))
small('with slow readers still')
readers.close()
