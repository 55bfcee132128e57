"""csm beside its peers, in rounds taken in turn; scripts/bench.sh starts it inside two private nodes.

Every group is measured ROUNDS times, its members one after the other in each round, so that what the machine does
meanwhile meets them alike; figures are medians, a ratio is the median of the rounds' ratios. A round in which others
than the two sides used more than FOREIGN_MAX of the machine is measured again, as long as there is time.
"""
import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

FOREIGN_MAX = 0.10
TIME_LIMIT = 280  # seconds of the whole run; a round is measured again only while the rest still fits
OVERHEAD = 0.5  # seconds of one measurement beside what is measured
TRIES = 3
CORE = 0  # where both sides are put for round trips on one core
BUILD = os.environ.get('CSM_BUILD', 'build')
LOAD = f'{BUILD}/tests/bench/load'
SERVER = f'{BUILD}/tests/bench/server'
SAPI_LOOP = f'{BUILD}/tests/bench/sapi_loop'
SOFTHSM = '/usr/lib/softhsm/libsofthsm2.so'
PIN = '1234'


def say(text):
    print(text, file=sys.stderr, flush=True)


# ---- who uses the processor ----

def machine_ticks():
    """Ticks of all processors: all, busy."""
    with open('/proc/stat', encoding='ascii') as f:
        ticks = [int(x) for x in f.readline().split()[1:9]]
    return sum(ticks), sum(ticks) - ticks[3] - ticks[4]


def process_table():
    table = {}
    for entry in os.listdir('/proc'):
        if not entry.isdigit():
            continue
        try:
            with open(f'/proc/{entry}/stat', encoding='utf-8', errors='replace') as f:
                fields = f.read().rsplit(')', 1)[1].split()
        except OSError:
            continue
        table[int(entry)] = (int(fields[1]), sum(int(x) for x in fields[11:15]))
    return table


def tree_ticks(roots):
    """Ticks of processes, their descendants, and those of them that were waited for."""
    table = process_table()
    wanted = {pid for pid in roots if pid in table}
    grew = True
    while grew:
        more = {pid for pid, (parent, _) in table.items() if parent in wanted} - wanted
        wanted |= more
        grew = bool(more)
    return sum(table[pid][1] for pid in wanted)


class Clock:
    """The share of the machine that others used between two looks."""

    def __init__(self, roots):
        self.roots = roots

    def look(self):
        return machine_ticks() + (tree_ticks(self.roots),)

    @staticmethod
    def foreign(before, after):
        total, busy, own = (b - a for a, b in zip(before, after))
        return max(0.0, (busy - own) / total) if total > 0 else 0.0


# ---- peers ----

class Peers:
    """Servers that stand beside csm, each in a folder of its own; all are gone after close()."""

    def __init__(self, top):
        self.top = top
        self.running = []

    def folder(self, name):
        path = f'{self.top}/{name}'
        os.mkdir(path, 0o700)
        return path

    def start(self, folder, command, socket, env=None):
        with open(f'{folder}/log', 'wb') as log:
            process = subprocess.Popen(command, cwd=folder, env=dict(os.environ, **(env or {})),
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.running.append(process)
        end = time.monotonic() + 10
        while not os.path.exists(socket):
            if process.poll() is not None or time.monotonic() > end:
                with open(f'{folder}/log', encoding='utf-8', errors='replace') as log:
                    raise RuntimeError(f'{command[0]} does not start: {log.read()[-500:]}')
            time.sleep(0.02)
        return process.pid

    def close(self):
        for process in self.running:
            try:
                # Its session is its own: what it forked goes with it.
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        for process in self.running:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(5)

    def bare(self, kind, threads):
        folder = self.folder(kind)
        path = f'{folder}/sock'
        pid = self.start(folder, [os.path.abspath(SERVER), kind, path, str(threads)], path)
        return path, pid

    def redis(self, name, *options):
        folder = self.folder(name)
        path = f'{folder}/sock'
        self.start(folder, ['redis-server', '--port', '0', '--unixsocket', path, '--dir', folder, '--save', '',
                            *options], path)
        return path

    def softhsm(self):
        folder = self.folder('softhsm')
        os.mkdir(f'{folder}/tokens', 0o700)
        with open(f'{folder}/conf', 'w', encoding='ascii') as f:
            f.write(f'directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n')
        env = {'SOFTHSM2_CONF': f'{folder}/conf'}
        run(['softhsm2-util', '--init-token', '--free', '--label', 'bench', '--pin', PIN, '--so-pin', PIN], env)
        return env

    def p11_kit(self, softhsm_env):
        folder = self.folder('p11-kit')
        path = f'{folder}/sock'
        self.start(folder, ['p11-kit', 'server', '-f', '-n', path, '--provider', SOFTHSM, 'pkcs11:token=bench'], path,
                   softhsm_env)
        return {'P11_KIT_SERVER_ADDRESS': f'unix:path={path}'}

    def ssh_agent(self):
        folder = self.folder('ssh-agent')
        path = f'{folder}/sock'
        run(['ssh-keygen', '-q', '-t', 'ecdsa', '-b', '256', '-N', '', '-f', f'{folder}/key'])
        self.start(folder, ['ssh-agent', '-D', '-a', path], path)
        run(['ssh-add', '-q', f'{folder}/key'], {'SSH_AUTH_SOCK': path})
        return path


def run(command, env=None):
    done = subprocess.run(command, env=dict(os.environ, **(env or {})), stdin=subprocess.DEVNULL, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise RuntimeError(f'{command[0]}: {done.stdout.decode(errors="replace")[-500:]}')


def p11_kit_client():
    for folder in (f'/usr/lib/{platform.machine()}-linux-gnu/pkcs11', '/usr/lib/pkcs11'):
        if os.path.exists(f'{folder}/p11-kit-client.so'):
            return f'{folder}/p11-kit-client.so'
    return 'p11-kit-client.so'


# ---- one measurement ----

def set_core(pid, cores):
    for task in os.listdir(f'/proc/{pid}/task'):
        os.sched_setaffinity(int(task), cores)


class Bench:
    def __init__(self, seconds, clock):
        self.seconds = seconds
        self.clock = clock

    def load(self, work, clients=1, depth=1, options=(), env=None, core=None, server=None):
        """The load generator; with core, it and the process `server` are on that core."""
        command = [LOAD, work, '--clients', str(clients), '--depth', str(depth), '--seconds', str(self.seconds),
                   '--gate', *options]
        everywhere = os.sched_getaffinity(0)
        if core is not None:
            set_core(server, {core})
            command = ['taskset', '-c', str(core)] + command
        try:
            return self.gated(command, env)
        finally:
            if core is not None:
                set_core(server, everywhere)

    def gated(self, command, env):
        with subprocess.Popen(command, env=dict(os.environ, **(env or {})), stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as process:
            watchdog = threading.Timer(60 + self.seconds, process.kill)
            watchdog.start()
            try:
                looks = []
                for word in ('ready', 'measured'):
                    if process.stdout.readline().strip() != word:
                        raise RuntimeError(f'{" ".join(command)}: status {process.wait()}')
                    looks.append(self.clock.look())
                    process.stdin.write('\n')
                    process.stdin.flush()
                result = json.loads(process.stdout.readline())
            finally:
                watchdog.cancel()
        result['foreign'] = round(self.clock.foreign(*looks), 3)
        return result

    def sapi_loop(self, mode):
        """On a TPM simulator of its own."""
        env = {k: v for k, v in os.environ.items() if k != 'CSM_TPM_TCTI'}
        before = self.clock.look()
        done = subprocess.run([SAPI_LOOP, mode, str(self.seconds)], env=env, stdin=subprocess.DEVNULL, timeout=60,
                              stdout=subprocess.PIPE, text=True, check=True)
        foreign = self.clock.foreign(before, self.clock.look())
        rate = float(done.stdout.split(':', 1)[1].split()[0])
        return {'rate': rate, 'p50_us': None, 'p99_us': None, 'mode': 'a loop of calls', 'clients': 1, 'depth': 1,
                'foreign': round(foreign, 3)}


def groups(bench, peers):
    """Group, title, members: name and what measures it."""
    soft = ['--socket', os.environ['BENCH_SOFT_SOCKET'], '--key', 'bench', '--backend', 'soft']
    tpm = ['--socket', os.environ['CSM_SOCKET'], '--key', 'bench', '--backend', 'tpm2']
    broker = int(os.environ['BENCH_SOFT_BROKER'])
    hsm = peers.softhsm()
    p11 = dict(hsm, **peers.p11_kit(hsm))
    agent = peers.ssh_agent()
    echo, echo_pid = peers.bare('echo', 1)
    signer, _ = peers.bare('sign', os.cpu_count())
    cache = peers.redis('redis')
    durable = peers.redis('redis-durable', '--appendonly', 'yes', '--appendfsync', 'always')
    cpus = os.cpu_count()
    load = bench.load
    module = ['--module', p11_kit_client(), '--pin', PIN, '--key', 'bench']
    in_process = ['--module', SOFTHSM, '--pin', PIN, '--key', 'bench']
    # p11-kit's clients are threads of one process, a session each, over one connection; or processes, and then the
    # server runs a process for each of them: SoftHSM2 is not shared any more.
    return [
        ('sign', 'P-256 signatures, software keys, 8 blocking clients, 1 in flight each', {
            'csm': lambda: load('csm-sign', 8, options=soft),
            'p11-kit server + SoftHSM2': lambda: load('pkcs11-sign', 8, options=module, env=p11),
            'p11-kit server + SoftHSM2, 8 processes': lambda: load(
                'pkcs11-sign', 8, options=[*module, '--processes'], env=p11),
            f'OpenSSL in the process, {cpus} threads': lambda: load('openssl-sign', cpus),
            'OpenSSL in the process, 1 thread': lambda: load('openssl-sign', 1),
            f'bare socket server that signs, {cpus} loops': lambda: load('signer', 8, options=['--socket', signer]),
            'ssh-agent': lambda: load('agent-sign', 8, options=['--socket', agent]),
            'SoftHSM2 in the process, 8 threads': lambda: load('pkcs11-sign', 8, options=in_process, env=hsm),
        }),
        ('sign16', 'P-256 signatures, software keys, 8 blocking clients, 16 in flight each', {
            'csm': lambda: load('csm-sign', 8, 16, options=soft),
            f'OpenSSL in the process, {cpus} threads': lambda: load('openssl-sign', cpus),
            f'bare socket server that signs, {cpus} loops': lambda: load('signer', 8, 16, options=['--socket', signer]),
        }),
        ('tpm', 'P-256 signatures, one hot key in the TPM (swtpm)', {
            'csm, 8 blocking clients': lambda: load('csm-sign', 8, options=tpm),
            'bare SAPI loop': lambda: bench.sapi_loop('stock'),
            'csm, 1 blocking client': lambda: load('csm-sign', 1, options=tpm),
            "csm's back end without the broker": lambda: bench.sapi_loop('plugin'),
        }),
        ('get', 'secret get of 64 bytes among 1,000, 8 blocking clients, 1 in flight each', {
            'csm': lambda: load('csm-get', 8, options=soft),
            'Redis GET': lambda: load('redis-get', 8, options=['--socket', cache]),
        }),
        ('get-epoll', 'secret get of 64 bytes, one epoll client with 8 connections, 1 in flight each', {
            'csm': lambda: load('csm-get', 8, options=[*soft, '--epoll']),
            'Redis GET': lambda: load('redis-get', 8, options=['--socket', cache, '--epoll']),
        }),
        ('get16', 'secret get of 64 bytes, 8 blocking clients, 16 in flight each', {
            'csm': lambda: load('csm-get', 8, 16, options=soft),
            'Redis GET': lambda: load('redis-get', 8, 16, options=['--socket', cache]),
        }),
        ('put', 'durable secret set of 64 bytes, 8 blocking clients, 1 in flight each', {
            'csm': lambda: load('csm-put', 8, options=soft),
            'Redis SET, appendfsync always': lambda: load('redis-set', 8, options=['--socket', durable]),
        }),
        ('put64', 'durable secret set of 64 bytes, 64 blocking clients, 1 in flight each', {
            'csm': lambda: load('csm-put', 64, options=soft),
            'Redis SET, appendfsync always': lambda: load('redis-set', 64, options=['--socket', durable]),
        }),
        ('ping', 'round trips of one blocking client, both sides on one core', {
            'csm ping': lambda: load('csm-ping', 1, options=soft, core=CORE, server=broker),
            'bare echo': lambda: load('echo', 1, options=['--socket', echo], core=CORE, server=echo_pid),
        }),
        ('ping-across', 'round trips of one blocking client, wherever the kernel puts the sides', {
            'csm ping': lambda: load('csm-ping', 1, options=soft),
            'bare echo': lambda: load('echo', 1, options=['--socket', echo]),
        }),
    ]


# Ratios: group, what is divided, by what, the figure compared, and the bar if there is one.
def ratios():
    cpus = os.cpu_count()
    threads = f'OpenSSL in the process, {cpus} threads'
    return [
        ('sign', 'csm', 'p11-kit server + SoftHSM2', 'rate', ('at least', 4.0)),
        ('sign', 'csm', 'p11-kit server + SoftHSM2, 8 processes', 'rate', None),
        ('sign', 'csm', threads, 'rate', None),
        ('sign', 'csm', f'bare socket server that signs, {cpus} loops', 'rate', None),
        ('sign', 'csm', 'ssh-agent', 'rate', None),
        ('sign', 'csm', 'SoftHSM2 in the process, 8 threads', 'rate', None),
        ('sign16', 'csm', threads, 'rate', None),
        ('sign16', 'csm', f'bare socket server that signs, {cpus} loops', 'rate', None),
        ('tpm', 'csm, 8 blocking clients', 'bare SAPI loop', 'rate', ('at least', 0.85)),
        ('tpm', 'csm, 1 blocking client', 'bare SAPI loop', 'rate', None),
        ('get', 'csm', 'Redis GET', 'rate', ('at least', 0.7)),
        ('get-epoll', 'csm', 'Redis GET', 'rate', None),
        ('get16', 'csm', 'Redis GET', 'rate', None),
        ('put', 'csm', 'Redis SET, appendfsync always', 'rate', None),
        ('put64', 'csm', 'Redis SET, appendfsync always', 'rate', None),
        ('ping', 'csm ping', 'bare echo', 'p50_us', ('at most', 1.3)),
        ('ping-across', 'csm ping', 'bare echo', 'p50_us', None),
    ]


IDLE_MIB_MAX = 12.0


# ---- rounds ----

def one_round(members):
    taken = {}
    for name, measure in members.items():
        try:
            taken[name] = measure()
        except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
            say(f'bench: {name}: {error}')
            taken[name] = None
    return taken


def disturbed(taken):
    return max((m['foreign'] for m in taken.values() if m is not None), default=0.0)


def measure_group(members, rounds, end):
    """The rounds, and how many were measured again; none after `end`."""
    kept, again = [], 0
    for _ in range(rounds):
        best = one_round(members)
        for _ in range(TRIES - 1):
            if disturbed(best) <= FOREIGN_MAX or time.monotonic() > end:
                break
            again += 1
            other = one_round(members)
            best = min(best, other, key=disturbed)
        kept.append(best)
    return kept, again


def series(rounds, name, figure):
    return [r[name][figure] for r in rounds if r[name] is not None and r[name][figure] is not None]


def ratio_of(rounds, above, below, figure):
    pairs = [(r[above][figure], r[below][figure]) for r in rounds if r[above] is not None and r[below] is not None]
    return [a / b for a, b in pairs if b]


def idle_memory(pid):
    """VmRSS and Pss in MiB; Pss is None where it may not be read."""
    rss = pss = None
    with open(f'/proc/{pid}/status', encoding='utf-8') as f:
        for line in f:
            if line.startswith('VmRSS:'):
                rss = int(line.split()[1]) / 1024
    try:
        with open(f'/proc/{pid}/smaps_rollup', encoding='utf-8') as f:
            for line in f:
                if line.startswith('Pss:'):
                    pss = int(line.split()[1]) / 1024
    except OSError:
        pass
    return {'rss_mib': rss, 'pss_mib': pss}


# ---- what is told ----

def number(value, digits=0):
    return '-' if value is None else f'{value:,.{digits}f}'


def print_group(title, group):
    print(f'\n{title}')
    print(f'  {"":<46}{"per second":>12}{"spread":>9}{"p50 us":>10}{"p99 us":>10}{"others":>8}  clients')
    for name, m in group['members'].items():
        if m is None:
            print(f'  {name:<46}{"not measured":>12}')
            continue
        print(f'  {name:<46}{number(m["rate"]):>12}{m["spread"]:>8.0%} {number(m["p50_us"], 1):>10}'
              f'{number(m["p99_us"], 1):>10}{m["foreign"]:>8.0%}  {m["mode"]}, {m["clients"]} x {m["depth"]}')


def summarize(rounds):
    members = {}
    for name in rounds[0]:
        rates = series(rounds, name, 'rate')
        if not rates:
            members[name] = None
            continue
        sample = next(r[name] for r in rounds if r[name] is not None)
        middle = statistics.median(rates)
        members[name] = {
            'rate': middle, 'spread': (max(rates) - min(rates)) / middle,
            'foreign': max(series(rounds, name, 'foreign')),
            'mode': sample['mode'], 'clients': sample['clients'], 'depth': sample['depth']}
        for figure in ('p50_us', 'p99_us'):
            values = series(rounds, name, figure)
            members[name][figure] = statistics.median(values) if values else None
    return members


def compare(report):
    for group, above, below, figure, bar in ratios():
        if group not in report['groups']:
            continue
        values = ratio_of(report['groups'][group]['rounds'], above, below, figure)
        row = {'group': group, 'of': above, 'to': below, 'figure': figure, 'ratio': None, 'low': None, 'high': None}
        if values:
            row.update(ratio=statistics.median(values), low=min(values), high=max(values))
        if bar is not None:
            row['bar'] = {'kind': bar[0], 'value': bar[1]}
            row['met'] = row['ratio'] is not None and (
                row['ratio'] >= bar[1] if bar[0] == 'at least' else row['ratio'] <= bar[1])
        report['ratios'].append(row)


def print_ratios(report):
    print('\nratios (median of the rounds, lowest to highest)')
    for r in report['ratios']:
        what = 'round trip' if r['figure'] == 'p50_us' else 'rate'
        value = f'{r["ratio"]:.2f} x' if r['ratio'] is not None else '-'
        spread = f'{r["low"]:.2f} to {r["high"]:.2f}' if r['ratio'] is not None else ''
        print(f'  {r["group"]:<12}{r["of"] + " / " + r["to"]:<62}{what:<12}{value:>8}   {spread}')


def print_bars(report):
    print('\nbars')
    for r in report['ratios']:
        if 'bar' not in r:
            continue
        value = f'{r["ratio"]:.2f} x' if r['ratio'] is not None else 'not measured'
        text = f'{r["group"]}: {r["of"]} to {r["to"]}'
        print(f'  {text:<62}{value:>12}  {r["bar"]["kind"]} {r["bar"]["value"]} x: {"met" if r["met"] else "NOT met"}')
    idle = report['idle']
    pss = f', Pss {idle["pss_mib"]:.1f}' if idle['pss_mib'] is not None else ''
    print(f'  {"idle broker, root key in a file: VmRSS" + pss:<62}{idle["rss_mib"]:>8.1f} MiB  '
          f'under {IDLE_MIB_MAX:.0f} MiB: {"met" if idle["met"] else "NOT met"}')


def package_versions(*names):
    versions = {}
    for name in names:
        done = subprocess.run(['dpkg-query', '-W', '-f', '${Version}', name], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, check=False)
        versions[name] = done.stdout or None
    return versions


def describe_machine():
    model = None
    with open('/proc/cpuinfo', encoding='utf-8') as f:
        for line in f:
            if line.startswith('model name'):
                model = line.split(':', 1)[1].strip()
                break
    return {
        'cpus': os.cpu_count(), 'model': model, 'kernel': platform.release(),
        'packages': package_versions('libssl3', 'redis-server', 'p11-kit', 'softhsm2', 'openssh-client', 'swtpm')}


def pid_in(folder, name):
    with open(f'{folder}/{name}.pid', encoding='ascii') as f:
        return int(f.read())


def main():
    parser = argparse.ArgumentParser(prog='bench.sh')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--seconds', type=float, default=1.0, help='of one measurement')
    parser.add_argument('--output', default=f'{BUILD}/bench.json')
    parser.add_argument('groups', nargs='*', metavar='GROUP',
                        help='sign sign16 tpm get get-epoll get16 put put64 ping ping-across; all unless given')
    args = parser.parse_args()
    begin = time.monotonic()
    for number_of in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number_of, lambda *_: sys.exit(1))  # the peers go too
    soft_dir, tpm_dir = os.environ['BENCH_SOFT_DIR'], os.environ['CSM_NODE_DIR']
    clock = Clock([os.getpid(), pid_in(soft_dir, 'csmd'), pid_in(tpm_dir, 'csmd'), pid_in(tpm_dir, 'swtpm')])
    report = {'machine': describe_machine(), 'seconds': args.seconds, 'groups': {}, 'ratios': []}
    # Before any load: what an idle broker holds.
    report['idle'] = idle_memory(int(os.environ['BENCH_SOFT_BROKER']))
    report['idle']['met'] = report['idle']['rss_mib'] < IDLE_MIB_MAX
    top = tempfile.mkdtemp(prefix='csm-bench.')
    peers = Peers(top)
    try:
        wanted = [g for g in groups(Bench(args.seconds, clock), peers) if not args.groups or g[0] in args.groups]
        left = sum(len(members) for _, _, members in wanted) * args.rounds * (args.seconds + OVERHEAD)
        for name, title, members in wanted:
            say(f'bench: {name}')
            left -= len(members) * args.rounds * (args.seconds + OVERHEAD)
            rounds, again = measure_group(members, args.rounds, begin + TIME_LIMIT - left)
            report['groups'][name] = {
                'title': title, 'again': again, 'members': summarize(rounds), 'rounds': rounds}
            print_group(title, report['groups'][name])
    finally:
        peers.close()
        shutil.rmtree(top, ignore_errors=True)
    compare(report)
    print_ratios(report)
    print_bars(report)
    report['took'] = round(time.monotonic() - begin, 1)
    with open(args.output, 'w', encoding='utf-8') as f:
        json.dump(report, f, indent=1)
        f.write('\n')
    worst = max((m['foreign'] for g in report['groups'].values() for m in g['members'].values() if m), default=0)
    again = sum(g['again'] for g in report['groups'].values())
    print(f'\n{report["took"]:.0f} s; {again} rounds measured again; others used up to {worst:.0%} of the machine'
          + ('' if worst <= FOREIGN_MAX else ': read the rates with care, the ratios less so'))


if __name__ == '__main__':
    main()
