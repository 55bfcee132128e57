#!/bin/bash
# A token of SoftHSM2 as back end "hsm" of csmd: makes the token below FOLDER, for a user of its own, and prints the part
# of csmd.yaml that goes with it. The PIN is drawn at random and stands in FOLDER/pin, which only root can read.
#
# usage: softhsm.sh FOLDER USER LABEL        (root; USER by name or number)
set -euo pipefail
[ $# -eq 3 ] || { sed -n '2,5s/^# \?//p' "$0" >&2; exit 2; }
folder=$1 user=$2 label=$3
module=/usr/lib/softhsm/libsofthsm2.so

# A token that is there has keys and a PIN: neither is written over.
for there in "$folder/pin" "$folder/softhsm/tokens"/*; do
    [ ! -e "$there" ] || { echo "softhsm.sh: $there exists: nothing was changed" >&2; exit 1; }
done
mkdir -p "$folder/softhsm/tokens"
chmod 755 "$folder"
printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' "$folder/softhsm/tokens" \
    >"$folder/softhsm2.conf"
pin=$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
(umask 077 && printf %s "$pin" >"$folder/pin")
chown -R "$user" "$folder/softhsm"
chmod 700 "$folder/softhsm"
# PINs go by the environment, not by the command line, which everybody can read.
tool() {
    SOFTHSM2_CONF=$folder/softhsm2.conf PIN=$pin setpriv --reuid "$user" --regid "$(stat -c %g "$folder/softhsm")" \
        --clear-groups -- pkcs11-tool --module "$module" "$@" >&2
}
tool --slot-index 0 --init-token --label "$label" --so-pin env:PIN
tool --token-label "$label" --init-pin --login --login-type so --so-pin env:PIN --new-pin env:PIN

cat <<YAML
backends:
  hsm:
    type: pkcs11
    user: "$user"
    module: $module
    token: "pkcs11:token=$label"
    pin: "file:$folder/pin"
    environment: {SOFTHSM2_CONF: $folder/softhsm2.conf}
    read: [$folder/softhsm2.conf]
    write: [$folder/softhsm]
YAML
