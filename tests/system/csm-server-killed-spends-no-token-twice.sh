#!/bin/bash
# csm-server is killed while it issues: each certificate that was answered is in the inventory, each serial number once, and no token
# was good for two, whatever was asked before and after.
# bound: 120
# release only
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
# shellcheck source=tests/lib/ca.sh
. "$top/tests/lib/ca.sh"

rounds=$(count 4 100) per_round=60
ca_start 'profiles: {default: {subject: {CN: "*"}, san: ["dns:**"]}}'
# shellcheck disable=SC2119 # nothing more is asked
ca_init
csr web web.example DNS:web.example
: >"$ca/answers"

make_tokens() {
    py - "$ca/admin.sock" "$per_round" >"$1" <<'PY'
import http.client, json, socket, sys
class Local(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(sys.argv[1])
c = Local('localhost')
for _ in range(int(sys.argv[2])):
    c.request('POST', '/v1/cms/tokens', '{"any_name": true}', {'Content-Type': 'application/json'})
    print(json.loads(c.getresponse().read())['token'])
PY
}

for round in $(seq "$rounds"); do
    make_tokens "$ca/tokens"
    py "$top/tests/system/issue_rounds.py" "$port" "$ca/root.pem" "$ca/web.csr" "$ca/tokens" "$ca/answers.new" 4 &
    clients=$!
    node_await 10 test -s "$ca/answers.new" || fail "nothing is issued, round $round"
    sleep "0.0$((RANDOM % 10))"
    ca_kill9
    wait "$clients" || fail "the clients, round $round"
    ca_run
    # whoever got no answer asks again
    py "$top/tests/system/issue_rounds.py" "$port" "$ca/root.pem" "$ca/web.csr" "$ca/tokens" "$ca/answers.new" 4
    sed "s/^/$round-/" "$ca/answers.new" >>"$ca/answers"
    rm "$ca/answers.new"
done

as_local
: >"$ca/inventory"
after=
while :; do
    ask GET "/v1/cms/certificates?limit=500&after=$after" && got 200
    py -c 'import json, sys
for c in json.load(open(sys.argv[1]))["certificates"]:
    print(c["requester"].replace(" ", "-"), c["serial"])' "$ca/answer" >>"$ca/inventory"
    after=$(field next)
    [ -n "$after" ] || break
done
py - "$ca/answers" "$ca/inventory" <<'PY'
import collections, sys
answers = [line.split() for line in open(sys.argv[1])]
rows = [line.split() for line in open(sys.argv[2])]
serials = [s for _, s in rows]
assert len(set(serials)) == len(serials), 'a serial number twice'
lost = {s for _, s in answers} - set(serials)
assert not lost, f'answered, and not in the inventory: {lost}'
twice = [t for t, n in collections.Counter(t for t, _ in answers).items() if n > 1]
assert not twice, f'a token was answered twice: {twice}'
twice = [r for r, n in collections.Counter(r for r, _ in rows if r.startswith('token')).items() if n > 1]
assert not twice, f'a token has two certificates: {twice}'
assert len(answers) > 20, 'hardly anything was issued'
PY
