#!/bin/bash
# Clients that stop in the middle of a handshake, a head or a body, that send rubbish, and that leave before their answer take
# nothing from others: each request of an honest client is answered meanwhile. What csm-server serves is what openapi.yaml says.
# bound: 60
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft --server

step "routes and openapi.yaml are the same"
"$node_build/bin/csm-server" --routes | awk '{print $1, $2}' | LC_ALL=C sort >routes
py - "$top/proto-spec/openapi.yaml" <<'PY' | LC_ALL=C sort >described
import sys, yaml
for path, methods in yaml.safe_load(open(sys.argv[1]))['paths'].items():
    for m in methods:
        print(m.upper(), path)
PY
expect_same "routes" routes described

step "an honest client among rude ones"
py "$top/tests/system/rude_https.py" "$CSM_SERVER" "$CSM_CACERT" "$(count 4 60)"
# Nothing of them is left, and it stops as it should.
curl -sS -m 10 --cacert "$CSM_CACERT" "$CSM_SERVER/metrics" >metrics
grep -qE '^csm_server_handshakes_failed_total [1-9]' metrics || fail "no handshake failed"
grep -qE '^csm_server_answers_total\{class="4xx"\} [1-9]' metrics || fail "nobody was refused"
