#!/bin/bash
# Includes go down only. Reads every C file below ROOT (default: this tree) and fails on an include that goes up
# or sideways, on a library where it has no business, and on a folder that no layer knows.
#
# usage: check-layers.sh [ROOT]
set -euo pipefail
root=${1:-$(dirname "$0")/..}
cd "$root"

find . -path './.git' -prune -o -path './build' -prune -o -path './scripts' -prune -o \( -name '*.[ch]' -o -name '*.def' \) -printf '%P\n' |
    LC_ALL=C sort |
    xargs -r awk '
BEGIN {
    # Folder and its layer. The longest match counts. Half steps order folders of one layer where a contract
    # (plugins/include, csm.h) lies below the code that fulfils it.
    layer["proto-spec"] = 0;        layer["libclient/base"] = 0.5
    layer["libclient/include"] = 0; layer["libclient/wire"] = 1
    layer["plugins/include"] = 1.5; layer["plugins/alg"] = 2
    layer["libclient/client"] = 2;  layer["libclient/rest"] = 2; layer["libclient/tpmfmt"] = 2
    layer["libclient/certdir"] = 2
    layer["daemon/pki"] = 2
    layer["libclient/cli"] = 3;     layer["libclient/p11"] = 3;  layer["libclient/provider"] = 3
    layer["plugins/soft"] = 3;      layer["plugins/tpm2"] = 3;   layer["plugins/fake"] = 3
    layer["plugins/pkcs11"] = 3;    layer["plugins/remote"] = 3; layer["plugins/hwpluginif"] = 3
    layer["daemon/svc"] = 3
    layer["daemon/node"] = 4;       layer["daemon/ident"] = 4;   layer["daemon/enrol"] = 4
    layer["daemon/deliver"] = 4;    layer["daemon/plughost"] = 4; layer["daemon/central"] = 4
    layer["tests"] = 5

    # Libraries: header pattern, and the paths that may include it. The first match counts.
    lib("^csm/errors\\.h$", "^libclient/include/")
    lib("^sodium\\.h$", "^(libclient|plugins|daemon|tests)/")
    lib("^msgpack", "^(libclient/wire|tests)/")
    lib("^openssl/", "^(plugins|daemon|tests|libclient/(p11|provider|tpmfmt|cli|rest))/")
    lib("^tss2/", "^(plugins/tpm2|libclient/tpmfmt|libclient/cli|tests)/")
    lib("^bsd/sys/tree\\.h$", "^daemon/svc/engine_rows\\.c$")
    lib("^lmdb\\.h$", "^(daemon/svc/(store|engine_lmdb|lmdb_file)|tests/)")
    lib("^event2/(http|bufferevent)", "^(daemon/svc/http|tests/)")
    lib("^event2/", "^(daemon/(svc|node|central)|tests)/")
    lib("^yaml\\.h$", "^(daemon/svc|tests)/")
    lib("^seccomp\\.h$", "^(daemon/(svc|node|ident|plughost|enrol|deliver|central)|tests/)")
    lib("^jansson\\.h$", "^(libclient/(cli|rest|certdir)/|daemon/(svc/audit|node/enrol_usage|enrol|central)|tests/)")
    lib("^curl/", "^libclient/rest/")
    lib("^ares\\.h$", "^(daemon/enrol|tests)/")
    lib("^cmocka\\.h$", "^tests/")
    lib("^hiredis/", "^tests/")
    lib("^libgfshare\\.h$", "^daemon/svc/shares")
    lib("^p11-kit-1/", "^(libclient/p11|plugins/pkcs11|tests)/")
    lib("^sanitizer/", "^(libclient/base|daemon|plugins|tests)/")
    # The C library and the kernel interface, for everyone.
    lib("^(sys|linux|arpa|netinet|net|asm)/", ".")
    lib("^(assert|ctype|dirent|dlfcn|errno|fcntl|fnmatch|ftw|getopt|glob|grp|inttypes|langinfo|limits|link|" \
        "locale|malloc|math|netdb|poll|pthread|pwd|sched|semaphore|setjmp|signal|spawn|stdalign|stdarg|stdatomic|" \
        "stdbool|stddef|stdint|stdio|stdlib|stdnoreturn|string|strings|syscall|syslog|termios|time|" \
        "ucontext|unistd|wchar)\\.h$", ".")
}
function lib(pattern, where) { libs++; lib_pattern[libs] = pattern; lib_where[libs] = where }
function bad(text) { printf "%s:%d: %s\n", FILENAME, FNR, text; failed = 1 }
function folder(path,   f) {
    for (f = path; f != "" && !(f in layer); )
        if (!sub(/\/[^\/]*$/, "", f))
            f = ""
    return f
}
function allowed(from, to, file) {
    if (from == to)
        return 1
    # Front ends for other programs see the public header and base only.
    if (from ~ /^libclient\/(p11|provider)$/)
        return to == "libclient/include" || to == "libclient/base"
    # What goes into the programs of others knows nothing of the daemon. The public header stands alone.
    if (from ~ /^libclient\// && to ~ /^(daemon|plugins)/)
        return 0
    if (from == "libclient/include")
        return 0
    return layer[to] < layer[from]
}
FNR == 1 {
    from = folder(FILENAME)
    if (from == "")
        bad("no layer knows this folder")
}
from != "" && match($0, /^[ \t]*#[ \t]*include[ \t]*["<][^">]+[">]/) {
    text = substr($0, RSTART, RLENGTH)
    sub(/^[^"<]*/, "", text)
    name = substr(text, 2, length(text) - 2)
    if (text ~ /^</) {
        for (i = 1; i <= libs && name !~ lib_pattern[i]; i++)
            ;
        if (name ~ /^csm\/csm\.h$/)
            next
        if (i > libs)
            bad("<" name "> is not in the table of libraries")
        else if (FILENAME !~ lib_where[i])
            bad("<" name "> has no business here")
        next
    }
    if (name ~ /^csm\/errors\.h$/)      # generated from proto-spec
        to = "proto-spec"
    else if (name ~ /^csm\//)           # the public header
        to = "libclient/include"
    else if (name !~ /\//)              # beside the file
        to = from
    else
        to = folder(name)
    if (to == "")
        bad("\"" name "\" lies in no folder that a layer knows")
    else if (!allowed(from, to))
        bad("\"" name "\": " from " must not see " to)
}
END { exit failed }
'

# Folders at the top are exactly these.
for entry in */; do
    case ${entry%/} in
    daemon | libclient | plugins | proto-spec | scripts | tests | build) ;;
    *)
        echo "${entry}: not a folder of this tree"
        exit 1
        ;;
    esac
done
