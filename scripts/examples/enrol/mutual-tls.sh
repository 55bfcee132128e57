#!/bin/bash
# Two services, each with a key that it does not have: nginx serves, curl asks. OPENSSL_CONF has csm's provider (csm-provider(7)).
set -euo pipefail
port=${PORT:-8443}
csm key create shop
csm cert enrol shop --subject /CN=localhost --san dns:localhost
csm cert export shop shop.d
csm cert export orders orders.d
cat >nginx.conf <<CONF
user root;
daemon on;
pid $PWD/nginx.pid;
error_log $PWD/nginx.log;
env OPENSSL_CONF;
events {}
http {
    access_log off;
    server {
        listen 127.0.0.1:$port ssl;
        ssl_certificate $PWD/shop.d/fullchain.pem;
        ssl_certificate_key $PWD/shop.d/key.pem;
        ssl_client_certificate $PWD/ca.pem;
        ssl_verify_client on;
        location / { return 200 "hello \$ssl_client_s_dn, serial \$ssl_client_serial\n"; }
    }
}
CONF
nginx -p "$PWD" -c "$PWD/nginx.conf"
curl -sSf --cacert ca.pem --cert orders.d/fullchain.pem --key orders.d/key.pem "https://localhost:$port/"
# Who shows no certificate gets nothing.
if curl -sSf --cacert ca.pem "https://localhost:$port/"; then exit 1; fi
