#!/bin/bash
# A key exported by csm signs through tpm2-openssl and tpm2-tools, with the same public half; keys made by tpm2-openssl and
# tpm2-tools sign through csm. What is not exportable is not given out, only root gets it, and the audit log tells of it;
# a key of another TPM, or with an authorisation, is refused.
# bound: 120
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
umask 077
export TPM2OPENSSL_TCTI=$CSM_TPM_TCTI TPM2TOOLS_TCTI=$CSM_TPM_TCTI TSS2_LOG=all+none
tpm2_openssl() { timeout 60 openssl "$1" -provider tpm2 -provider default -propquery '?provider=tpm2' "${@:2}"; }
tool() { ok timeout 30 "tpm2_$1" "${@:2}"; }
echo "a message" >message
echo "another" >another

step "what is given out, and what is not"
for alg in p256 p384 rsa2048; do
    ok csm key create $alg --alg $alg --use sign --exportable --json
    expect_equal "exportable is shown" "$(json exportable <out)" true
    csm key public $alg >$alg.pub
    ok csm key export $alg -o $alg.pem
    grep -q '^-----BEGIN TSS2 PRIVATE KEY-----$' $alg.pem || fail "$alg: no TSS2 PRIVATE KEY"
    expect_equal "who may read the file" "$(stat -c %a $alg.pem)" 600
done
ok csm key create kept
expect_exit 1 csm key export kept
grep -q 'not made exportable' err || fail "it does not say why"
ok csm key create soft --backend soft
expect_exit 1 csm key export soft
expect_exit 1 csm key create soft2 --backend soft --exportable
denied as_uid $uid_a csm --socket "$CSM_SOCKET" key export uid-0:p256
expect_exit 4 csm key export none
csm audit tail -n 100 --json >told
py - <<'PY'
import json
told = [x for x in json.load(open("told")) if x.get("method") == "key.export" and x["event"] == "change"]
assert [x["object"] for x in told] == ["uid-0:p256", "uid-0:p384", "uid-0:rsa2048"], told
PY

step "exported keys sign through others, who have the TPM's slots to themselves meanwhile"
node_csmd_stop "$node"
for alg in p256 p384 rsa2048; do
    ok tpm2_openssl pkey -in $alg.pem -pubout
    expect_same "$alg: the public half" $alg.pub out
    ok tpm2_openssl pkeyutl -sign -rawin -digest sha256 -inkey $alg.pem -in message -out $alg.sig
    ok openssl dgst -sha256 -verify $alg.pub -signature $alg.sig message
    expect_exit 1 openssl dgst -sha256 -verify $alg.pub -signature $alg.sig another
done
tool load -r p256.pem -c p256.ctx
tool sign -c p256.ctx -g sha256 -f plain -o tool.sig message
ok openssl dgst -sha256 -verify p256.pub -signature tool.sig message
tool flushcontext -t

step "keys of tpm2-openssl and of tpm2-tools"
ok tpm2_openssl genpkey -algorithm EC -pkeyopt group:P-256 -pkeyopt parent:0x81000001 -out ec.pem
ok tpm2_openssl genpkey -algorithm RSA -pkeyopt bits:2048 -pkeyopt parent:0x81000001 -out rsa.pem
for key in ec rsa; do
    ok tpm2_openssl pkey -in $key.pem -pubout
    cp out $key.pub
done
ok tpm2_openssl genpkey -algorithm EC -pkeyopt group:P-256 -out owner.pem
tool create -C 0x81000001 -G ecc -u tool.tpm -r tool.priv
tool encodeobject -C 0x81000001 -u tool.tpm -r tool.priv -o tool.pem
tool readpublic -c 0x81000001
tool flushcontext -t
tool create -C 0x81000001 -G ecc -p secret -u auth.tpm -r auth.priv
tool encodeobject -C 0x81000001 -u auth.tpm -r auth.priv -p -o auth.pem
tool flushcontext -t
node_csmd_start "$node" || fail "csmd does not start"
expect_exit 2 csm key import refused ec.pem --backend soft
for key in ec rsa tool; do
    ok csm key import $key $key.pem --json
    expect_equal "how it came" "$(json origin <out)" imported
    expect_equal "where it is" "$(json backend <out)" tpm2
    csm key public $key >imported.pub
    [ ! -e $key.pub ] || expect_same "$key: the public half" $key.pub imported.pub
    ok csm sign $key message -o $key.sig
    ok openssl dgst -sha256 -verify imported.pub -signature $key.sig message
    expect_exit 1 openssl dgst -sha256 -verify imported.pub -signature $key.sig another
    expect_exit 1 csm key export $key
done

step "what cannot be used is refused, and changes nothing"
csm key list --json >before
expect_exit 1 csm key import refused auth.pem
grep -q "has an authorisation" err || { cat err >&2 && fail "it does not say why"; }
expect_exit 1 csm key import refused owner.pem
grep -q '0x81000001' err || fail "it does not say why"
cat >other.sh <<'SH'
csm key create k --exportable >/dev/null && csm key export k -o "$1"
SH
env -u CSM_TPM_TCTI "$top/scripts/with-node.sh" --backend tpm2 -- sh "$work/other.sh" "$work/foreign.pem" || fail "another node"
expect_exit 1 csm key import refused foreign.pem
grep -q 'another node' err || fail "it does not say why"
csm key list --json >after
expect_same "the keys after all refusals" before after
