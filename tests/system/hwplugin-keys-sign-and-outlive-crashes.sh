#!/bin/bash
# Keys behind libraries with the hardware plugin interface sign for those whom the policy lets, and OpenSSL verifies: a
# library that knows nothing of csm, and csm's own for the TPM. One that crashes costs its own requests, which may be
# repeated, and is back without a restart; a folder that others can write is refused, and csm status says why. What lies in
# a key folder is in locked memory only.
# bound: 180
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
. "$top/tests/lib/memory.sh"
umask 022
mkdir -m 0700 keep

lib=$node/plugins/S01lib tpm=$node/tpmplugins/S01tpm
mkdir -p "$lib"/{activate,key01,key02} "$tpm"/{activate,key01}
cp "$top/build/tests/interop/hwplugin/library.so" "$lib/plugin.so"
echo mode=0 >"$lib/activate/Amode.txt"
for i in 1 2; do
    openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out $i.pem
    openssl pkcs8 -topk8 -nocrypt -in $i.pem -outform DER -out "$lib/key0$i/Kfile1.p8"
    openssl pkey -in $i.pem -pubout -out $i.pub
done
printf 'slot: 0\nkey_id: 17\nkey_label: web\nupin: the-users-pin\nsopin: x\n' >"$lib/key01/pkcs11.cfg"
# A key of tpm2-tools, for csm's own library.
t() { TSS2_LOG=all+none timeout 30 "tpm2_$1" -T "$CSM_TPM_TCTI" "${@:2}" >/dev/null; }
t createprimary -C o -G rsa2048 -c parent.ctx
t evictcontrol -C o -c parent.ctx 0x81000011
t flushcontext -t
t create -C 0x81000011 -G rsa2048 -u "$tpm/key01/Kfile1.pub" -r "$tpm/key01/Kfile1.priv"
t flushcontext -t
echo 0x81000011 >"$tpm/activate/Afile1.id1"
chown -R 0:59110 "$node/plugins"
chown -R 0:59111 "$node/tpmplugins"
chmod -R u=rwX,g=rX,o= "$node/plugins" "$node/tpmplugins"
chmod 0711 "$node/tpm"
chmod 0666 "$node/tpm/sock"
# Its users may not reach the tree that we are in.
install -D -m 0644 "$node_build/lib/csm/hwplugin/csm-tpm2-hwplugin.so" "$node/lib/csm-tpm2-hwplugin.so"

# The library's folder, and the one whose library lies elsewhere.
node_csmd_stop "$node"
cat >>"$node/csmd.yaml" <<YAML
backends:
  default: tpm2
  hw: {type: hwpluginif, folder: $node/plugins, user: 59110}
  hwtpm:
    type: hwpluginif
    folder: $node/tpmplugins
    slot: S01tpm
    module: $node/lib/csm-tpm2-hwplugin.so
    user: 59111
    network: local
    environment: {CSM_TPM_TCTI: "$CSM_TPM_TCTI"}
YAML
node_csmd_start "$node" || { tail -20 "$node/csmd.log" >&2 && fail "csmd does not start"; }
state() { status_field backends | json_of "$1"; }
json_of() {
    /usr/bin/python3 -c 'import json, sys
for b in json.load(sys.stdin):
    if b["name"] == sys.argv[1]:
        print(json.dumps(b))' "$1"
}
plughost() { # UID: the process that runs as it
    local status
    for status in /proc/[0-9]*/status; do
        if grep -qs "^Uid:	$1	" "$status"; then
            status=${status#/proc/}
            echo "${status%/status}"
            return
        fi
    done
}

create() { # NAME BACKEND REF
    for ((tries = 0; tries < 40; tries++)); do
        csm --socket "$CSM_ADMIN_SOCKET" key create "$1" --backend "$2" --existing "$3" >create.out 2>&1 && return
        sleep 0.1
    done
    cat create.out >&2
    return 1
}
verifies() { # KEY PUBLIC
    local scheme hash
    date +%N >message
    for scheme in rsa-pkcs1-sha256 rsa-pkcs1-sha512 rsa-pss-sha256 rsa-pss-sha384; do
        hash=${scheme##*-}
        csm sign "$1" --scheme "$scheme" -o sig message || return
        case $scheme in
        *pss*) openssl dgst "-$hash" -verify "$2" -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest \
            -signature sig message >/dev/null || fail "$1: $scheme" ;;
        *) openssl dgst "-$hash" -verify "$2" -signature sig message >/dev/null || fail "$1: $scheme" ;;
        esac
    done
}
eventually() { # SECONDS COMMAND...
    node_await "$@" 2>err || { cat err >&2 && fail "not within $1 s: ${*:2}"; }
}

step "keys of both libraries sign"
create one hw S01lib/key01
create two hw S01lib/key02
create tpmkey hwtpm S01tpm/key01
csm key public two >got.pub
expect_same "the public key" got.pub 2.pub
csm key public tpmkey >3.pub
verifies one 1.pub
verifies two 2.pub
verifies tpmkey 3.pub
expect_equal protection "$(csm key show one --json | json protection)" hwplugin
expect_exit 4 csm key create three --backend hw --existing S01lib/key09
denied as_uid $uid_a csm key create mine --backend hw --existing S01lib/key01
denied as_uid $uid_b csm sign uid-0:one message
# It runs as its own user, and the files of the other library are not for it.
pid=$(plughost 59110)
[ -n "$pid" ] || fail "no process of user 59110"
! grep -q the-users-pin "$node/csmd.log" || fail "a PIN in the log"

step "what lies in a key folder is in locked memory only"
mkdir -m 0750 "$lib/key03"
openssl rand 3000 >keep/file
needle file <keep/file
{ printf 'no key: ' && cat keep/file; } >"$lib/key03/Kfile1.bin"
chmod 0640 "$lib/key03/Kfile1.bin"
chown -R 0:59110 "$lib/key03"
# The library takes it for no key, and keeps nothing of it.
expect_exit 6 csm --socket "$CSM_ADMIN_SOCKET" key create three --backend hw --existing S01lib/key03
finds "the file, locked" --pid "$pid"
search "the file" --locked-ok --pid "$pid" --locked-ok --pid "$(node_broker_pid "$node")"
search "the file" --files "$node/csmd.log" --files "$node/state"
rm -r "$lib/key03"

step "the process is killed: what waits may be repeated, and the next one works"
kill -SEGV "$pid"
node_await 5 node_gone "$pid" || fail "it lives"
for ((tries = 0; tries < 100; tries++)); do
    csm sign two -o sig message 2>err && break
    # 5: not there now; 6: may be repeated
    status=$?
    [ $status -eq 5 ] || [ $status -eq 6 ] || { cat err >&2 && fail "exit status $status"; }
    sleep 0.05
done
verifies two 2.pub
verifies one 1.pub
[ "$(plughost 59110)" != "$pid" ] || fail "the same process"

step "a library that crashes at each signature"
broker=$(node_broker_pid "$node")
echo mode=0x800 >"$lib/activate/Amode.txt"
kill -SEGV "$(plughost 59110)"
sleep 0.3
for ((i = 0; i < 5; i++)); do
    ! csm sign one -o sig message 2>/dev/null || fail "a signature of a library that crashes"
    verifies tpmkey 3.pub
done
expect_equal "the broker" "$(node_broker_pid "$node")" "$broker"
echo mode=0 >"$lib/activate/Amode.txt"
eventually 20 csm sign one -o sig message
verifies one 1.pub

step "a folder that others can write"
chmod o+w "$lib/key01/Kfile1.p8"
kill -SEGV "$(plughost 59110)"
everyone_can_write() { csm status --json | contains 'everyone can write'; }
eventually 10 everyone_can_write
! csm sign one -o sig message 2>/dev/null || fail "a key that everyone can write"
chmod o-w "$lib/key01/Kfile1.p8"
eventually 20 csm sign one -o sig message
verifies one 1.pub

step "after a restart of csmd"
node_csmd_stop "$node"
node_csmd_start "$node" || fail "csmd does not start again"
eventually 20 csm sign one -o sig message
eventually 20 csm sign tpmkey -o sig message
verifies one 1.pub
verifies tpmkey 3.pub
