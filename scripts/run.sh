#!/bin/bash
# A private node in the foreground, under build/node, until ^C. Its keys and secrets stay there for the next run.
#
# usage: run.sh [--backend tpm2|soft] [--dir DIR]
set -u
umask 022
# shellcheck source=node-lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/node-lib.sh"
backend=soft
! command -v swtpm >/dev/null || backend=tpm2
dir=$node_top/build/node
while [ $# -gt 0 ]; do
    case $1 in
    --backend) backend=${2:?tpm2 or soft} ;;
    --dir) dir=$(realpath -m "${2:?a folder}") ;;
    *)
        echo "usage: run.sh [--backend tpm2|soft] [--dir DIR]" >&2
        exit 2
        ;;
    esac
    shift 2
done
mkdir -p "$dir"
socket=$dir/public/csm.sock
if [ ${#socket} -gt 107 ]; then
    echo "run.sh: $socket is too long for a socket's path" >&2
    exit 1
fi
if [ -n "$(node_pid "$dir" csmd)" ] && ! node_gone "$(node_pid "$dir" csmd)"; then
    echo "run.sh: a node runs there already, pid $(node_pid "$dir" csmd)" >&2
    exit 1
fi

stop() {
    trap '' HUP INT TERM
    node_csmd_stop "$dir"
    node_swtpm_stop "$dir"
    [ -z "${tail_pid:-}" ] || kill "$tail_pid" 2>/dev/null
}
trap stop EXIT
trap 'exit 0' HUP INT TERM

tcti=
if [ "$backend" = tpm2 ]; then
    tcti=${CSM_TPM_TCTI:-swtpm:path=$dir/tpm/sock}
    [ -n "${CSM_TPM_TCTI:-}" ] || node_swtpm_start "$dir" || { cat "$dir/swtpm.log" >&2 && exit 1; }
fi
: >"$dir/csmd.log"
node_make "$dir" "$backend" "$tcti" ""
node_csmd_start "$dir" || { cat "$dir/csmd.log" >&2 && exit 1; }
echo "export CSM_SOCKET=$socket CSM_ADMIN_SOCKET=$dir/admin.sock PATH=$node_build/bin:\$PATH"
# The machine's own settings of OpenSSL with csm's provider beside them, so that all else stays as it is.
{
    machine=$(openssl version -d 2>/dev/null | cut -d'"' -f2)/openssl.cnf
    [ ! -e "$machine" ] || printf '.include %s\n[default]\n' "$machine"
    cat "$node_top/libclient/provider/openssl.cnf"
} >"$dir/openssl.cnf"
echo "# for programs that use OpenSSL, whose keys are then csm:NAME too:"
echo "export OPENSSL_CONF=$dir/openssl.cnf OPENSSL_MODULES=$node_build/lib/ossl-modules"
echo "# for programs that use PKCS#11: $node_build/lib/pkcs11/csm-pkcs11.so"
# Its log is on this terminal until it ends.
tail -n +1 -f "$dir/csmd.log" >&2 199>&- &
tail_pid=$!
node_stays() { ! node_gone "$(node_pid "$dir" csmd)"; }
while node_stays; do
    sleep 0.5
done
echo "run.sh: csmd ended" >&2
exit 1
