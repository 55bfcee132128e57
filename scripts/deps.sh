#!/bin/bash
# Installs every Debian package that building, testing and demonstrating csm needs.
# Prints nothing when all of them are there already.
#
# usage: deps.sh [--have-build]     --have-build: install nothing; fail and say so when building lacks a package
set -euo pipefail

build=(
    gcc make pkg-config libc6-dev linux-libc-dev
    libevent-dev libssl-dev libtss2-dev libmsgpack-dev libsodium-dev liblmdb-dev libbsd-dev
    libyaml-dev libjansson-dev libseccomp-dev libp11-kit-dev libgfshare-dev libcurl4-openssl-dev libc-ares-dev
)
check=(
    clang clang-format clang-tidy libclang-rt-14-dev lld cppcheck shellcheck gcovr valgrind
    universal-ctags libcmocka-dev openssl swtpm swtpm-tools tpm2-tools libtss2-tcti-swtpm0
    softhsm2 p11-kit p11-kit-modules openssh-client opensc redis-server redis-tools libhiredis-dev golang-cfssl
    libtpm2-pkcs11-1 libtpm2-pkcs11-tools tpm2-abrmd libtss2-tcti-tabrmd0 dbus-daemon dbus-bin
    python3 python3-msgpack python3-yaml python3-jsonschema procps util-linux git man-db groff-base strace netcat-openbsd xxd
    tpm2-openssl python3-cryptography
    nginx stunnel4 systemd wrk curl openssh-server gnutls-bin libengine-pkcs11-openssl openjdk-17-jdk-headless
)
packages=("${build[@]}" "${check[@]}")
if [ "${1:-}" = --have-build ]; then
    # Where there is no dpkg the compiler will tell.
    command -v dpkg-query >/dev/null || exit 0
    packages=("${build[@]}")
fi

missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "${1:-}" = --have-build ]; then
    echo "not installed: ${missing[*]}" >&2
    echo "as root, scripts/deps.sh installs what csm needs" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "deps.sh: run as root to install: ${missing[*]}" >&2
    exit 1
fi
echo "deps.sh: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
# A daemon that a package would start has no business here.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get update -q >&2
apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
