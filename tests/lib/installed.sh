# shellcheck shell=bash
# A machine on which csm is installed, for files that name the paths and ports of one: sourced after system.sh,
# spaces.sh and programs.sh. /etc, /run and what nginx writes are copies that go with the test, csmd's sockets and the
# provider are where they belong, the network is a loopback interface that nobody else uses.
# shellcheck disable=SC2154 # work, node, node_build, top are those of system.sh and node-lib.sh

# Before in_node: the script again, in namespaces of its own, which the node has too.
in_own_namespaces() {
    if [ "${CSM_TEST_APART:-}" != "$$" ] && [ "${CSM_TEST_INSIDE:-}" != "$(realpath "$0")" ]; then
        need_namespaces
        # exec keeps the number.
        CSM_TEST_APART=$$ exec unshare --mount --net --propagation private "$0"
    fi
    /usr/bin/python3 -c 'import fcntl, socket, struct
# the loopback interface up: SIOCSIFFLAGS, IFF_UP
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH14x", b"lo", 1))'
}

# private_copy FOLDER: what is written there is in memory, and seen here alone.
private_copy() {
    local copy=$work/copy
    mkdir -p "$copy"
    mount -t tmpfs -o mode=0755 none "$copy"
    if [ -d "$1" ]; then cp -a "$1/." "$copy/"; fi
    mkdir -p "$1"
    mount --move "$copy" "$1"
}

# After in_node and front_ends.
as_installed() {
    local modules
    modules=$(openssl version -m | cut -d'"' -f2)
    for folder in /etc /var/log /var/lib/nginx "$modules"; do
        [ ! -d "$folder" ] || private_copy "$folder"
    done
    mount -t tmpfs -o mode=0755 none /run
    mkdir -p /run/csm/public /etc/csm
    mount --bind "$node/public" /run/csm/public
    ln -s csm/public/csm.sock /run/csm.sock
    ln -s "$node/admin.sock" /run/csm/admin.sock
    cp "$node/lib/csm.so" "$modules/"
    cp "$top/libclient/provider/openssl.cnf" /etc/csm/
    ln -sf "$node/policy.yaml" /etc/csm/policy.yaml
    unset CSM_SOCKET CSM_ADMIN_SOCKET
}
