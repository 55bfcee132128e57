#!/bin/bash
# In a program with other rights than its caller's the PKCS#11 module does not take the socket from the caller's environment.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

cp "$node_build/lib/pkcs11/csm-pkcs11.so" "$node_build/tests/system/p11_probe" "$node/bin/"
cp "$node/bin/p11_probe" "$node/bin/p11_probe_setuid"
chown $uid_b "$node/bin/p11_probe_setuid"
chmod 4755 "$node/bin/p11_probe_setuid"
as() { as_uid $uid_a "$node/bin/$1" "$node/bin/csm-pkcs11.so" - "${@:2}" | tr '\n' ' ' | sed 's/  */ /g; s/ $//; s/^ //'; }

step "without other rights CSM_SOCKET says where csmd is"
expect_equal "plain" "$(as p11_probe euid tokens)" "$uid_a euid: 0x0 uid-$uid_a tokens: 0x0"

step "with them it does not"
# On a file system without set-user-ID programs this would show nothing.
out=$(as p11_probe_setuid euid tokens)
[[ $out = "$uid_b euid: 0x0 "* ]] || { echo "skip: no set-user-ID programs here: $out" && exit 77; }
[ ! -e /run/csm.sock ] || { echo "skip: there is a csmd on this machine, which such a program rightly uses" && exit 77; }
expect_equal "setuid" "$out" "$uid_b euid: 0x0 tokens: 0x0"
