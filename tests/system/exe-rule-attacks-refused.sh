#!/bin/bash
# Whoever plays the program that a rule names (takes its pid, its connection, its place after connecting, its name in a
# cgroup) is refused each time, and the honest program is served each time in between.
# bound: 240
# bound-long: 1800
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

attacks=$top/build/tests/attack
rounds=$(count 1000 10000)
mkdir "$work/bin"
cp "$attacks"/* "$work/bin"
chmod 0755 "$work/bin" "$work/bin"/*

root=
for root in /sys/fs/cgroup/unified /sys/fs/cgroup ""; do
    [ ! -w "$root/cgroup.procs" ] || break
done
unit=csm-attack-$$.service own=$root/csm-attack-$$

policy <<YAML
version: 1
identities:
  trusted: {uid: $uid_a, exe: $work/bin/trusted}
  anyone: {uid: $uid_a}
  unit: {unit: $unit}
  root: {uid: 0}
rules:
  - {allow: [secret.get], to: [trusted], on: ["vault:safe/*"]}
  - {allow: [secret.get], to: [unit], on: ["vault:unit/*"]}
  - {allow: [secret.get], to: [anyone], on: ["vault:plain/*"]}
  - {allow: ["*"], to: [root], on: ["vault:*"]}
YAML
for domain in safe plain unit; do
    ok csm domain create vault:$domain
    ok csm secret set vault:$domain/s value=treasure
done
export ATTACK_UID=$uid_a ATTACK_UNIT=$unit ATTACK_CGROUP=$own

# attack NAME [COMMAND...]: as uid_a
attack() {
    local name=$1 object=${object:-vault:safe/s}
    shift
    "$@" "$work/bin/$name" "$work/bin/trusted" "$object" vault:plain/s "$rounds" >"$work/said" 2>"$work/err" ||
        fail "$name: $(cat "$work/said" "$work/err")"
    step "$name: $(cat "$work/said")"
}

step "what the attackers are after is there: the program is served, the same code as another file is not"
cp "$work/bin/trusted" "$work/bin/copy"
expect_equal trusted "$(printf '?' | as_uid $uid_a "$work/bin/trusted" honest vault:safe/s)" .
expect_equal "a copy" "$(printf '?' | as_uid $uid_a "$work/bin/copy" honest vault:safe/s)" x
expect_equal "a copy, without the rule" "$(printf '?' | as_uid $uid_a "$work/bin/copy" honest vault:plain/s)" .
expect_equal "another user" "$(printf '?' | as_uid $uid_b "$work/bin/trusted" honest vault:safe/s)" x
if as_uid $uid_a unshare --user true 2>/dev/null; then
    expect_equal "root of a user namespace" \
        "$(printf '?' | as_uid $uid_a unshare --user --map-root-user "$work/bin/trusted" honest vault:safe/s)" x
fi

attack connect_fork_exec as_uid $uid_a
attack proven_then_execute as_uid $uid_a
attack socket_handed_on as_uid $uid_a
attack descriptors_along as_uid $uid_a
attack two_senders as_uid $uid_a
if as_uid $uid_a unshare --user --pid --fork true 2>/dev/null; then
    attack forged_credentials as_uid $uid_a
fi

# Root chooses the pids, all else is uid_a's.
attack pid_reuse

if [ -n "$root" ] && [ "$(csm status --json | json identity)" = full ]; then
    clean() {
        echo $$ >"$root/cgroup.procs"
        find "$own" -depth -type d -exec rmdir {} + 2>/dev/null || true
    }
    trap clean EXIT
    mkdir "$own"
    chown -R $uid_a:$uid_a "$own"
    # shellcheck disable=SC2016 # for the inner shell
    object=vault:unit/s ATTACK_HONEST=vault:safe/s attack forged_cgroup sh -c 'echo $$ >"$0/cgroup.procs" && exec setpriv --reuid "$ATTACK_UID" \
        --regid "$ATTACK_UID" --clear-groups -- "$@"' "$own"
fi

step "the helper is the one of the start"
[ "$(grep -c 'csm-ident: serving' "$node/csmd.log")" -eq 1 ] || fail "csm-ident was started again"
