#!/bin/bash
# One share too few, one twice, one with a wrong digit, one of an earlier set, or a false one: each is told, the root key stays
# where it is, and neither shares nor root key are in a file or in memory that is not locked, before, while and after.
# bound: 180
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
. "$top/tests/lib/memory.sh"
umask 077
mkdir keep keep/old keep/new
tpm() { TSS2_LOG=all+none timeout 20 "tpm2_$1" -T "$CSM_TPM_TCTI" "${@:2}" >/dev/null; }
refused() { # TEXT SHARE...
    expect_exit 1 csm recovery restore --accept-counter "${@:2}"
    grep -q "$1" err || { cat err >&2 && fail "not told: $1"; }
    expect_equal "root key" "$(status_field root_key_state)" lost
    cmp -s whole.mdb "$node/state/store/data.mdb" || fail "the store has changed: $1"
}
digits() { grep -v '^#' "$1" | tr -d '\n-'; }
ok csm domain create d
ok csm secret set d/s k=value
ok csm recovery create --shares 3 --threshold 3 keep/old
ok csm recovery create --shares 4 --threshold 3 keep/new
# the 32 bytes of each share, and the root key as the TPM gives it
for f in keep/old/* keep/new/*; do
    digits "$f" | cut -c 17-80 | xxd -r -p | needle "share:$(basename "$f")"
    grep -v '^#' "$f" | tr -d '\n' | needle "text:$(basename "$f")"
done
rm -rf copy
cp -r "$node/state" copy
chown -R 0:0 copy
"$top/build/tests/system/storekeys" "$work/copy" - wrapped | xxd -r -p | tail -c +5 >keep/blob
n=$((16#$(xxd -p -l 2 keep/blob) + 2))
head -c $n keep/blob >keep/pub
tail -c +$((n + 1)) keep/blob >keep/priv
tpm load -C 0x81000001 -u keep/pub -r keep/priv -c keep/ctx
TSS2_LOG=all+none timeout 20 tpm2_unseal -T "$CSM_TPM_TCTI" -c keep/ctx -o keep/root
tpm flushcontext -t
store_needles "$work/keep/root" tpm
grep -q '^root:' keep/needles || fail "no needle of the root key"
everywhere "after the making of shares"
digits keep/new/share-1-of-4.txt >keep/plain
finds "a share where it is kept" --files keep/plain

node_csmd_stop "$node"
tpm clear -c p
node_csmd_start "$node" || fail "csmd does not start with a cleared TPM"
cp "$node/state/store/data.mdb" whole.mdb
s() { printf 'keep/new/share-%s-of-4.txt' "$1"; }
refused "too few" "$(s 1)"
refused "too few" "$(s 1)" "$(s 4)"
refused "share 3: it is there twice" "$(s 1)" "$(s 4)" "$(s 1)"
refused "share 2: it is of another set" "$(s 1)" keep/old/share-1-of-3.txt "$(s 4)"
refused "digit is wrong" "$(s 1)" "$(s 2)" <(sed 's/\(.*\)[0-7]$/\18/;s/\(.*\)[9a-f]$/\11/' "$(s 3)")
refused "not a recovery share" "$(s 1)" "$(s 2)" /etc/passwd
# a share with a good check that is none of the set's
py - "$(digits "$(s 3)")" >keep/false <<'PY'
import hashlib, sys
b = bytearray(bytes.fromhex(sys.argv[1])[:40])
b[20] ^= 1
print((b + hashlib.blake2b(bytes(b) + b"csm recovery share", digest_size=32).digest()[:4]).hex())
PY
refused "one of them is false" "$(s 1)" "$(s 2)" keep/false
expect_exit 2 csm recovery restore </dev/null # nobody to ask
everywhere "after what was refused"
grep -v '^#' "$(s 1)" | sed -n 1p | cut -c 1-40 >keep/line
grep -qFf keep/line "$(s 1)" || fail "what is looked for is no part of a share"
grep -rqFf keep/line "$node/csmd.log" "$node/state" && fail "a share is in the log"

ok csm recovery restore --accept-counter "$(s 4)" "$(s 2)" "$(s 1)"
expect_equal "value" "$(csm secret get d/s k)" value
everywhere "after the recovery"
