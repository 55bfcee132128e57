#!/bin/bash
# The inside of in_container (spaces.sh), run in namespaces of its own: makes the root folder, goes there, and becomes
# the command.
#
# usage: container.sh ROOT NODE INSIDE COMMAND...
set -eu
root=$1 node=$2 inside=$3
shift 3
mount -t tmpfs -o mode=0755 none "$root"
mkdir -p "$root"/{usr,etc,proc,dev,tmp,old,opt,inside,run/csm/public}
for folder in bin sbin lib lib64; do
    if [ -L "/$folder" ]; then
        cp -a "/$folder" "$root/$folder"
    elif [ -d "/$folder" ]; then
        mkdir "$root/$folder"
        mount --rbind "/$folder" "$root/$folder"
    fi
done
mount --rbind /usr "$root/usr"
[ ! -e /etc/alternatives ] || cp -a /etc/alternatives "$root/etc/"
[ ! -e /etc/ld.so.cache ] || cp -a /etc/ld.so.cache "$root/etc/"
cp "$node/bin/csm" "$root/opt/csm"
cp -a "$inside/." "$root/inside/"
: >"$root/dev/null"
mount --bind /dev/null "$root/dev/null"
mount -t proc none "$root/proc"
mount --bind "$node/public" "$root/run/csm/public"
mount -o remount,bind,ro "$root/run/csm/public"
cd "$root"
pivot_root . old
umount -l /old
rmdir /old
cd /inside
exec env -i PATH=/opt:/usr/bin:/usr/sbin:/bin:/sbin CSM_SOCKET=/run/csm/public/csm.sock PYTHONPATH=/inside \
    PYTHONDONTWRITEBYTECODE=1 HOME=/ "$@"
