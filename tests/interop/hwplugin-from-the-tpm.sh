#!/bin/bash
# A host of hardware plugins that has nothing of csm in it gets the TPM through csm-tpm2-hwplugin.so: keys of tpm2-tools
# and in the files of tpm-util, every mechanism that a TPM can do in one part and in several, and what it cannot do is
# refused. Nothing leaks, stale handles are failures, many threads at once are served, and a TPM that says "try again" is
# asked again.
# bound: 180
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
. "$top/tests/lib/tpmbus.sh"

# The released one: the host knows nothing of sanitizers.
library=$top/build/lib/csm/hwplugin/csm-tpm2-hwplugin.so
host=$top/build/tests/interop/hwplugin/host
tpm() { TSS2_LOG=all+none timeout 30 "tpm2_$1" -T "$CSM_TPM_TCTI" "${@:2}" >/dev/null; }

[ "$(nm -D --defined-only "$library" | awk '$2 == "T" || $2 == "D" || $2 == "B" { print $3 }')" = \
    sshsm_hw_plugin_get_plugin_functions ] || fail "the library exports something else too"

step "the host itself: it tells signatures from noise"
other=$top/build/tests/interop/hwplugin/library.so
mkdir -p other/{activate,key01}
openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -outform DER -out other/key01/Kfile1.p8
for mode in 0 2; do
    echo mode=$mode >other/activate/Amode.txt
    timeout 60 "$host" "$other" other all >said && status=0 || status=$?
    expect_equal "exit status, and noise, in mode $mode" "$status $(grep -c 'ok ok' said) $(grep -c 'WRONG WRONG' said)" \
        "$([ $mode -eq 0 ] && echo 0 14 0 || echo 1 0 14)"
done

step "csm's library"
# A parent where tpm-util has it, and keys below it: one that only signs, and one that may decrypt as well.
tpm createprimary -C o -G rsa2048 -c parent.ctx
tpm evictcontrol -C o -c parent.ctx 0x81000011
tpm flushcontext -t
make_key() { # FOLDER ATTRIBUTES
    mkdir -p "slot/$1"
    tpm create -C 0x81000011 -G rsa2048 -u "slot/$1/Kfile1.pub" -r "slot/$1/Kfile1.priv" -a "$2"
    tpm flushcontext -t
}
mkdir -p slot/activate
echo 0x81000011 >slot/activate/Afile1.id1
make_key key01 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign'
make_key key02 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|decrypt|noda'
# The same as key01 in the C structures of tpm2-tss 1 and of tpm2-tss 3.
py <<'PY'
import os, struct
pub, priv = open("slot/key01/Kfile1.pub", "rb").read()[2:], open("slot/key01/Kfile1.priv", "rb").read()[2:]
kind, name_alg, attributes, policy = struct.unpack(">HHIH", pub[:10])
symmetric, scheme, bits, exponent, size = struct.unpack(">HHHIH", pub[10 + policy:22 + policy])
modulus = pub[22 + policy:]
assert len(modulus) == size == 256 and policy == 0 and symmetric == scheme == 0x10
raw = struct.pack("<HxxHHIH", len(pub), kind, name_alg, attributes, policy).ljust(80, b"\0")
raw += struct.pack("<HHHHHHIH", symmetric, 0, 0, scheme, 0, 0, 0, 0)[:12]
raw = raw.ljust(92, b"\0") + struct.pack("<H", bits)
raw = raw.ljust(96, b"\0") + struct.pack("<IH", exponent, size) + modulus
for folder, public, private in (("key03", 360, 912), ("key04", 616, 1552)):
    os.makedirs("slot/" + folder)
    with open("slot/%s/Kfile1.pub" % folder, "wb") as f:
        f.write(raw.ljust(public, b"\0"))
    with open("slot/%s/Kfile1.priv" % folder, "wb") as f:
        f.write((struct.pack("<H", len(priv)) + priv).ljust(private, b"\0"))
PY

timeout 60 "$host" "$library" slot all >signed || fail "all"
# Whatever says that it has signed has signed; and in parts goes what goes in one.
! grep WRONG signed || fail "a signature that does not verify"
awk '$3 != $4 { exit 1 }' signed || fail "one part and several differ"
answers() { awk -v key="$1" '$1 == key && $3 == "ok" { printf "%s ", $2 }' signed; }
# MD5 and SHA-224 no TPM has, and the bare operation needs a key that may decrypt; 4 does not sign.
[ "$(answers key02)" = '1 2 3 5 6 7 8 9 10 11 12 13 14 15 ' ] || fail "key02: $(answers key02)"
case "$(answers key01)" in
'3 5 7 8 9 '*) ;;
*) fail "key01: $(answers key01)" ;;
esac
for key in key03 key04; do
    expect_equal $key "$(answers $key)" "$(answers key01)"
done

ok timeout 60 "$host" "$library" slot threads 8
ok timeout 60 "$host" "$library" slot stale
ok timeout 60 "$host" "$library" slot open
ok timeout 60 "$host" "$library" slot twice

# 0x922, "try again", is asked again, from the first command on; a command that the TPM has lost too.
bus_start
export CSM_TPM_TCTI=$bus_tcti
bus_tell fail '*' 922 3
timeout 60 "$host" "$library" slot all >retried || fail "all, once more"
diff signed retried || fail "after 0x922"
bus_tell fail 15d 922 2
bus_tell lose 157 1
timeout 60 "$host" "$library" slot all >retried || fail "all, once more"
diff signed retried || fail "after a lost answer"
export CSM_TPM_TCTI=swtpm:path=$node/tpm/sock
bus_stop

# Refused: a parent that is not there, a key of another parent, one that is damaged, no parent at all.
refused() { # WHAT
    ! timeout 60 "$host" "$library" slot all >/dev/null 2>said || fail "$1: taken"
    grep -q "^host: $2" said || { cat said && fail "$1: $2 was to say so"; }
}
echo 0x81000099 >slot/activate/Afile1.id1
refused "no parent there" activate
echo 'no handle' >slot/activate/Afile1.id1
refused "no handle" activate
echo 0x81000001 >slot/activate/Afile1.id1
refused "another parent's keys" load_key
echo 0x81000011 >slot/activate/Afile1.id1
mkdir -p slot/key05
cp slot/key01/Kfile1.pub slot/key05/
head -c 100 slot/key01/Kfile1.priv >slot/key05/Kfile1.priv
refused "half a private part" load_key
cp slot/key02/Kfile1.priv slot/key05/
refused "another key's private part" load_key
rm slot/key05/Kfile1.priv
refused "no private part" load_key
rm -r slot/key05
export CSM_TPM_TCTI=swtpm:path=$work/nothing
refused "no TPM" init
export CSM_TPM_TCTI=swtpm:path=$node/tpm/sock

# No leak, no byte that is not its own; nothing stays in the TPM.
for what in all $([ -z "${CSM_LONG:-}" ] || echo stale open); do
    timeout 150 valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite,indirect \
        "$host" "$library" slot "$what" >valgrind.out 2>&1 || { cat valgrind.out && fail "valgrind: $what"; }
done
ok node_csmd_stop "$node"
for what in handles-transient handles-loaded-session; do
    [ -z "$(TSS2_LOG=all+none timeout 20 tpm2_getcap -T "$CSM_TPM_TCTI" $what)" ] || fail "left in the TPM: $what"
done
