"""csm-server with many certificates stored, a tenth of them revoked: how soon a revocation shows, and how long a page of the inventory
takes. 10,000 certificates, 1,000,000 with CSM_LONG; one server for all that is asked here."""
import os
import shutil
import subprocess
import sys
import time

import figures
import issue
from peers import BUILD, Peers

sys.path.insert(0, f'{figures.TOP}/tests/lib')
import manycerts as many  # noqa: E402  pylint: disable=wrong-import-position

CERTIFICATES = 10 ** 6 if os.environ.get('CSM_LONG') else 10 ** 4
PAGES = 20  # from each of a filter's first, middle and last page on
REVOCATIONS = 20
LISTS = 3
SLOW_READERS = 20


class Stored:
    """The server, filled, with a node of its own."""

    def __init__(self, top, certificates):
        self.n, self.base = certificates, int(time.time())
        self.folder, self.later = f'{top}/many', 1
        os.mkdir(self.folder, 0o755)
        self.node, self.peers = figures.Node(f'{self.folder}/node'), Peers(self.folder)
        try:
            self.node.start()
            public = issue.free_port()
            options = issue.csm_server(self.peers, self.node.socket, f'public_listen: "127.0.0.1:{public}"\n', self.fill)
            self.load = [f'{BUILD}/tests/bench/load', *options]
            self.server = many.Server(int(options[1].rsplit(':', 1)[1]), public, options[3], options[3], options[5])
            self.pid = self.peers.running[-1].pid
            self.await_list()
        except BaseException:
            self.close()
            raise

    def fill(self, state):
        tool = shutil.copy(f'{BUILD}/tests/bench/inventory', f'{self.folder}/inventory')  # where that user can reach it
        done = subprocess.run(['setpriv', '--reuid', str(issue.UID), '--regid', str(issue.UID), '--clear-groups', '--', tool, 'fill', state,
                               '0', str(self.n), str(self.base)], env=dict(os.environ, CSM_SOCKET=self.node.socket), timeout=1800,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f'fill: {done.stderr}')

    def await_list(self):
        end = time.monotonic() + 60
        while many.ask(self.server.plain(), 'GET', '/crl/default.crl')[0] != 200:
            if time.monotonic() > end:
                raise RuntimeError('csm-server makes no list')
            time.sleep(0.05)

    def next_valid(self):
        """One that is not revoked yet."""
        self.later += 10
        return self.later

    def close(self):
        self.peers.close()
        self.node.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Scale:
    """What is asked, of a server that is there when it is asked for first. `few`: to see that it works."""

    def __init__(self, few):
        self.few, self.stored = few, None

    def there(self, top):
        if self.stored is None:
            self.stored = Stored(top, 500 if self.few else CERTIFICATES)
        return self.stored

    def close(self):
        if self.stored is not None:
            self.stored.close()

    def revoke(self, top):
        s = self.there(top)
        return {'ocsp': many.revoke_to_ocsp(s.server, [s.next_valid() for _ in range(2 if self.few else REVOCATIONS)]),
                'details': [f'from the sending of a revocation to the end of the first OCSP answer that tells it, among {s.n:,} certificates']}

    def crl(self, top):
        s, times = self.there(top), []
        for _ in range(1 if self.few else LISTS):
            times.append(many.revoke_to_list(s.server, s.next_valid()))
        return {'list': times, 'details': [f'from there to the last byte of the first list that has it, of {s.n // 10:,} entries, asked for '
                                           'each 20 ms at the public door; one after the other, so that the server rests in between']}

    def inventory(self, top):
        s = self.there(top)
        with many.Issuing(s.load, s.server):
            pages = many.measure_pages(s.server, s.n, s.base, 1 if self.few else PAGES)
        readers = many.SlowReaders(s.server, SLOW_READERS)
        try:
            many.revoke_to_list(s.server, s.next_valid())
            resident = many.memory(s.pid)[1]
        finally:
            readers.close()
        slow = sorted(pages.items(), key=lambda p: -p[1])[:3]
        return {'page': [max(pages.values())], 'resident': [resident],
                'details': [f'{s.n:,} certificates, pages of {many.PAGE} by {len(pages)} filters, 2 clients issue; slowest: '
                            + ', '.join(f'{name} {ms} ms' for name, ms in slow),
                            f'resident: at most since the start, {SLOW_READERS} slow readers of the list at the end']}
