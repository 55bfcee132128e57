"""What stands beside csm in the benchmarks: servers and tokens of Debian packages, each in a folder of its own."""
import os
import platform
import signal
import subprocess
import time

BUILD = os.environ.get('CSM_BUILD', 'build')
SERVER = f'{BUILD}/tests/bench/server'
SOFTHSM = '/usr/lib/softhsm/libsofthsm2.so'
PIN = '1234'


class Peers:
    """Servers that stand beside csm, each in a folder of its own; all are gone after close()."""

    def __init__(self, top):
        self.top = top
        self.running = []  # in the order of their starts

    def folder(self, name):
        path = f'{self.top}/{name}'
        os.mkdir(path, 0o700)
        return path

    def start(self, folder, command, there, env=None):
        """there: the path of its socket, or a function; the server is up when that exists, or gives True."""
        name = os.path.basename(command[0])
        up = there if callable(there) else lambda: os.path.exists(there)
        with open(f'{folder}/{name}.log', 'wb') as log:
            process = subprocess.Popen(['setpriv', '--pdeathsig', 'TERM', '--', *command], cwd=folder,
                                       env=dict(os.environ, **(env or {})), stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=log, start_new_session=True)
        self.running.append(process)
        end = time.monotonic() + 10
        while not up():
            if process.poll() is not None or time.monotonic() > end:
                with open(f'{folder}/{name}.log', encoding='utf-8', errors='replace') as log:
                    raise RuntimeError(f'{name} does not start: {log.read()[-500:]}')
            time.sleep(0.02)
        return process.pid

    def close(self):
        for process in reversed(self.running):
            try:
                # Its session is its own: what it forked goes with it.
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        for process in reversed(self.running):
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

    def tpm2_pkcs11(self):
        """A token of tpm2-pkcs11 over tpm2-abrmd on a bus and a TPM simulator of its own; what its clients need."""
        folder = self.folder('tpm2-pkcs11')
        for name in ('tpm', 'store'):
            os.mkdir(f'{folder}/{name}', 0o700)
        tpm, bus = f'{folder}/tpm/sock', f'{folder}/bus'
        self.start(folder, ['swtpm', 'socket', '--tpm2', '--tpmstate', f'dir={folder}/tpm', '--server',
                            f'type=unixio,path={tpm}', '--ctrl', f'type=unixio,path={tpm}.ctrl', '--flags',
                            'not-need-init,startup-clear'], lambda: os.path.exists(f'{tpm}.ctrl'))
        with open(f'{folder}/bus.conf', 'w', encoding='ascii') as f:
            f.write(BUS_CONFIG.format(path=bus))
        self.start(folder, ['dbus-daemon', f'--config-file={folder}/bus.conf', '--nofork', '--nopidfile'], bus)
        env = {'DBUS_SESSION_BUS_ADDRESS': f'unix:path={bus}', 'TPM2_PKCS11_STORE': f'{folder}/store',
               'TPM2_PKCS11_TCTI': 'tabrmd:bus_type=session', 'TPM2TOOLS_TCTI': 'tabrmd:bus_type=session',
               'TSS2_LOG': 'all+none'}
        self.start(folder, ['tpm2-abrmd', '--session', '--allow-root', f'--tcti=swtpm:path={tpm}'],
                   lambda: bus_has(ABRMD_NAME, env), env)
        store = ['--path', f'{folder}/store']
        run(['tpm2_ptool', 'init', *store], env)
        run(['tpm2_ptool', 'addtoken', '--pid', '1', '--label', 'bench', '--userpin', PIN, '--sopin', PIN, *store], env)
        run(['tpm2_ptool', 'addkey', '--algorithm', 'ecc256', '--label', 'bench', '--userpin', PIN, '--key-label',
             'bench', *store], env)
        return env


ABRMD_NAME = 'com.intel.tss2.Tabrmd'
BUS_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


def bus_has(name, env):
    done = subprocess.run(['dbus-send', '--session', '--print-reply', '--dest=org.freedesktop.DBus', '/',
                           'org.freedesktop.DBus.NameHasOwner', f'string:{name}'], env=dict(os.environ, **env),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10,
                          text=True, check=False)
    return 'boolean true' in done.stdout


def run(command, env=None):
    done = subprocess.run(command, env=dict(os.environ, **(env or {})), stdin=subprocess.DEVNULL, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise RuntimeError(f'{command[0]}: {done.stdout.decode(errors="replace")[-500:]}')


def pkcs11_module(name):
    for folder in (f'/usr/lib/{platform.machine()}-linux-gnu/pkcs11', '/usr/lib/pkcs11'):
        if os.path.exists(f'{folder}/{name}'):
            return f'{folder}/{name}'
    return name
