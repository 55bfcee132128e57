#!/bin/bash
# The example of a hardware plugin runs as it stands there: its commands and its configuration, but for where this node and
# its software TPM are, and for a user who has no account.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2
examples=$top/scripts/examples/hwplugin
user=59110

commands() { # MARK
    awk -v mark="<!-- $1 -->" '$0 == mark { on = 1 } /<!-- end -->/ { on = 0 }
        on && /^```sh$/ { code = 1; next } /^```$/ { code = 0 } on && code' "$examples/README.md" |
        sed -E "s/^\\$ //; s|/etc/csm|$node/etc|g; s|csm-hw |$user |g"
}
expect_equal "commands" "$(commands run | wc -l) $(commands 'run after' | wc -l)" "10 6"

mkdir -m 0755 "$node/etc"
commands run >run.sh
env TPM2TOOLS_TCTI="$CSM_TPM_TCTI" TSS2_LOG=all+none bash -eu run.sh >out 2>&1 || { cat out >&2 && fail "the folder"; }

# The software TPM is a socket, for this user too.
chmod 0711 "$node/tpm"
chmod 0666 "$node/tpm/sock"
# Nor may the user reach the tree that we are in.
install -D -m 0644 "$node_build/lib/csm/hwplugin/csm-tpm2-hwplugin.so" "$node/lib/csm/hwplugin/csm-tpm2-hwplugin.so"
sed -e "s|/etc/csm|$node/etc|; s|/usr/lib/[^/]*/csm|$node/lib/csm|; s|user: csm-hw|user: $user|" \
    -e "s|write: .*|network: local\n    environment: {CSM_TPM_TCTI: \"$CSM_TPM_TCTI\"}|" "$examples/csmd.yaml" >added
node_csmd_stop "$node"
cat added >>"$node/csmd.yaml"
node_csmd_start "$node" || { tail -5 "$node/csmd.log" >&2 && fail "csmd does not start"; }
usable() { csm status --json | /usr/bin/python3 -c 'import json, sys
sys.exit(not any(b["name"] == "hw" and b["state"] == "ready" for b in json.load(sys.stdin)["backends"]))'; }
node_await 20 usable || { csm status >&2 && fail "the back end is not there"; }

commands 'run after' >after.sh
bash -eu after.sh >out 2>&1 || { cat out >&2 && fail "the key"; }
grep -q '^Verified OK' out || { cat out >&2 && fail "openssl does not say that it is verified"; }
expect_equal "its protection" "$(csm key show ca --json | json protection)" hwplugin
csm sign ca --scheme rsa-pss-sha256 -o other.sig run.sh
! openssl dgst -sha256 -verify ca.pem -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest -signature other.sig message \
    >/dev/null 2>&1 || fail "any signature is verified"
