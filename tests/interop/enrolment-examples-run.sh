#!/bin/bash
# The examples of enrolment run as they stand there: an authority whose key is in the TPM, a certificate by curl and openssl, one for
# a node's key, mutual TLS, renewals that lose no connection, a revocation, and the report of what is in use.
# bound: 120
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2 --server
examples=$top/scripts/examples/enrol
PORT=$(node_free_port)
export PORT

expect_equal "where the authority's key is" "$(csm --socket "$CSM_ADMIN_SOCKET" key show "uid-$(stat -c %u "$CSM_NODE_DIR/server/state"):ca" --json | json protection)" tpm
for step in authority token enrol; do
    step "$step"
    ok bash "$examples/$step.sh"
done
# Into programs of others, without a sanitizer.
cp "$top/libclient/provider/openssl.cnf" openssl.cnf
export OPENSSL_CONF=$PWD/openssl.cnf OPENSSL_MODULES=$top/build/lib/ossl-modules
trap '[ ! -s nginx.pid ] || kill "$(cat nginx.pid)" 2>/dev/null || true' EXIT
step "mutual TLS"
ok bash "$examples/mutual-tls.sh"
grep -q '^hello CN=orders, serial' out || fail "the service does not know its caller: $(cat out)"
step "renewed under load"
ok bash "$examples/renew.sh"
grep -Eq '^[0-9]{2,} connections, 0 lost' out || fail "$(cat out)"
expect_equal "certificates of the caller that were seen" "$(grep -c '^hello CN=orders, serial' out)" 2
expect_equal "the new certificate of nginx" "$(sed -n 's/^serial=//p' out | tr A-F a-f)" "$(sed -nE 's/^serial: +//p' out | tail -n 1)"
step "revoked"
ok bash "$examples/revoke.sh"
expect_equal "what OCSP says" "$(sed -n 's/^batch.pem: //p' out | tr '\n' ' ')" "good revoked "
step "in use"
ok bash "$examples/usage.sh"
grep -Eq 'yes .*/CN=orders' out || fail "$(cat out)"

# Every step of the folder was run.
expect_equal "steps" "$(find "$examples" -name '*.sh' | wc -l)" 7
