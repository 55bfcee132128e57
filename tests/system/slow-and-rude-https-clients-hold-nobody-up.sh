#!/bin/bash
# A hundred clients that send nothing, that stop in the middle of a handshake, a head or a body, that send a byte a second, rubbish, or
# as much as they can, or leave before their answer: each request of an honest client is answered meanwhile, none after more than
# 250 ms. Prints how much its p99 grows, as `make bench` does.
# alone
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft --server

step "an honest client among rude ones"
py "$top/tests/system/rude_https.py" "$CSM_SERVER" "$CSM_CACERT" "$(count 1 6)" ${OTHER_SERVER:+"$OTHER_SERVER"}
# Nothing of them is left, and it stops as it should.
curl -sS -m 10 --cacert "$CSM_CACERT" "$CSM_SERVER/metrics" >metrics
grep -qE '^csm_server_handshakes_failed_total [1-9]' metrics || fail "no handshake failed"
grep -qE '^csm_server_answers_total\{class="4xx"\} [1-9]' metrics || fail "nobody was refused"
