#!/bin/bash
# What `make run` prints points csm, OpenSSL and PKCS#11 programs to its node, as it is; what else they do stays.
unset CSM_BUILD # the programs of others that load csm's objects are no sanitized ones
. "$(dirname "$0")/../lib/system.sh"
work=$(mktemp -d "${TMPDIR:-/tmp}/csm-run.XXXXXX")
chmod 0755 "$work"
pid=
end() {
    [ -z "$pid" ] || { kill "$pid" && wait "$pid"; } 2>/dev/null
    rm -rf "$work"
}
trap end EXIT
cd "$work"
"$top/scripts/run.sh" --backend soft --dir "$work/node" >printed 2>log &
pid=$!
node_await 30 grep -q '# for programs that use PKCS#11' printed || fail "it printed: $(cat printed log)"

step "csm, OpenSSL and PKCS#11 find its keys"
expect_equal "commands" "$(grep -c '^export ' printed)" 2
grep '^export ' printed >environment
# shellcheck source=/dev/null
. ./environment
ok csm key create k
ok csm key public k -o public.pem
echo "pay 10 to bob" >msg
ok openssl dgst -sha256 -sign csm:k -out sig msg
ok openssl dgst -sha256 -verify public.pem -signature sig msg
ok pkcs11-tool --module "$(sed -n 's/^# for programs that use PKCS#11: //p' printed)" --list-objects --type privkey
grep -q 'label: *k$' out || fail "no key: $(cat out)"

step "what needs the machine's own settings goes on"
ok openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj '/CN=my CA' -days 2
ok openssl x509 -in ca.pem -noout -ext basicConstraints
grep -q CA:TRUE out || fail "no CA: $(cat out)"

step "it ends when it is told to, and its node with it"
kill "$pid"
wait "$pid" || true
pid=
expect_exit 5 csm whoami
