#!/bin/bash
# csm(1) as scripts use it: exit statuses, --json, where values come from and where output goes, csm exec, and what the
# command tells of itself.
# bound: 180
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

step "exit statuses"
ok csm key create k
expect_exit 7 csm key create k
expect_exit 4 csm key show none
expect_exit 2 csm key show
expect_exit 2 csm key create a b
names_it() { # TEXT COMMAND...: its message has the text
    local text=$1
    shift
    "$@" >out 2>err && fail "no refusal: $*"
    grep -qF -- "$text" err || fail "$*: $(cat err)"
}
names_it "csm: NAME is missing" csm key show
names_it 'csm: "b" is one argument too many' csm key create a b
names_it "csm: K=V is missing" csm secret set d/n
names_it "csm: COMMAND is missing" csm exec --secret d/n
names_it "csm: not_found: none: " csm key show none
names_it "csm: exists: k: " csm key create k
names_it "csm: not_found: nodomain/x: " csm secret get nodomain/x
names_it "csm: not_found: nodomain/x: " csm exec --secret nodomain/x -- true
names_it "csm: denied: uid-1:k: " csm sign uid-1:k /dev/null
names_it "csm: not_found: k: the key has no certificate" csm cert show k
names_it "csm: unsupported: k: the key was not made for this use" csm decrypt k /dev/null
names_it "csm: invalid: k: csmd.yaml has no enrolment profiles" csm cert enrol k
names_it "csm: --alg foo: it is one of p256 " csm key create z --alg foo
names_it "csm: --use sign,foo: it is one of sign " csm key create z --use sign,foo
names_it "csm: --scheme foo: it is one of ecdsa-sha256 " csm sign k --scheme foo /dev/null
names_it "csm: cert: what to do is missing" csm cert
expect_exit 2 csm key create z --alg foo
expect_exit 2 csm key create z --use sign,foo
expect_exit 2 csm sign k --scheme foo /dev/null
expect_exit 2 csm cert
for name in a/b "" .hidden -x a:b:c UP:k "x*" "$(printf 'x%.0s' {1..129})"; do
    expect_exit 2 csm key show -- "$name"
    expect_exit 2 csm domain create -- "$name"
done
for name in d "" d/ /n d/n/m a:d d/.x; do
    expect_exit 2 csm secret get -- "$name"
    expect_exit 2 csm exec "--secret=$name" -- true
done
expect_exit 2 csm key list --namespace UP
expect_exit 2 csm cert show a/b
expect_exit 2 csm key show k --alg p256
expect_exit 2 csm key shown k
expect_exit 2 csm no-such-command
expect_exit 2 csm --no-such-option whoami
expect_exit 2 csm random ten
expect_exit 1 csm random 0
grep -q 'at least 1' err || fail "random 0: $(cat err)"
expect_exit 1 csm random 0 --json
expect_equal "random 1" "$(csm random 1 | wc -c)" 1
expect_exit 5 csm --socket /nonexistent whoami
denied as_uid $uid_a csm key show "uid-$(id -u):k"
denied as_uid $uid_a csm policy reload
ok csm help
ok csm help key create
ok csm key --help
ok csm --version
[ "$(cat out)" = "csm $(csm status --json | json version)" ] || fail "versions differ: $(cat out)"

step "a policy is checked before it is used"
cat >checked.yaml <<YAML
version: 1
identities: {a: {uid: 1}}
rules:
- {allow: [secret.get], to: [a], on: ["x:db"]}
- {allow: [secret.get], to: [a], on: ["x:db/*"]}
YAML
ok csm policy check checked.yaml
expect_equal "what is told" "$(cat out)" "checked.yaml: warning: line 4: rule 1: secret.get has no effect: it is asked on \
NAMESPACE:DOMAIN/NAME, which nothing in 'on' matches
checked.yaml: valid"
cat >named.yaml <<YAML
version: 1
identities: {a: {user: root, group: no-such-group}, b: {user: no-such-user}, c: {user: root, group: root}}
YAML
ok csm policy check named.yaml
for name in "user no-such-user" "group no-such-group"; do
    grep -q "there is no $name on this machine" out || fail "not told of: $name: $(cat out)"
done
! grep -q 'no [a-z]* root' out || fail "root: $(cat out)"
expect_equal "names in JSON" "$(csm policy check --json named.yaml | json users | tr ',' '\n' | tr -d '[]" ' | sort | tr '\n' ' ')" \
    "no-such-user root "
: >empty.yaml
expect_exit 1 csm policy check empty.yaml
expect_equal "an empty one" "$(cat out)" "empty.yaml:1:1: the file is empty"

step "the socket of somebody else is not trusted"
mkdir -m 0777 theirs
as_uid $uid_b /usr/bin/python3 -c 'import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind("theirs/sock")
s.listen()
s.settimeout(30)
c, _ = s.accept()
sys.exit(0 if c.recv(1) == b"" else 1)' &
theirs=$!
for _ in $(seq 100); do
    [ ! -S theirs/sock ] || break
    sleep 0.05
done
chmod 0777 theirs/sock
expect_exit 5 csm --socket theirs/sock whoami
grep -q "uid $uid_b" err || fail "no word of the socket's owner: $(cat err)"
wait $theirs || fail "something was sent to an untrusted socket"

step "--json prints one value and nothing else"
for command in whoami status metrics "key list" "key show k" "key public k" "domain list"; do
    # shellcheck disable=SC2086 # words
    ok csm $command --json
    /usr/bin/python3 -c 'import json, sys; json.load(sys.stdin)' <out || fail "csm $command --json"
    [ ! -s err ] || fail "csm $command --json spoke: $(cat err)"
done
for field in namespace name alg backend protection created public signatures; do
    csm key show k --json | json $field >/dev/null || fail "key show has no $field"
done
expect_equal "created" "$(csm key show k --json | json created | grep -cE '^[0-9]{10}$')" 1
csm key show k --json | json public >pub.pem
expect_equal "public" "$(head -1 pub.pem)" "-----BEGIN PUBLIC KEY-----"
expect_equal "no error on stdout" "$(csm key show none --json 2>/dev/null || true)" ""

step "a reference names the key whole, with the hash of its public half"
ok csm key reference k -o ref.pem
expect_equal "first line" "$(head -1 ref.pem)" "-----BEGIN CSM KEY REFERENCE-----"
sed '1d;$d' ref.pem | base64 -d >ref.der
expect_equal "in clear" "$(openssl asn1parse -inform DER -in ref.der | sed -nE 's/.*(UTF8STRING|INTEGER) *://p' | xargs)" \
    "csm key reference 01 $(csm whoami --json | json namespace) k"
expect_equal "hash" "$(tail -c 32 ref.der | od -An -tx1 | tr -d ' \n')" "$(csm key show k --json | json spki_sha256)"
csm key reference "$(csm whoami --json | json namespace):k" >ref2.pem
expect_same "with the namespace" ref.pem ref2.pem
csm key reference k --json | json reference >ref2.pem
expect_equal "as JSON" "$(cat ref2.pem)" "$(cat ref.pem)"
expect_exit 2 csm key reference k/k
expect_exit 4 csm key reference none
denied as_uid $uid_a csm key reference "$(csm whoami --json | json namespace):k"

step "lists page through all there is"
csm domain create many
py - <<'PY'
import csmwire
conn = csmwire.Conn()
for i in range(1203):
    conn.call("secret.set", {"secret": "many/s%04d" % i, "pairs": [{"name": "k", "value": b"v"}]})
PY
expect_equal "entries" "$(csm secret list many --json | /usr/bin/python3 -c 'import json, sys
v = [s["name"] for s in json.load(sys.stdin)]
print(len(v), v == sorted(set(v)))')" "1203 True"
expect_equal "rows" "$(csm secret list many | wc -l)" 1204

step "values come from the command line, files, standard input and JSON, as they are"
head -c 300000 /dev/urandom >blob
printf 'line\n' >line
csm domain create d >/dev/null
csm secret set d/a literal=x empty= "file=@blob" stdin=- <line >/dev/null
expect_equal literal "$(csm secret get d/a literal)" x
csm secret get d/a file >got && expect_same "bytes of a file" blob got
csm secret get d/a stdin >got && expect_same "bytes of standard input" line got
csm secret get d/a empty >got
[ ! -s got ] || fail "an empty value is not empty"
expect_equal "text" "$(csm secret get d/a | grep -vE '^file:base64=')" "literal=x
empty=
stdin:base64=$(base64 <line)"
# what a terminal would act on is not shown as it is: U+009B begins a control sequence as ESC [ does
csm secret set d/c1 "k=a$(printf '\302\233')31m" >/dev/null
expect_equal "a C1 control" "$(csm secret get d/c1)" "k:base64=$(printf 'a\302\23331m' | base64)"
csm secret delete d/c1 >/dev/null
expect_equal "a file's base64" "$(csm secret get d/a --json | json pairs.file | base64 -d | cmp - blob && echo same)" same
expect_exit 4 csm secret get d/a absent
expect_exit 2 csm secret set d/a =x
expect_exit 2 csm secret set d/a a=1 a=2
expect_exit 2 csm secret set d/a a=- b=-
expect_exit 1 csm secret set d/a a=@/nonexistent
echo '{"t": "grün", "b": {"base64": "AAH/"}, "j": {"x": [1, true]}}' >in.json
csm secret set d/j --json - <in.json >out
expect_equal "version" "$(json version <out)" 1
expect_equal "types" "$(csm secret get d/j --json | json types)" '{"t": "text", "b": "bytes", "j": "json"}'
expect_equal "bytes" "$(csm secret get d/j b | od -An -tx1 | tr -d " ")" 0001ff
expect_equal "json" "$(csm secret get d/j j)" '{"x":[1,true]}'
expect_equal "text" "$(csm secret get d/j --json | json pairs.t)" grün
for bad in '{"a": "sensitive"' '["sensitive"]' '{"a": "sensitive", "a": "x"}' '{"a": {"base64": "sensitive!"}}'; do
    echo "$bad" >bad.json
    expect_exit 2 csm secret set d/j --json - <bad.json
    ! grep -q sensitive err || fail "a message shows a value: $(cat err)"
done
head -c 800000 /dev/zero >large
expect_exit 1 csm secret set d/a large=@large
csm secret set d/j t=new >/dev/null
expect_equal "an older version" "$(csm secret get d/j t --version 1)" grün
expect_exit 7 csm secret set d/j --expect 1 t=newer

step "the literal leaves the list of processes"
mkfifo hold
csm secret set d/a key=literal-on-the-command-line hold=- <hold &
setter=$!
exec 7>hold
for _ in $(seq 100); do
    tr '\0' ' ' <"/proc/$setter/cmdline" | contains literal-on || break
    sleep 0.05
done
! tr '\0' ' ' <"/proc/$setter/cmdline" | contains literal-on || fail "the value stays in the command line"
exec 7>&-
wait $setter

step "a terminal that ends is no empty value"
# ^D once the question stands there: before it, what was typed is thrown away
expect_exit 1 timeout 20 python3 -c 'import os, pty
pid, terminal = pty.fork()
if pid == 0:
    os.execvp("csm", ["csm", "secret", "set", "d/typed", "password"])
said = b""
while not said.endswith(b"password: "):
    said += os.read(terminal, 100)
os.write(terminal, b"\x04")
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))'
expect_exit 4 csm secret get d/typed

step "what is typed is asked for twice"
cat >typed.py <<'PY'
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execvp("csm", ["csm", "secret", "set", "d/typed", "password"])
said = b""
for end, line in zip((b"password: ", b"password again: "), sys.argv[1:]):
    while not said.endswith(end):
        said += os.read(terminal, 100)
    os.write(terminal, line.encode() + b"\n")
try:
    while more := os.read(terminal, 100):
        said += more
except OSError:
    pass
print(said.decode())
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
PY
expect_exit 1 timeout 20 python3 typed.py mistyped mistyqed
grep -q 'not the same twice' out || fail "no word of the slip: $(cat out)"
expect_exit 1 timeout 20 python3 typed.py mistyped mistypedd
expect_exit 4 csm secret get d/typed
ok timeout 20 python3 typed.py typed-twice typed-twice
! grep -q 'typed-twice' out || fail "the value is shown as it is typed"
expect_equal "what was typed" "$(csm secret get d/typed password)" typed-twice
csm secret delete d/typed >/dev/null
expect_exit 2 csm secret set d/typed password=@

step "binary output does not go to a terminal, and a file is whole or absent"
expect_exit 2 script -qec "csm sign k line" /dev/null
ok csm sign k line -o sig
ok script -qec "csm secret get d/j t" /dev/null
expect_equal "a newline on a terminal" "$(tr -d '\r' <out | wc -l)" 1
expect_equal "no newline in a pipe" "$(csm secret get d/j t | wc -l)" 0
echo before >kept
expect_exit 4 csm sign none line -o kept
expect_equal "a file after a failure" "$(cat kept)" before
expect_equal "no leftovers" "$(find . -name 'kept.*' -o -name 'sig.*')" ""
expect_equal "a signature's mode" "$(stat -c %a sig)" 644
(umask 027 && csm key public k -o kept.pem && csm csr k -o kept.csr)
expect_equal "the umask's" "$(stat -c %a kept.pem kept.csr | xargs)" "640 640"
chmod 604 kept.pem
ok csm key public k -o kept.pem
expect_equal "the file's own" "$(stat -c %a kept.pem)" 604
rm kept.pem kept.csr
touch value
chmod 644 value
ok csm secret get d/j t -o value
ok csm random 5 -o chance
expect_equal "a secret's mode" "$(stat -c %a value chance | xargs)" "600 600"
csm key public k -o /dev/stdout >pub.pem
openssl dgst -sha256 -verify pub.pem -signature sig line >/dev/null || fail "the signature"

step "what cannot be read is named"
expect_exit 1 csm sign k /
grep -q '/: Is a directory' err || fail "sign /: $(cat err)"
expect_exit 1 csm secret set d/a a=@/
grep -q '/: Is a directory' err || fail "secret set @/: $(cat err)"
expect_exit 1 csm sign k - </
grep -q 'standard input: Is a directory' err || fail "sign </: $(cat err)"

step "long input is streamed"
head -c 5000000 /dev/urandom >long
csm sign k long -o sig
openssl dgst -sha256 -verify pub.pem -signature sig long >/dev/null || fail "a signature over 5 MB"
(cat long && echo x) >longer
! openssl dgst -sha256 -verify pub.pem -signature sig longer >/dev/null 2>&1 || fail "a signature over other data"
# pieces of a pipe as they come
(head -c 1000000 long && sleep 0.3 && tail -c +1000001 long) | csm sign k >sig
openssl dgst -sha256 -verify pub.pem -signature sig long >/dev/null || fail "a signature over a pipe"
expect_exit 2 csm sign k --digest long

step "exec: files in memory, the exit status, and nothing left"
# shellcheck disable=SC2016 # for the inner shell
csm exec --secret d/j -- sh -c 'echo "$CSM_SECRETS"; stat -c %a "$CSM_SECRETS"; stat -f -c %T "$CSM_SECRETS"
    cat "$CSM_SECRETS/t"; mkdir -p "$CSM_SECRETS/made/here"; ln -s / "$CSM_SECRETS/root"' >out
expect_equal "what the command saw" "$(tail -n +2 out)" "700
tmpfs
new"
[ ! -e "$(head -1 out)" ] || fail "the folder is still there"
[ -d /etc ] || fail "a link was followed"
expect_exit 9 csm exec --secret d/j -- sh -c 'exit 9'
expect_exit 127 csm exec --secret d/j -- /nonexistent
expect_exit 126 csm exec --secret d/j -- /etc/passwd
expect_exit 4 csm exec --secret d/none -- touch ran
[ ! -e ran ] || fail "the command ran without its secret"
expect_exit 2 csm exec -- true
# shellcheck disable=SC2016
expect_equal "without --" "$(csm exec --env --secret d/j sh -c 'printf %s "$t"')" new
# shellcheck disable=SC2016
expect_equal "--env" "$(csm exec --env --secret d/j -- sh -c 'printf %s "$t"')" new
# who may write a secret does not choose what its reader runs
for name in LD_PRELOAD PATH BASH_ENV CSM_SOCKET 1x a-b; do
    ok csm secret set d/steer "$name=/tmp/x"
    expect_exit 1 csm exec --env --secret d/steer -- touch ran
    [ ! -e ran ] || fail "$name went into the environment"
done
expect_exit 137 csm exec --secret d/j -- sh -c 'kill -9 $$'
# a signal reaches the command, and the folder goes
# shellcheck disable=SC2016
csm exec --secret d/j -- sh -c 'trap "exit 5" TERM; echo "$CSM_SECRETS" >folder.new; mv folder.new folder; while :; do sleep 0.05; done' &
runner=$!
for _ in $(seq 200); do
    [ ! -e folder ] || break
    sleep 0.05
done
kill -TERM $runner
status=0
wait $runner || status=$?
expect_equal "status after a signal" $status 5
[ ! -e "$(cat folder)" ] || fail "the folder outlives a signal"

# nor does one that comes as soon as there is one; the command is not started then
cc -shared -fPIC -x c -o told.so - <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
char *mkdtemp(char *path)
{
	char *made = ((char *(*)(char *))dlsym(RTLD_NEXT, "mkdtemp"))(path);

	raise(SIGTERM);
	return made;
}
C
before=$(find /dev/shm -maxdepth 1 -name 'csm-exec.*' -uid "$(id -u)" | sort)
expect_exit 143 env -u XDG_RUNTIME_DIR ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD="$PWD/told.so" csm exec --secret d/j -- touch started
expect_equal "folders" "$(find /dev/shm -maxdepth 1 -name 'csm-exec.*' -uid "$(id -u)" | sort)" "$before"
[ ! -e started ] || fail "the command was started"
# a folder that another user could put in the place of ours is none
if [ "$(id -u)" -eq 0 ]; then
    theirs=$(mktemp -d /dev/shm/csm-test.XXXXXX)
    chown $uid_a "$theirs"
    # shellcheck disable=SC2016
    where=$(XDG_RUNTIME_DIR=$theirs csm exec --secret d/j -- sh -c 'printf %s "$CSM_SECRETS"')
    rm -r "$theirs"
    expect_equal "where" "${where%.*}" /dev/shm/csm-exec
fi

step "sealed data"
printf 'small' | csm seal --context here -o sealed
expect_equal unseal "$(csm unseal sealed --context here)" small
expect_exit 1 csm unseal sealed --context there
head -c 65537 /dev/zero >large
expect_exit 1 csm seal large -o never
[ ! -e never ] || fail "a file for what was refused"
expect_equal random "$(csm random 100000 | wc -c)" 100000

step "a request that is named is done once"
ok csm key create twice --request-id r1 --json
mv out first
ok csm key create twice --request-id r1 --json
expect_equal "the same answer" "$(json public <out)" "$(json public <first)"
expect_exit 7 csm key create other --request-id r1

step "the manual and the completion know every command"
csm help | awk '/^  [a-z]/ && $1 !~ /^-/ { print $1 }' | sort -u >objects
while read -r object; do
    grep -q "csm $object" "$top/build/man/csm.1" || fail "no $object in csm(1)"
done <objects
complete_line() {
    bash -c '. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _csm; echo "${COMPREPLY[*]}"' _ \
        "$top/build/completion/csm" "$@"
}
expect_equal "verbs of key" "$(complete_line csm key '')" "create list show public reference import export delete attest"
expect_equal "a beginning" "$(complete_line csm key cr)" "create"
expect_equal "algorithms" "$(complete_line csm key create x --alg rsa)" "rsa2048 rsa3072 rsa4096"
expect_equal "options" "$(complete_line csm sign k --sch)" "--scheme"
expect_equal "late options" "$(complete_line csm recovery create --t | tr ' ' '\n' | sort | xargs)" "--threshold --timeout --trust-overflow"
expect_equal "objects" "$(complete_line csm wh)" "whoami"
expect_equal "a verb of two words" "$(complete_line csm ca re)" "request report"
expect_equal "its second word" "$(complete_line csm ca request '')" "list show approve deny"
expect_equal "its options" "$(complete_line csm ca cert list --p)" "--profile"

step "help tells of each option that a command takes"
csm --help | sed -nE 's/^  ([a-z-]+( [a-z]+)?( [a-z]+)?) .*/\1/p' >commands
[ "$(wc -l <commands)" -gt 60 ] || fail "commands: $(wc -l <commands)"
while read -r words; do
    # shellcheck disable=SC2086 # words
    csm $words --help >help 2>&1 </dev/null || continue
    while read -r option; do
        grep -qE -- "^ .*$option( |\$)" help || fail "csm $words --help does not explain $option"
    done < <(sed -n 1p help | grep -oE -- '--[a-z-]+' | sort -u)
done <commands
