#!/bin/bash
# The client at the end of PROTOCOL.md runs as it stands there, and its signature is good.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft

sed -n '/^```python$/,/^```$/p' "$top/proto-spec/PROTOCOL.md" | sed '/^```/d' >client.py
[ "$(wc -l <client.py)" -ge 30 ] || fail "no client in PROTOCOL.md"

step "it makes a key and signs, sets a secret and reads it back"
as_uid $uid_a /usr/bin/python3 client.py >out
[ "$(sed -n 2p out)" = "correct horse" ] || fail "another secret: $(sed -n 2p out)"

step "openssl accepts the signature, and not over other data"
/usr/bin/python3 -c 'import sys; sys.stdout.buffer.write(bytes.fromhex(sys.stdin.readline()))' <out >sig
as_uid $uid_a csm key public example >pub.pem
printf 'a message' >message
printf 'another message' >other
openssl dgst -sha256 -verify pub.pem -signature sig message >/dev/null
! openssl dgst -sha256 -verify pub.pem -signature sig other >/dev/null 2>&1 || fail "a signature over other data passes"

step "a second run is refused, with the error's name"
expect_exit 1 as_uid $uid_a /usr/bin/python3 client.py
grep -q 'key.create: exists: ' err || fail "$(cat err)"
