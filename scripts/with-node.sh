#!/bin/bash
# Run COMMAND with a private node up, in the caller's folder and with its uid.
#
# usage: with-node.sh [--backend tpm2|soft] [--config FILE] [--policy FILE] [--server] -- COMMAND...
#
# COMMAND finds CSM_SOCKET, CSM_ADMIN_SOCKET, CSM_NODE_DIR (the node's folder, 0755), CSM_PID (the broker), csm on its
# PATH (readable by every uid), and with tpm2 CSM_TPM_TCTI: one that is set from outside is used as it is and left
# running, else a swtpm is started. A FILE for --config may leave out the paths, users and the TPM: they are added.
# With --server a csm-server runs too, its authority's key in this node's csmd: CSM_SERVER (its URL), CSM_CACERT (the root),
# CSM_ADMIN_CERT and CSM_ADMIN_KEY (an administrator's credential), CSM_SERVER_ADMIN_SOCKET, CSM_PUBLIC_URL (where it serves CRLs
# and OCSP); the node can enrol by its profile `default`, and the server's profile `default` gives a day to any host, any address,
# spiffe://example.org/ and mail below example.org, as far as the token goes. A FILE for --policy has to let csm-server's user have its namespace.
# Nothing is written to stdout; stderr gets csmd's log when COMMAND failed. The exit status is COMMAND's; 125 when
# the node does not start. Nothing stays behind, whatever ends this script. CSM_BUILD=build/asan takes another build.
set -u
caller_umask=$(umask)
umask 022
# shellcheck source=node-lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/node-lib.sh"

refuse() {
    printf 'with-node.sh: %s\n' "$1" >&2
    exit 125
}
absolute() { [[ $1 = /* ]] && printf '%s' "$1" || printf '%s/%s' "$PWD" "$1"; }

backend='' config='' policy='' server=''
while [ $# -gt 0 ]; do
    case $1 in
    --backend | --config | --policy) [ $# -gt 1 ] || refuse "$1 needs a value" ;;&
    --backend) backend=$2 && shift 2 ;;
    --config) config=$(absolute "$2") && shift 2 ;;
    --policy) policy=$(absolute "$2") && shift 2 ;;
    --server) server=1 && shift ;;
    --) shift && break ;;
    -*) refuse "unknown option $1" ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || refuse "usage: with-node.sh [--backend tpm2|soft] [--config FILE] [--policy FILE] [--server] -- COMMAND..."
[ -z "$config" ] || [ -r "$config" ] || refuse "cannot read $config"
[ -z "$policy" ] || [ -r "$policy" ] || refuse "cannot read $policy"
programs=(csmd csm)
[ -z "$server" ] || programs+=(csm-server csm-enrol)
for program in "${programs[@]}"; do
    [ -x "$node_build/bin/$program" ] || refuse "$node_build/bin has no $program: run make"
done
if [ -z "$backend" ]; then
    backend=soft
    if [ -n "${CSM_TPM_TCTI:-}" ] || command -v swtpm >/dev/null; then
        backend=tpm2
    fi
fi
[[ $backend = tpm2 || $backend = soft ]] || refuse "--backend is tpm2 or soft"

# As it will be in the guardian too.
[ "$backend" = tpm2 ] || unset CSM_TPM_TCTI
dir=$(mktemp -d "${TMPDIR:-/tmp}/csm-node.XXXXXX") || refuse "no temporary folder"

# The NV indices of a TPM that is not ours alone: a store makes one, and this node's store goes with the node.
counters() {
    TSS2_LOG=all+none timeout 20 tpm2_getcap -T "$CSM_TPM_TCTI" handles-nv-index | grep -ioE '0x1800C(5[3-9A-F]|6[0-2])$'
}

# The guardian ends when this script does, by any signal: it holds the reading end of a pipe that nobody else keeps
# open, then takes the node down.
guardian() {
    trap '' HUP INT QUIT TERM PIPE
    cat >/dev/null
    node_server_stop "$dir"
    node_csmd_stop "$dir"
    [ ! -e "$dir/counters" ] || counters | grep -vxFf "$dir/counters" |
        xargs -r -n 1 timeout 20 tpm2_nvundefine -T "$CSM_TPM_TCTI" -C o
    node_swtpm_stop "$dir"
    rm -rf "$dir"
}
exec 199> >(guardian >/dev/null 2>&1)
guardian_pid=$!
finish() { # STATUS
    exec 199>&-
    wait "$guardian_pid"
    exit "$1"
}
show_log() {
    sed 's/^/csmd: /' "$dir/csmd.log" >&2
    [ ! -e "$dir/server/log" ] || sed 's/^/csm-server: /' "$dir/server/log" >&2
}

# COMMAND is told of what this script is told; five seconds of silence after TERM or HUP and it is killed.
command_pid='' ended_by='' was_told=''
told() { # SIGNAL
    was_told=1
    [ "$1" = INT ] || ended_by=$1
    [ -z "$command_pid" ] || kill -"$1" "$command_pid" 2>/dev/null
    [ -n "$command_pid" ] || finish 125
}
trap 'told TERM' TERM
trap 'told HUP' HUP
trap 'told INT' INT
trap '' PIPE

tcti=
if [ "$backend" = tpm2 ]; then
    tcti=${CSM_TPM_TCTI:-}
    if [ -n "$tcti" ] && command -v tpm2_getcap >/dev/null; then
        { counters || true; } >"$dir/counters" 2>/dev/null
    elif [ -z "$tcti" ]; then
        node_swtpm_start "$dir" || { cat "$dir/swtpm.log" >&2 && finish 125; }
        tcti=swtpm:path=$dir/tpm/sock
    fi
    export CSM_TPM_TCTI=$tcti
fi
: >"$dir/csmd.log"
node_make "$dir" "$backend" "$tcti" "$policy" "${config:-/dev/null}"
if ! node_csmd_start "$dir"; then
    printf 'with-node.sh: csmd does not start\n' >&2
    show_log
    finish 125
fi

if [ -n "$server" ]; then
    node_server_make "$dir"
    if ! node_server_start "$dir" || ! node_server_init "$dir" >&2; then
        printf 'with-node.sh: csm-server does not start\n' >&2
        show_log
        finish 125
    fi
    read -r CSM_SERVER <"$dir/server/url"
    read -r CSM_PUBLIC_URL <"$dir/server/public_url"
    export CSM_SERVER CSM_PUBLIC_URL CSM_CACERT=$dir/server/ca.pem CSM_ADMIN_CERT=$dir/server/admin.pem \
        CSM_ADMIN_KEY=$dir/server/admin.key CSM_SERVER_ADMIN_SOCKET=$dir/server/admin.sock
fi

# Other uids may not reach the build's folder: give them a csm of their own.
if [ "$(id -u)" -eq 0 ]; then
    mkdir -p "$dir/bin"
    cp "$node_build/bin/csm" "$dir/bin/csm"
    chmod 0755 "$dir/bin" "$dir/bin/csm"
    PATH=$dir/bin:$PATH
else
    PATH=$node_build/bin:$PATH
fi
export PATH CSM_NODE_DIR=$dir
CSM_SOCKET=$(node_value "$dir" socket)
CSM_ADMIN_SOCKET=$(node_value "$dir" admin_socket)
CSM_PID=$(node_broker_pid "$dir")
export CSM_SOCKET CSM_ADMIN_SOCKET CSM_PID

# In the background, so that signals are passed on at once; with the caller's stdin, umask and signals all the same.
(
    umask "$caller_umask"
    exec env --default-signal=HUP,INT,QUIT,TERM,PIPE -- "$@"
) <&0 199>&- &
command_pid=$!
while :; do
    wait "$command_pid"
    status=$?
    if node_gone "$command_pid"; then
        [ -n "$was_told" ] || break
        # Where a signal ended the wait, COMMAND's own status is still to be had; but not when it came in the moment of
        # COMMAND's end: then bash has forgotten that end, and would wait for ever.
        sleep 0.3 199>&- &
        other=$! ended='' again=0
        wait -n -p ended "$command_pid" "$other" 2>/dev/null || again=$?
        [ "${ended:-}" != "$command_pid" ] || status=$again
        kill "$other" 2>/dev/null
        break
    fi
    if [ -n "$ended_by" ]; then
        node_await 5 node_gone "$command_pid" || kill -KILL "$command_pid" 2>/dev/null
    fi
done
[ "$status" -eq 0 ] || show_log
finish "$status"
