#!/bin/bash
# A program on a file system that its user serves (FUSE) is not hashed, and one whose server answers nothing any more keeps
# neither csm-ident nor anybody else waiting.
. "$(dirname "$0")/../lib/system.sh"
if [ ! -c /dev/fuse ]; then
    echo "skip: no /dev/fuse"
    exit 77
fi
in_node --backend soft

mount=$work/mnt
mkdir "$mount" "$work/bin"
cp "$top/build/tests/attack/trusted" "$work/bin/good"
chmod 0755 "$mount" "$work/bin" "$work/bin/good"
server=
clean() {
    umount -l -f "$mount" 2>/dev/null || true
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
}
trap clean EXIT
/usr/bin/python3 "$top/tests/system/fusefs.py" "$mount" "$work/bin/good" >"$work/fuse" 2>&1 &
server=$!
node_await 10 grep -qE '^(ready|skip)' "$work/fuse" || fail "no file system: $(cat "$work/fuse")"
if grep '^skip' "$work/fuse"; then
    exit 77
fi

rules() { # SELECTOR of the program on FUSE
    policy <<YAML
version: 1
identities:
  served: {uid: $uid_a, exe: $1}
  good: {uid: $uid_b, exe: $work/bin/good}
  root: {uid: 0}
rules:
  - {allow: [secret.get], to: [served, good], on: ["vault:safe/*"]}
  - {allow: ["*"], to: [root], on: ["vault:*"]}
YAML
}
rules "{sha256: $(sha256sum "$work/bin/good" | cut -d' ' -f1)}"
ok csm domain create vault:safe
ok csm secret set vault:safe/s value=treasure

step "the program runs from there, and is not hashed: the refusal names the file system"
expect_equal "by digest, elsewhere" "$(printf '?' | as_uid $uid_a "$work/bin/good" honest vault:safe/s)" .
expect_equal "by digest, on FUSE" "$(printf '?' | as_uid $uid_a "$mount/app" honest vault:safe/s)" x

# A client on each side that stays: a byte in, an answer out.
start() { # NAME COMMAND...
    local name=$1
    shift
    mkfifo "$work/$name.in" "$work/$name.out"
    "$@" <"$work/$name.in" >"$work/$name.out" &
}
rules "$mount/app"
start served as_uid $uid_a "$mount/app" honest vault:safe/s
exec 5>"$work/served.in" 6<"$work/served.out"
start good as_uid $uid_b "$work/bin/good" honest vault:safe/s
exec 7>"$work/good.in" 8<"$work/good.out"
answer=
told() { # FD-IN FD-OUT: the answer within five seconds, and how long it took
    local begin
    begin=$(date +%s%N)
    printf '?' >&"$1"
    IFS= read -r -n 1 -t 5 -u "$2" answer || fail "no answer within five seconds"
    took=$((($(date +%s%N) - begin) / 1000000))
}

step "while its server answers"
told 5 6
first=$answer
told 7 8
expect_equal "the good program" "$answer" .

step "when it does not: the program on it is not served, nor does anybody wait"
kill -USR1 "$server"
(timeout -k 1 1 stat "$mount/app" >/dev/null 2>&1) 2>/dev/null && fail "the file system still answers"
for _ in 1 2 3 4 5; do
    told 5 6
    [ "$answer" = x ] || [ "$answer" = "$first" ] || fail "another answer than before: $answer"
    told 7 8
    expect_equal "the good program" "$answer" .
    [ "$took" -lt 250 ] || fail "it waited $took ms"
done
rules "{sha256: $(sha256sum "$work/bin/good" | cut -d' ' -f1)}"
told 5 6
expect_equal "by digest" "$answer" x
rules "$mount/app"
told 7 8
expect_equal "the good program" "$answer" .
expect_equal "csm-ident" "$(status_field ident.state)" running
exec 5>&- 7>&-
