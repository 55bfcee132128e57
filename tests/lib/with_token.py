#!/usr/bin/python3
"""Run a command beside a PKCS#11 token of its own: with_token.py softhsm|tpm2 COMMAND...

The command finds what a back end pkcs11 is configured with in CSM_PLUGIN_CONF_module, CSM_PLUGIN_CONF_token and
CSM_PLUGIN_SECRET_pin, and what the library itself needs in the environment. Its exit status is the answer; nothing
stays behind."""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'bench'))
from peers import PIN, SOFTHSM, Peers, pkcs11_module  # pylint: disable=wrong-import-position


def main():
    kind, command = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory(prefix='csm-token-') as top:
        peers = Peers(top)
        try:
            env = peers.softhsm() if kind == 'softhsm' else peers.tpm2_pkcs11()
            env['CSM_PLUGIN_CONF_module'] = SOFTHSM if kind == 'softhsm' else pkcs11_module('libtpm2_pkcs11.so')
            env['CSM_PLUGIN_CONF_token'] = 'pkcs11:token=bench'
            env['CSM_PLUGIN_SECRET_pin'] = PIN
            algs = os.environ.get('CSM_TOKEN_ALGS', 'p256,p384,p521,rsa2048,rsa3072,rsa4096,ed25519').split(',')
            if kind == 'tpm2':  # it tells of P-521, and fails to sign with it
                algs = [a for a in algs if a != 'p521']
            env['CSM_PLUGIN_CONF_algs'] = ','.join(algs)
            env['CSM_TOKEN_DIR'] = env['CSM_PLUGIN_WRITE'] = top
            return subprocess.run(command, env=dict(os.environ, **env), check=False).returncode
        finally:
            peers.close()


if __name__ == '__main__':
    sys.exit(main())
