"""csm beside its peers, in rounds taken in turn; scripts/bench.sh starts it inside two private nodes.

Every group is measured ROUNDS times, its members one after the other in each round, so that what the machine does
meanwhile meets them alike; figures are medians, a ratio is the median of the rounds' ratios. A round in which others
than the two sides used more than FOREIGN_MAX of the machine is measured again, as long as there is time.

peers.py has what stands beside csm, figures.py memory and start, scale.py csm-server with many certificates, table.py the
bars and what is printed.
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

import figures
import issue
import scale
import table
import tls
from peers import PIN, SOFTHSM, Peers, pkcs11_module

FOREIGN_MAX = 0.10
TIME_LIMIT = 400  # seconds of the whole run; a round is measured again only while the rest still fits
OVERHEAD = 0.5  # seconds of one measurement beside what is measured
WARM_UP = 0.2  # seconds, of the generator
CORE = 0  # where both sides are put for round trips on one core
BUILD = os.environ.get('CSM_BUILD', 'build')
LOAD = f'{BUILD}/tests/bench/load'
SAPI_LOOP = f'{BUILD}/tests/bench/sapi_loop'


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


# ---- one measurement ----

def set_core(pid, cores):
    for task in os.listdir(f'/proc/{pid}/task'):
        os.sched_setaffinity(int(task), cores)


def processor_ns(pid):
    """What its threads have used; none of them ends meanwhile."""
    spent = 0
    for task in os.listdir(f'/proc/{pid}/task'):
        with open(f'/proc/{pid}/task/{task}/schedstat', encoding='ascii') as f:
            spent += int(f.read().split()[0])
    return spent


class Bench:
    def __init__(self, seconds, clock):
        self.seconds = seconds
        self.clock = clock

    def costed(self, server, measure):
        """With the processor time of the process `server` for each request, those of the warming up among them."""
        before = processor_ns(server)
        result = measure()
        seconds = result['seconds'] + WARM_UP
        result['server_us'] = round((processor_ns(server) - before) / 1e3 / (result['rate'] * seconds), 1)
        return result

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


def optional(start):
    """Without it, its members are told as not measured."""
    try:
        return start()
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        say(f'bench: {error}')
        return None


def needed(env):
    """Without it a client would look for a TPM of the machine's."""
    if env is None:
        raise RuntimeError('its server is not there')
    return env


def groups(bench, peers):
    """Group, title, members: name and what measures it."""
    soft = ['--socket', os.environ['BENCH_SOFT_SOCKET'], '--key', 'bench', '--backend', 'soft']
    in_hsm = ['--socket', os.environ['BENCH_SOFT_SOCKET'], '--key', 'bench-hsm', '--backend', 'hsm']
    tpm = ['--socket', os.environ['CSM_SOCKET'], '--key', 'bench', '--backend', 'tpm2']
    broker = int(os.environ['BENCH_SOFT_BROKER'])
    hsm = peers.softhsm()
    p11 = dict(hsm, **peers.p11_kit(hsm))
    agent = peers.ssh_agent()
    abrmd = optional(peers.tpm2_pkcs11)
    echo, echo_pid = peers.bare('echo', 1)
    signer, _ = peers.bare('sign', os.cpu_count())
    cache = peers.redis('redis')
    durable = peers.redis('redis-durable', '--appendonly', 'yes', '--appendfsync', 'always')
    cpus = os.cpu_count()
    load = bench.load
    module = ['--module', pkcs11_module('p11-kit-client.so'), '--pin', PIN, '--key', 'bench']
    in_process = ['--module', SOFTHSM, '--pin', PIN, '--key', 'bench']
    tpm_module = ['--module', pkcs11_module('libtpm2_pkcs11.so'), '--pin', PIN, '--key', 'bench']
    # p11-kit's clients are threads of one process, a session each, over one connection; or processes, and then the
    # server runs a process for each of them: SoftHSM2 is not shared any more. tpm2-pkcs11's are threads.
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
            'csm, 8 blocking clients': lambda: bench.costed(
                int(os.environ['CSM_PID']), lambda: load('csm-sign', 8, options=tpm)),
            'bare SAPI loop': lambda: bench.sapi_loop('stock'),
            'csm, 1 blocking client': lambda: load('csm-sign', 1, options=tpm),
            "csm's back end without the broker": lambda: bench.sapi_loop('plugin'),
            'tpm2-pkcs11 over tpm2-abrmd, 8 clients': lambda: load(
                'pkcs11-sign', 8, options=tpm_module, env=needed(abrmd)),
            'tpm2-pkcs11 over tpm2-abrmd, 1 client': lambda: load(
                'pkcs11-sign', 1, options=tpm_module, env=needed(abrmd)),
        }),
        ('hsm', 'P-256 signatures, a key in SoftHSM2, 1 client', {
            'csm, 1 blocking client': lambda: load('csm-sign', 1, options=in_hsm),
            'SoftHSM2 in the process, 1 thread': lambda: load('pkcs11-sign', 1, options=in_process, env=hsm),
            'csm, 8 blocking clients': lambda: load('csm-sign', 8, options=in_hsm),
            'p11-kit server + SoftHSM2': lambda: load('pkcs11-sign', 1, options=module, env=p11),
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
        *issue.groups(load, peers, os.environ['BENCH_SOFT_SOCKET'], optional),
        *tls.groups(load, peers, hsm, os.environ['BENCH_SOFT_SOCKET'], os.environ['CSM_SOCKET'], optional),
    ]


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


def measure_group(members, rounds, tries, end):
    """The rounds, and how many were measured again; none after `end`."""
    kept, again = [], 0
    for _ in range(rounds):
        best = one_round(members)
        for _ in range(tries - 1):
            if disturbed(best) <= FOREIGN_MAX or time.monotonic() > end:
                break
            again += 1
            other = one_round(members)
            best = min(best, other, key=disturbed)
        kept.append(best)
    return kept, again


def series(rounds, name, figure):
    return [r[name][figure] for r in rounds if r[name] is not None and r[name].get(figure) is not None]


def summarize(rounds):
    members = {}
    for name in rounds[0]:
        rates = series(rounds, name, 'rate')
        if not rates:
            members[name] = None
            continue
        sample = next(r[name] for r in rounds if r[name] is not None)
        members[name] = {
            'rate': statistics.median(rates), 'low': min(rates), 'high': max(rates),
            'foreign': max(series(rounds, name, 'foreign')),
            'mode': sample['mode'], 'clients': sample['clients'], 'depth': sample['depth']}
        for figure in ('p50_us', 'p99_us'):
            values = series(rounds, name, figure)
            members[name][figure] = statistics.median(values) if values else None
    return members


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
        'packages': package_versions('libssl3', 'redis-server', 'p11-kit', 'softhsm2', 'openssh-client', 'swtpm', 'tpm2-abrmd',
                                     'libtpm2-pkcs11-1', 'nginx', 'libengine-pkcs11-openssl', 'golang-cfssl')}


def pid_in(folder, name):
    with open(f'{folder}/{name}.pid', encoding='ascii') as f:
        return int(f.read())


def measure_loads(args, clock, peers, begin, report):
    every = groups(Bench(args.seconds, clock), peers)
    wanted = [g for g in every if not args.groups or g[0] in args.groups]
    left = sum(len(members) for _, _, members in wanted) * args.rounds * (args.seconds + OVERHEAD)
    for name, title, members in wanted:
        say(f'bench: {name}')
        left -= len(members) * args.rounds * (args.seconds + OVERHEAD)
        rounds, again = measure_group(members, args.rounds, args.tries, begin + TIME_LIMIT - left)
        report['groups'][name] = {'title': title, 'again': again, 'members': summarize(rounds), 'rounds': rounds}
        table.print_group(title, report['groups'][name])
        costs = {of: series(rounds, of, 'server_us') for of, r in rounds[0].items() if r is not None and 'server_us' in r}
        if costs:
            report['figures'][name] = {**costs, 'details': []}


def figures_of(many):
    return {'memory': figures.measure_memory, 'start': figures.measure_start, 'revoke': many.revoke, 'crl': many.crl,
            'inventory': many.inventory, 'others': figures.measure_others, 'hanging': figures.measure_hanging,
            'rude': figures.measure_rude}


def measure_figures(args, top, report, measures):
    """On nodes of their own while no other works."""
    for name, measure in measures.items():
        if args.groups and name not in args.groups:
            continue
        say(f'bench: {name}')
        try:
            report['figures'][name] = measure(top)
        except (RuntimeError, OSError, ValueError, AssertionError, subprocess.SubprocessError) as error:
            say(f'bench: {name}: {error}')
            report['figures'][name] = {'details': [f'{name}: not measured: {error}']}


def parse_arguments():
    parser = argparse.ArgumentParser(prog='bench.sh')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=1.0, help='of one measurement')
    parser.add_argument('--tries', type=int, default=3, help='of one round, where others use the machine')
    parser.add_argument('--output', default=f'{BUILD}/bench.json')
    parser.add_argument('groups', nargs='*', metavar='GROUP',
                        help='memory start sign sign16 tpm get get-epoll get16 put put64 ping ping-across issue tls pkcs11 '
                        'provider revoke crl inventory others hanging rude; all unless given')
    return parser.parse_args()


def main():
    args = parse_arguments()
    begin = time.monotonic()
    for number_of in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number_of, lambda *_: sys.exit(1))  # the peers go too
    soft_dir, tpm_dir = os.environ['BENCH_SOFT_DIR'], os.environ['CSM_NODE_DIR']
    clock = Clock([os.getpid(), pid_in(soft_dir, 'csmd'), pid_in(tpm_dir, 'csmd'), pid_in(tpm_dir, 'swtpm')])
    report = {'machine': describe_machine(), 'seconds': args.seconds, 'figures': {}, 'groups': {}}
    top = tempfile.mkdtemp(prefix='csm-bench.')
    os.chmod(top, 0o755)
    peers = Peers(top)
    many = scale.Scale(args.seconds < 1)
    measures = figures_of(many)
    try:
        measure_figures(args, top, report, {name: measures[name] for name in ('memory', 'start')})
        if not args.groups or set(args.groups) - set(measures):
            measure_loads(args, clock, peers, begin, report)
        measure_figures(args, top, report, {name: measure for name, measure in measures.items() if name not in ('memory', 'start')})
    finally:
        many.close()
        peers.close()
        shutil.rmtree(top, ignore_errors=True)
    table.judge(report)
    table.print_report(report)
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
