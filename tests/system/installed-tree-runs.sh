#!/bin/bash
# `make install` puts everything where it belongs, under DESTDIR and PREFIX; the installed csmd and csm run from there;
# a program builds against the installed library; configuration that is there stays.
# bound: 180
. "$(dirname "$0")/../lib/system.sh"
work=$(mktemp -d "${TMPDIR:-/tmp}/csm-install.XXXXXX")
trap 'node_csmd_stop "$work" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
chmod 755 "$work"
triplet=$(gcc -print-multiarch)
cd "$top"

step "every file of the list, with its mode"
root=$work/root
make install DESTDIR="$root" >"$work/install.log" 2>&1 || { cat "$work/install.log" >&2 && fail "make install"; }
while read -r mode path; do
    [ -e "$root$path" ] || fail "not installed: $path"
    expect_equal "mode of $path" "$(stat -L -c %a "$root$path")" "$mode"
done <<LIST
755 /usr/bin/csm
755 /usr/sbin/csmd
755 /usr/sbin/csm-server
755 /usr/libexec/csm/csm-ident
755 /usr/libexec/csm/csm-plughost
755 /usr/libexec/csm/csm-enrol
755 /usr/libexec/csm/csm-deliver
644 /usr/lib/$triplet/libcsm.so.0
644 /usr/lib/$triplet/libcsm.so
644 /usr/lib/$triplet/libcsm.a
644 /usr/lib/$triplet/csm/plugins/soft.so
644 /usr/lib/$triplet/csm/plugins/tpm2.so
644 /usr/lib/$triplet/csm/plugins/pkcs11.so
644 /usr/lib/$triplet/csm/plugins/hwpluginif.so
644 /usr/lib/$triplet/csm/hwplugin/csm-tpm2-hwplugin.so
644 /usr/lib/$triplet/ossl-modules/csm.so
644 /usr/lib/$triplet/pkcs11/csm-pkcs11.so
644 /usr/share/p11-kit/modules/csm.module
644 /usr/lib/$triplet/pkgconfig/csm.pc
644 /usr/include/csm/csm.h
644 /usr/include/csm/errors.h
644 /usr/include/csm/csm_plugin.h
644 /usr/include/csm/csm_hwpluginif.h
644 /usr/share/doc/csm/PROTOCOL.md
644 /usr/share/doc/csm/PLUGIN.md
644 /usr/share/doc/csm/examples/README.md
644 /usr/share/doc/csm/examples/policy.yaml
644 /usr/share/doc/csm/examples/nginx/sidecar.conf
644 /usr/share/doc/csm/examples/stunnel/sidecar.conf
644 /usr/share/doc/csm/examples/deliver/deliver.yaml
644 /usr/share/doc/csm/examples/envoy/envoy.yaml
644 /usr/share/doc/csm/examples/hwplugin/csmd.yaml
644 /usr/lib/systemd/system/csmd.service
644 /usr/lib/systemd/system/csmd.socket
644 /usr/lib/systemd/system/csmd-admin.socket
644 /usr/lib/systemd/system/csm-server.service
644 /usr/lib/sysusers.d/csm.conf
644 /usr/lib/tmpfiles.d/csm.conf
644 /usr/share/man/man1/csm.1
644 /usr/share/man/man3/libcsm.3
644 /usr/share/man/man7/csm-pkcs11.7
644 /usr/share/man/man5/csmd.yaml.5
644 /usr/share/man/man5/policy.yaml.5
644 /usr/share/man/man7/csm-provider.7
644 /usr/share/man/man5/server.yaml.5
644 /usr/share/man/man5/csm-server-profiles.5
644 /usr/share/man/man8/csmd.8
644 /usr/share/man/man8/csm-server.8
644 /usr/share/man/man8/csm-ident.8
644 /usr/share/man/man8/csm-plughost.8
644 /usr/share/man/man8/csm-enrol.8
644 /usr/share/man/man8/csm-deliver.8
644 /usr/share/man/man5/deliver.yaml.5
644 /usr/share/bash-completion/completions/csm
644 /etc/csm/csmd.yaml
644 /etc/csm/policy.yaml
644 /etc/csm/server.yaml
644 /etc/csm/openssl.cnf
700 /var/lib/csm
LIST
[ ! -e "$root/usr/lib/$triplet/csm/plugins/fake.so" ] || fail "the fake back end is installed"
! grep -rIl "$work" "$root" || fail "the staging folder stands in the files above"
expect_equal "policy as documented" "$(cat "$root/etc/csm/policy.yaml")" "$(printf 'version: 1\ndefault: uid-namespaces')"

step "a second installation keeps the configuration"
echo "# mine" >>"$root/etc/csm/csmd.yaml"
make install DESTDIR="$root" >/dev/null 2>&1
grep -q '^# mine' "$root/etc/csm/csmd.yaml" || fail "csmd.yaml was replaced"

step "the installed programs run"
node_make "$work" soft "" ""
"$root/usr/sbin/csmd" --config "$root/etc/csm/csmd.yaml" --version >/dev/null
setsid sh -c 'echo $$ >"$0/csmd.pid"; exec "$1" --config "$0/csmd.yaml"' "$work" "$root/usr/sbin/csmd" >"$work/csmd.log" 2>&1 &
csm=$root/usr/bin/csm
export CSM_SOCKET=$work/public/csm.sock CSM_ADMIN_SOCKET=$work/admin.sock
serves() { "$csm" status >/dev/null 2>&1; }
node_await 20 serves || { cat "$work/csmd.log" >&2 && fail "the installed csmd does not serve"; }
"$csm" key create k >/dev/null
echo data >"$work/msg"
"$csm" sign k "$work/msg" >"$work/sig"
"$csm" key public k >"$work/pub.pem"
openssl dgst -sha256 -verify "$work/pub.pem" -signature "$work/sig" "$work/msg" >/dev/null || fail "signature"
# csm-ident is found beside it
printf 'version: 1\nidentities: {csm: {uid: 0, exe: %s}}\nrules: [{allow: [key.show], to: [csm], on: ["uid-0:*"]}]\n' \
    "$(realpath "$csm")" >"$work/policy.yaml"
"$csm" policy reload >/dev/null
"$csm" key show uid-0:k >/dev/null || fail "a rule that names the installed csm"

step "a program builds against the library, and finds it at run time"
cat >"$work/try.c" <<'C'
#include <csm/csm.h>
int main(void)
{
	struct csm *c = 0;
	(void)c;
	return 0;
}
C
export PKG_CONFIG_PATH=$root/usr/lib/$triplet/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root
# shellcheck disable=SC2046 # words
gcc -Wall -Wextra -Werror -std=c11 -o "$work/try" "$work/try.c" $(pkg-config --cflags --libs csm) || fail "csm.pc"
LD_LIBRARY_PATH=$root/usr/lib/$triplet "$work/try" || fail "the program does not run"

step "a back end builds against the header alone"
cat >"$work/mine.c" <<'C'
#include <csm/csm_plugin.h>
static int away(const struct csm_plugin_host *host)
{
	(void)host;
	return CSM_EUNAVAILABLE;
}
static const struct csm_plugin mine = {.abi = CSM_PLUGIN_ABI, .name = "mine", .probe = away};
__attribute__((weak, visibility("default"))) const struct csm_plugin *const csm_plugin_export = &mine;
C
gcc -Wall -Wextra -Werror -Wno-missing-field-initializers -std=c11 -shared -fPIC -I"$root/usr/include" \
    -o "$work/mine.so" "$work/mine.c" || fail "csm_plugin.h"
nm -D --defined-only "$work/mine.so" | contains ' csm_plugin_export$' || fail "the symbol of a back end"
link=$(sed -nE 's|.*\[`plugins/include/csm_plugin.h`\]\(([^)]*)\).*|\1|p' "$root/usr/share/doc/csm/PLUGIN.md")
[ -e "$root/usr/share/doc/csm/$link" ] || fail "PLUGIN.md leads to $link"

step "another prefix"
make install DESTDIR="$work/other" PREFIX=/opt/csm >/dev/null 2>&1
[ -x "$work/other/opt/csm/bin/csm" ] || fail "PREFIX"
grep -q 'ExecStart=/opt/csm/sbin/csmd' "$work/other/opt/csm/lib/systemd/system/csmd.service" || fail "the unit's path"
grep -q '^libdir=/opt/csm/lib' "$work/other/opt/csm/lib/$triplet/pkgconfig/csm.pc" || fail "csm.pc's path"

step "units as systemd reads them"
if command -v systemd-analyze >/dev/null; then
    # Only what the files themselves get wrong counts: no manual page or user of this machine.
    systemd-analyze verify --man=no --root="$root" "$root"/usr/lib/systemd/system/csmd*.s* >"$work/verify" 2>&1 || true
    ! grep -E 'Unknown|Failed to parse|Invalid' "$work/verify" || fail "systemd-analyze"
fi
