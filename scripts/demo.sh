#!/bin/bash
# Builds csm, starts a private node in a temporary folder and shows its main job, step by step, with the commands that
# a person would type. Leaves nothing behind; exit status 0 only if every step worked.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD
# shellcheck source=node-lib.sh
. scripts/node-lib.sh

# ---- outside: build, choose the TPM, start the node -------------------------------
if [ "${1:-}" != --inside ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "demo.sh: run as root: the demonstration asks as another user too" >&2
        exit 1
    fi
    echo "building csm ..."
    make -j"$(nproc)" all
    tmp=$(mktemp -d "${TMPDIR:-/tmp}/csm-demo.XXXXXX")
    trap 'rm -rf "$tmp"' EXIT
    trap 'exit 1' HUP INT TERM
    if [ -c /dev/tpmrm0 ] && timeout 20 tpm2_getcap -T device:/dev/tpmrm0 properties-fixed >/dev/null 2>&1; then
        # A counter of the machine's TPM belongs to the machine's own csmd: this node's root key is a file's.
        cat >"$tmp/csmd.yaml" <<YAML
tpm: {device: /dev/tpmrm0, tcti: ""}
root_key: file
root_key_unprotected: true
root_key_file: $tmp/root.key
YAML
        (umask 077 && head -c 32 /dev/urandom >"$tmp/root.key")
        CSM_TPM_TCTI=device:/dev/tpmrm0 DEMO_TPM="this machine's TPM" \
            scripts/with-node.sh --backend tpm2 --server --config "$tmp/csmd.yaml" -- "$top/scripts/demo.sh" --inside
    elif command -v swtpm >/dev/null; then
        env -u CSM_TPM_TCTI DEMO_TPM="a software TPM (swtpm)" \
            scripts/with-node.sh --backend tpm2 --server -- "$top/scripts/demo.sh" --inside
    else
        DEMO_TPM="" scripts/with-node.sh --backend soft --server -- "$top/scripts/demo.sh" --inside
    fi
    exit 0
fi

# ---- inside ------------------------------------------------------------------------
node=$CSM_NODE_DIR
work=$node/demo
mkdir "$work"
chmod 0755 "$work"
cd "$work"
other=59102
while getent passwd "$other" >/dev/null; do
    other=$((other + 1))
done

title() { printf '\n== %s\n' "$*"; }
# Show a command line, then do it.
run() {
    printf '$ %s\n' "$1"
    eval "$1"
}
# The same for one that must be refused with that exit status.
refused() {
    local status=0
    printf '$ %s\n' "$2"
    eval "$2" || status=$?
    printf '(exit status %s)\n' "$status"
    [ "$status" -eq "$1" ] || { echo "demo: expected $1" >&2 && exit 1; }
}

keys=(soft)
[ -z "$DEMO_TPM" ] || keys=(tpm2 soft)

title "A node is up, with ${DEMO_TPM:-the software back end only: there is no TPM}"
run 'csm status'
run 'csm whoami'

title "Keys: made in the back end, never seen outside"
for backend in "${keys[@]}"; do
    run "csm key create web-$backend --backend $backend"
done
run 'csm key list'

title "Sign; openssl verifies, and refuses the signature over anything else"
run 'echo "pay 10 to bob" >order'
for backend in "${keys[@]}"; do
    run "csm key public web-$backend -o web-$backend.pem"
    run "csm sign web-$backend order -o order.sig"
    run "openssl dgst -sha256 -verify web-$backend.pem -signature order.sig order"
done
run 'echo "pay 99 to eve" >forged'
refused 1 "openssl dgst -sha256 -verify web-soft.pem -signature order.sig forged"

title "A certificate request, signed by a throw-away CA"
run "csm csr web-${keys[0]} --subject '/O=Example/CN=www.example.org' --san dns:www.example.org --san ip:192.0.2.1 -o web.csr"
run 'openssl req -in web.csr -verify -noout -subject'
run "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj '/CN=Demo CA' -days 1 2>/dev/null"
run 'openssl x509 -req -in web.csr -CA ca.pem -CAkey ca.key -CAcreateserial -copy_extensions copy -days 1 -out web.pem'
run 'openssl verify -CAfile ca.pem web.pem'

title "A secret, stored and read back"
run 'csm domain create shop'
run "printf 's3cret-value' | csm secret set shop/db user=app password=-"
run 'csm secret list shop'
run 'csm secret get shop/db password; echo'
[ "$(csm secret get shop/db password)" = s3cret-value ]

title "Another user asks for the same key and the same secret"
as="setpriv --reuid $other --regid $other --clear-groups"
run "$as csm whoami"
refused 3 "$as csm sign uid-0:web-soft order"
refused 3 "$as csm secret get uid-0:shop/db"

title "The policy line that decided it, and one that changes it"
run "cat $node/policy.yaml"
run "csm policy explain key.sign uid-0:web-soft --as uid=$other"
cat >"$node/policy.yaml" <<YAML
version: 1
default: uid-namespaces
identities:
  clerk: {uid: $other}
rules:
  - {allow: [key.sign], to: [clerk], on: ["uid-0:web-soft"]}
YAML
run "cat $node/policy.yaml"
run 'csm policy reload'
run "csm policy explain key.sign uid-0:web-soft --as uid=$other"
run "$as csm sign uid-0:web-soft order >order.sig"
run 'openssl dgst -sha256 -verify web-soft.pem -signature order.sig order'
refused 3 "$as csm key delete uid-0:web-soft"

if [ "$DEMO_TPM" = "a software TPM (swtpm)" ]; then
    title "The TPM restarts under load, and signing goes on"
    touch signing
    for client in 1 2 3 4; do
        (
            good=0 retried=0
            while [ -e signing ]; do
                status=0
                csm sign web-tpm2 order -o "order.$client.sig" 2>/dev/null || status=$?
                case $status in
                0) good=$((good + 1)) && echo "$good" >"count.$client" ;;
                # busy or retry later: the TPM is away
                6) retried=$((retried + 1)) && echo "$retried" >"retried.$client" && sleep 0.05 ;;
                *) echo "client $client: exit status $status" >>bad ;;
                esac
            done
        ) &
        clients[client]=$!
    done
    total() { cat "$1".* 2>/dev/null | awk '{ n += $1 } END { print n + 0 }'; }
    signs() { [ "$(total count)" -gt "$1" ]; }
    node_await 10 signs 20 || { echo "demo: no signatures" >&2 && exit 1; }
    before=$(total count)
    echo "4 clients sign: $before signatures so far"
    pid=$(node_pid "$node" swtpm)
    run "kill -9 $pid     # the TPM loses its power"
    sleep 1
    during=$(total count)
    node_swtpm_start "$node"
    echo "(the TPM is back)"
    start=$(date +%s%N)
    node_await 5 signs "$during" || { echo "demo: not signing again after 5 s" >&2 && exit 1; }
    echo "signing again after $((($(date +%s%N) - start) / 1000000)) ms"
    node_await 10 signs $((during + 20)) || { echo "demo: signing does not go on" >&2 && exit 1; }
    rm signing
    wait "${clients[@]}"
    echo "$(total count) signatures in all; $(total retried) answers said: retry later"
    [ ! -e bad ] || { cat bad >&2 && exit 1; }
    run 'openssl dgst -sha256 -verify web-tpm2.pem -signature order.1.sig order'
fi

# What follows stands in scripts/examples/enrol, to be copied.
mkdir "$work/enrol"
cd "$work/enrol"
PORT=$(node_free_port)
export PORT
step() { # TITLE SCRIPT
    title "$1 (scripts/examples/enrol/$2)"
    bash -v "$top/scripts/examples/enrol/$2" 2>&1 | sed '1,3d'
}
step "The authority: csm-server; its key is in ${DEMO_TPM:-csmd}" authority.sh
step "Without csm on the other side: a token, curl and openssl" token.sh
step "The node enrols a key" enrol.sh
cp "$top/libclient/provider/openssl.cnf" openssl.cnf
export OPENSSL_CONF=$PWD/openssl.cnf OPENSSL_MODULES=$node_build/lib/ossl-modules
stop_nginx() { { [ ! -s nginx.pid ] || kill "$(cat nginx.pid)"; } 2>/dev/null || true; }
trap stop_nginx EXIT
step "Mutual TLS between two services" mutual-tls.sh
step "Both are renewed, and no connection is lost" renew.sh
stop_nginx
step "Revoked: in the CRL, and by OCSP" revoke.sh
step "What is in use, as the node reports it" usage.sh

title "Everything worked"
