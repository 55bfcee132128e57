"""What is asked of csm in figures, and how what was measured is told."""
import os
import statistics

CPUS = os.cpu_count()
OPENSSL = f'OpenSSL in the process, {CPUS} threads'
SIGNER = f'bare socket server that signs, {CPUS} loops'
P11_KIT = 'p11-kit server + SoftHSM2'
ABRMD = 'tpm2-pkcs11 over tpm2-abrmd'
REDIS_SET = 'Redis SET, appendfsync always'

# Group, what is divided, by what, the figure compared, and the bar and the aim where there are such.
RATIOS = (
    ('sign', 'csm', P11_KIT, 'rate', 5.0, None),
    ('sign', 'csm', OPENSSL, 'rate', 0.42, 0.55),
    ('sign', 'csm', f'{P11_KIT}, 8 processes', 'rate', None, None),
    ('sign', 'csm', SIGNER, 'rate', None, None),
    ('sign', 'csm', 'ssh-agent', 'rate', None, None),
    ('sign', 'csm', 'SoftHSM2 in the process, 8 threads', 'rate', None, None),
    ('sign16', 'csm', OPENSSL, 'rate', 0.80, 0.90),
    ('sign16', 'csm', SIGNER, 'rate', None, None),
    ('tpm', 'csm, 8 blocking clients', 'bare SAPI loop', 'rate', 0.95, 0.98),
    ('tpm', 'csm, 1 blocking client', 'bare SAPI loop', 'rate', 0.85, 0.98),
    ('tpm', 'csm, 8 blocking clients', f'{ABRMD}, 8 clients', 'rate', None, None),
    ('tpm', 'csm, 1 blocking client', f'{ABRMD}, 1 client', 'rate', None, None),
    ('hsm', 'csm, 1 blocking client', 'SoftHSM2 in the process, 1 thread', 'rate', 0.6, 0.8),
    ('get', 'csm', 'Redis GET', 'rate', 1.1, 1.4),
    ('get-epoll', 'csm', 'Redis GET', 'rate', 1.0, 1.15),
    ('get16', 'csm', 'Redis GET', 'rate', 0.9, 1.05),
    ('put', 'csm', REDIS_SET, 'rate', 0.5, 1.0),
    ('put64', 'csm', REDIS_SET, 'rate', 0.8, 1.0),
    ('ping', 'csm ping', 'bare echo', 'p50_us', 1.15, 1.05),
    ('ping-across', 'csm ping', 'bare echo', 'p50_us', None, None),
    ('issue', 'csm-server', 'cfssl serve', 'rate', 1.0, None),
    ('tls', 'csm, soft key', 'key file', 'rate', 0.7, None),
    ('tls', 'csm, soft key', 'SoftHSM2 by the PKCS#11 engine', 'rate', 2.0, None),
    ('tls', 'key file', 'SoftHSM2 by the PKCS#11 engine', 'rate', None, None),
    ('tls', 'csm by the PKCS#11 engine, soft key', 'SoftHSM2 by the PKCS#11 engine', 'rate', None, None),
    ('tls', 'csm, TPM key (swtpm)', 'key file', 'rate', None, None),
    ('pkcs11', 'csm-pkcs11', 'SoftHSM2 in the process', 'rate', 1.0, None),
    ('provider', 'OpenSSL with the provider', 'libcsm', 'p50_us', 1.15, None),
)
AT_MOST = ('p50_us',)  # of these less is better

# Figure, its text, its unit, the bar: less is better.
LIMITS = (
    ('memory', 'idle', 'broker resident, idle', 'MiB', 10),
    ('memory', 'keys stored', 'broker resident, 1,000 keys stored', 'MiB', 20),
    ('memory', 'keys used', 'broker resident, each of 1,000 keys used', 'MiB', 20),
    ('memory', 'connections add', '10,000 connections add', 'MiB', 10),
    ('start', 'full', 'start to first answer, 100,000 secrets', 'ms', 150),
    ('start', 'empty', 'start to first answer, no secrets', 'ms', None),
    ('tpm', 'csm, 8 blocking clients', "csmd's processor time a TPM command", 'us', 100),
    ('revoke', 'ocsp', 'revocation to OCSP answer', 'ms', 1000),
    ('crl', 'list', 'revocation to CRL, fetched', 'ms', 2000),
    ('inventory', 'page', 'page of the slowest filter, p95, others issue', 'ms', 50),
    ('inventory', 'resident', 'csm-server resident', 'MiB', 64),
    ('others', '1000 silent connections', "a client's p99 beside 1,000 silent connections", 'x', 2),
    ('others', '1000 half messages', '... beside 1,000 half messages', 'x', 2),
    ('others', 'a flood of one uid, 1000 connections', '... beside a flood from 1,000 connections', 'x', 2),
    ('others', 'connections of one uid come and go', '... beside connections that come and go', 'x', None),
    ('others', '20 deaf readers', '... beside 20 who do not read', 'x', None),
    ('hanging', 'connect', "a client's p99 while a CA hangs in connections", 'x', 1.25),
    ('hanging', 'TLS', '... in TLS', 'x', 1.25),
    ('hanging', 'headers', '... in the head of its answer', 'x', 1.25),
    ('hanging', 'body', '... in the body', 'x', 1.25),
    ('hanging', 'one byte a second', '... at one byte a second', 'x', 1.25),
    ('rude', 'silent connections', "an HTTPS client's p99 beside 100 silent connections", 'x', 2),
    ('rude', 'half handshakes', '... beside 100 half handshakes', 'x', 2),
    ('rude', 'half heads', '... beside 100 half heads', 'x', 2),
    ('rude', 'half bodies', '... beside 100 half bodies', 'x', 2),
    ('rude', 'one byte a second', '... beside 100 at one byte a second', 'x', 2),
    ('rude', 'a flood of requests', '... beside a flood of 100 connections of an address', 'x', 2),
    ('rude', 'a flood from eight addresses', '... the same from eight addresses', 'x', None),
    ('rude', 'connections that come and go', '... beside connections that come and go', 'x', 2),
    ('rude', 'rubbish', '... beside rubbish', 'x', 2),
    ('rude', 'no TLS', '... beside what is no TLS', 'x', 2),
)


# ---- judging ----

def ratio_of(rounds, above, below, figure):
    pairs = [(r[above][figure], r[below][figure]) for r in rounds if r[above] is not None and r[below] is not None]
    return [a / b for a, b in pairs if b]


def verdict(value, goal, at_most):
    if goal is None:
        return None
    return value is not None and (value <= goal if at_most else value >= goal)


def judge(report):
    """Adds `ratios` and `limits`, each row with its bar, its aim, and whether they are met (null: none is set)."""
    report['ratios'], report['limits'] = [], []
    for group, above, below, figure, bar, aim in RATIOS:
        if group not in report['groups']:
            continue
        values = ratio_of(report['groups'][group]['rounds'], above, below, figure)
        middle = statistics.median(values) if values else None
        at_most = figure in AT_MOST
        report['ratios'].append({
            'group': group, 'of': above, 'to': below, 'figure': figure, 'ratio': middle,
            'low': min(values, default=None), 'high': max(values, default=None), 'rounds': values,
            'kind': 'at most' if at_most else 'at least', 'bar': bar, 'aim': aim,
            'bar_met': verdict(middle, bar, at_most), 'aim_met': verdict(middle, aim, at_most)})
    for group, name, text, unit, bar in LIMITS:
        if group not in report['figures']:
            continue
        values = report['figures'][group].get(name, [])
        middle = statistics.median(values) if values else None
        report['limits'].append({
            'group': group, 'name': name, 'text': text, 'unit': unit, 'value': middle, 'low': min(values, default=None),
            'high': max(values, default=None), 'bar': bar,
            'bar_met': None if bar is None else middle is not None and middle < bar})


# ---- printing ----

def number(value, digits=0):
    return '-' if value is None else f'{value:,.{digits}f}'


def print_group(title, group):
    print(f'\n{title}')
    print(f'  {"":<46}{"per second":>12}  {"lowest to highest":<20}{"p50 us":>9}{"p99 us":>10}{"others":>8}  clients')
    for name, m in group['members'].items():
        if m is None:
            print(f'  {name:<46}{"not measured":>12}')
            continue
        span = f'{number(m["low"])} to {number(m["high"])}'
        print(f'  {name:<46}{number(m["rate"]):>12}  {span:<20}{number(m["p50_us"], 1):>9}'
              f'{number(m["p99_us"], 1):>10}{m["foreign"]:>8.0%}  {m["mode"]}, {m["clients"]} x {m["depth"]}')


def met_text(row):
    if row['bar_met'] is None:
        return ''
    if not row['bar_met']:
        return 'NOT met'
    return 'met, aim too' if row.get('aim_met') else 'met'


def print_ratios(rows):
    print('\nratios (medians of the rounds; of `round trip` less is better)')
    print(f'  {"":<74}{"":<11}{"":>8}  {"lowest to highest":<18}{"bar":>6}{"aim":>7}')
    for r in rows:
        what = 'round trip' if r['figure'] == 'p50_us' else 'rate'
        value = f'{r["ratio"]:.2f} x' if r['ratio'] is not None else '-'
        span = f'{r["low"]:.2f} to {r["high"]:.2f}' if r['ratio'] is not None else 'not measured'
        print(f'  {r["group"] + ": " + r["of"] + " / " + r["to"]:<74}{what:<11}{value:>8}  {span:<18}'
              f'{number(r["bar"], 2):>6}{number(r["aim"], 2):>7}  {met_text(r)}'.rstrip())


def print_limits(rows):
    print('\nmemory, start, processor time, and what bad peers do to others (medians; the root key in a file)')
    for r in rows:
        span = f'{r["low"]:.1f} to {r["high"]:.1f}' if r['value'] is not None else 'not measured'
        bar = f'under {r["bar"]} {r["unit"]}' if r['bar'] is not None else ''
        print(f'  {r["text"]:<46}{number(r["value"], 1):>9} {r["unit"]:<4}  {span:<18}{bar:<14}  {met_text(r)}'.rstrip())


def print_details(details):
    for line in details:
        print(f'  {line}')


def print_report(report):
    if report['ratios']:
        print_ratios(report['ratios'])
    if report['limits']:
        print_limits(report['limits'])
        for figures in report['figures'].values():
            print_details(figures['details'])
    rows = [r for r in report['ratios'] + report['limits'] if r['bar'] is not None]
    missed = [r for r in rows if not r['bar_met']]
    print(f'\n{len(rows) - len(missed)} of {len(rows)} bars met')
