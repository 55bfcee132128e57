#!/bin/bash
# OpenSSH logs in to a real sshd with keys of the node, soft and in the TPM, ECDSA and RSA: by PKCS11Provider, and by an
# agent that was given the module; another user, who may see the keys but not sign, does not get in.
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/programs.sh"
in_node --backend tpm2
front_ends
# ssh wants to find its user among the accounts: two that every Debian has.
me=games other=www-data
my_uid=$(id -u $me) other_uid=$(id -u $other)
policy <<YAML
version: 1
default: uid-namespaces
identities: {me: {uid: $my_uid}, other: {uid: $other_uid}}
namespaces: {login: {home-of: [me, other]}}
rules:
  - {allow: ["key.*"], to: [me], on: ["login:*"]}
  - {allow: [key.list, key.show, key.public, cert.list, cert.get], to: [other], on: ["login:*"]}
YAML
as_me() { as_uid "$my_uid" env -u SSH_AUTH_SOCK timeout 20 "$@"; }
as_other() { as_uid "$other_uid" env -u SSH_AUTH_SOCK timeout 20 "$@"; }

step "keys, and what sshd is to accept"
keys=()
for backend in soft tpm2; do
    for alg in p256 rsa2048; do
        keys+=("$alg-$backend")
        as_me csm key create $alg-$backend --alg $alg --backend $backend >/dev/null
        as_me csm key public $alg-$backend >$alg-$backend.pem
        ssh-keygen -i -m PKCS8 -f $alg-$backend.pem >$alg-$backend.pub
    done
done
ok as_me ssh-keygen -D "$p11_module"
for key in "${keys[@]}"; do
    grep -qF "$(cat "$key.pub")" out || fail "ssh-keygen -D shows no $key: $(cat out)"
done

# sshd is that user's own, and serves files to no shell: it needs no folder outside of ours.
port=$(free_port)
ssh-keygen -q -t ed25519 -N '' -f host_key
chown $me host_key
cat >sshd_config <<CONF
Port $port
ListenAddress 127.0.0.1
HostKey $work/host_key
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile $work/authorized
Subsystem sftp internal-sftp
ForceCommand internal-sftp -d $work
LogLevel VERBOSE
CONF
: >authorized
start sshd setpriv --reuid "$my_uid" --regid "$my_uid" --clear-groups /usr/sbin/sshd -D -e -f "$work/sshd_config"
serves "$port" sshd
printf '[127.0.0.1]:%s %s\n' "$port" "$(cut -d' ' -f1,2 host_key.pub)" >known
echo pwd >commands
log_in() { # as_me|as_other OPTIONS...
    local who=$1
    shift
    "$who" sftp -q -b commands -F /dev/null -o UserKnownHostsFile="$work/known" -o StrictHostKeyChecking=yes -o BatchMode=yes \
        -o IdentityFile=none -P "$port" "$@" "$me@127.0.0.1"
}
# Whoever came in last came in with this key.
came_in_with() { # KEY
    grep 'Accepted publickey' sshd.log | tail -n 1 | contains -F "$(ssh-keygen -lf "$1.pub" | cut -d' ' -f2)" ||
        fail "$1 did not open the door: $(tail -n 5 sshd.log)"
}

step "PKCS11Provider"
expect_exit 255 log_in as_me -o PKCS11Provider="$p11_module"
for key in "${keys[@]}"; do
    cp "$key.pub" authorized
    ok log_in as_me -o PKCS11Provider="$p11_module"
    came_in_with "$key"
    expect_exit 255 log_in as_other -o PKCS11Provider="$p11_module"
    expect_exit 255 log_in as_me
done

step "an agent"
# The PIN that it asks for: there is none.
printf '#!/bin/sh\necho\n' >askpass
chmod 0755 askpass
agent() { # UID: at agent-UID/sock
    mkdir -m 0700 "agent-$1"
    chown "$1" "agent-$1"
    start "agent-$1" setpriv --reuid "$1" --regid "$1" --clear-groups ssh-agent -D -a "$work/agent-$1/sock" -P "$node/lib/*"
    node_await 5 test -S "agent-$1/sock" || fail "no agent: $(cat "agent-$1.log")"
}
by_agent() { # UID COMMAND...
    local uid=$1
    shift
    as_uid "$uid" env SSH_AUTH_SOCK="$work/agent-$uid/sock" SSH_ASKPASS="$work/askpass" SSH_ASKPASS_REQUIRE=force timeout 20 "$@"
}
with_agent() { by_agent "$my_uid" "$@"; }
with_others_agent() { by_agent "$other_uid" "$@"; }
agent "$my_uid"
agent "$other_uid"
ok with_others_agent ssh-add -s "$p11_module"
ok with_agent ssh-add -s "$p11_module"
ok with_agent ssh-add -L
cp out held
for key in "${keys[@]}"; do
    grep -qF "$(cut -d' ' -f2 "$key.pub")" held || fail "the agent has no $key: $(cat held)"
    cp "$key.pub" authorized
    ok log_in with_agent
    came_in_with "$key"
    expect_exit 255 log_in with_others_agent
done
step "the agent outlives a restart of csmd"
node_csmd_stop "$node"
expect_exit 255 log_in with_agent
node_csmd_start "$node" || fail "csmd does not start"
ok log_in with_agent
came_in_with "${keys[-1]}"
ok with_agent ssh-add -e "$p11_module"
expect_exit 255 log_in with_agent
