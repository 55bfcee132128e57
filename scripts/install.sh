#!/bin/bash
# Install what was built; called by `make install`, which sets MAKE_PREFIX, MAKE_DESTDIR, MAKE_LIBDIR and MAKE_VERSION.
# Configuration that is there already stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
prefix=${MAKE_PREFIX:?run make install} root=$MAKE_DESTDIR libdir=$MAKE_LIBDIR version=$MAKE_VERSION
# What lies outside the prefix, as the file system hierarchy has it.
etc=/etc var=/var

put() { # MODE FILE... FOLDER
    local mode=$1 folder=${*: -1}
    install -d "$root$folder"
    install -m "$mode" "${@:2:$#-2}" "$root$folder/"
}

put 0755 build/bin/csm "$prefix/bin"
put 0755 build/bin/csmd build/bin/csm-server "$prefix/sbin"
put 0755 build/bin/csm-ident build/bin/csm-plughost build/bin/csm-enrol build/bin/csm-deliver "$prefix/libexec/csm"
put 0644 build/lib/libcsm.so.0 build/lib/libcsm.a "$libdir"
ln -sf libcsm.so.0 "$root$libdir/libcsm.so"
put 0644 build/lib/csm/plugins/{soft,tpm2,pkcs11,hwpluginif}.so "$libdir/csm/plugins"
put 0644 build/lib/csm/hwplugin/csm-tpm2-hwplugin.so "$libdir/csm/hwplugin"
put 0644 build/lib/ossl-modules/csm.so "$libdir/ossl-modules"
put 0644 build/lib/pkcs11/csm-pkcs11.so "$libdir/pkcs11"
put 0644 libclient/p11/csm.module "$prefix/share/p11-kit/modules"
put 0644 libclient/include/csm/csm.h build/gen/csm/errors.h "$prefix/include/csm"
# A back end outside of the tree has the codes from beside the table of its slots.
sed 's|"libclient/base/err.h"|<csm/errors.h>|' plugins/include/csm_plugin.h >"$root$prefix/include/csm/csm_plugin.h"
chmod 0644 "$root$prefix/include/csm/csm_plugin.h"
put 0644 plugins/include/csm_hwpluginif.h "$prefix/include/csm"
put 0644 proto-spec/PROTOCOL.md "$prefix/share/doc/csm"
sed 's|(../plugins/include/csm_\([a-z]*\).h)|(../../../include/csm/csm_\1.h)|' proto-spec/PLUGIN.md \
    >"$root$prefix/share/doc/csm/PLUGIN.md"
chmod 0644 "$root$prefix/share/doc/csm/PLUGIN.md"

for file in $(cd scripts/examples && find . -type f | sort); do
    install -D -m 0644 "scripts/examples/$file" "$root$prefix/share/doc/csm/examples/$file"
done

install -d "$root$libdir/pkgconfig"
sed -e "s|@PREFIX@|$prefix|g; s|@LIBDIR@|$libdir|g; s|@VERSION@|$version|g" libclient/client/csm.pc.in \
    >"$root$libdir/pkgconfig/csm.pc"
chmod 0644 "$root$libdir/pkgconfig/csm.pc"

for page in daemon/node/*.[1-8] daemon/central/*.[1-8] daemon/ident/*.[1-8] daemon/plughost/*.[1-8] daemon/enrol/*.[1-8] daemon/deliver/*.[1-8] libclient/cli/*.[1-8] libclient/client/*.[1-8] libclient/p11/*.[1-8] libclient/provider/*.[1-8] build/man/*.[1-8]; do
    [ ! -e "$page" ] || put 0644 "$page" "$prefix/share/man/man${page##*.}"
done
put 0644 build/completion/csm "$prefix/share/bash-completion/completions"

units=$prefix/lib/systemd/system
install -d "$root$units"
for unit in csmd.service csmd.socket csmd-admin.socket; do
    sed "s|/usr/sbin/csmd|$prefix/sbin/csmd|" "daemon/node/systemd/$unit" >"$root$units/$unit"
    chmod 0644 "$root$units/$unit"
done
sed "s|/usr/sbin/csm-server|$prefix/sbin/csm-server|" daemon/central/systemd/csm-server.service >"$root$units/csm-server.service"
chmod 0644 "$root$units/csm-server.service"
install -D -m 0644 daemon/node/systemd/csm.sysusers "$root$prefix/lib/sysusers.d/csm.conf"
install -D -m 0644 daemon/node/systemd/csm.tmpfiles "$root$prefix/lib/tmpfiles.d/csm.conf"

install -d "$root$etc/csm"
for file in daemon/node/etc/csmd.yaml daemon/node/etc/policy.yaml daemon/central/etc/server.yaml libclient/provider/openssl.cnf; do
    [ -e "$root$etc/csm/${file##*/}" ] || install -m 0644 "$file" "$root$etc/csm/${file##*/}"
done
install -d -m 0700 "$root$var/lib/csm"
