#!/bin/bash
# Both certificates are renewed while connections are made without a pause: none is lost. (Left alone this happens at two thirds of
# their lives; csm-deliver(8) then does what is done by hand here.)
set -euo pipefail
port=${PORT:-8443}
touch asking lost
(
    n=0
    while [ -e asking ]; do
        curl -sSf --cacert ca.pem --cert orders.d/fullchain.pem --key orders.d/key.pem "https://localhost:$port/" >>answers || echo lost >>lost
        n=$((n + 1))
    done
    echo "$n connections, $(wc -l <lost) lost"
) &
sleep 1
csm cert renew shop
csm cert renew orders
csm cert export shop shop.d
csm cert export orders orders.d
kill -HUP "$(cat nginx.pid)"
sleep 2
rm asking
wait
[ ! -s lost ]
# Serials that were seen: of the caller by nginx ...
sort -u answers
# ... and of nginx by a caller.
openssl s_client -connect "localhost:$port" -CAfile ca.pem </dev/null 2>/dev/null | openssl x509 -noout -serial
csm cert show shop | grep serial
