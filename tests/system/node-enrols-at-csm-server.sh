#!/bin/bash
# A node enrols a key at csm-server with a token, by the root's digest alone; the token is spent, and from then on the node's own
# certificate, whose key csmd keeps, speaks for it: it renews and revokes. Neither CA nor node sees the other's keys.
# bound: 120
# coverage
. "$(dirname "$0")/../lib/system.sh"
self=$(realpath "$0")

if [ -n "${CSM_TEST_NODE:-}" ]; then
    trap 'cp "$CSM_NODE_DIR/csmd.log" "$CSM_TEST_NODE/inner.log"' EXIT
    work=$CSM_NODE_DIR/work
    mkdir "$work"
    cd "$work"
    cp "$CSM_TEST_NODE/root.pem" .
    serial() { csm cert show "${1:-web}" --json | json serial; }
    step "enrolled: the certificate is the CA's, for this key and name"
    ok csm key create web
    ok csm cert enrol web
    csm cert show web --json >shown
    expect_equal state "$(json state <shown)" valid
    expect_equal san "$(json san <shown)" '["dns:web.nodes.test"]'
    ok csm cert export web "$PWD/out-web"
    ok openssl verify -CAfile root.pem out-web/cert.pem
    expect_same "whom the profile trusts, by the digest of the root" <(openssl x509 -in root.pem) <(openssl x509 -in out-web/ca.pem)
    expect_equal "the same in meta.json" "$(json anchors.0 <out-web/meta.json)" "$(cat out-web/ca.pem)"
    step "renewed under the node's certificate, the token being spent"
    old=$(serial)
    ok csm cert renew web
    [ "$(serial)" != "$old" ] || fail "the certificate is the same"
    step "an RSA key, whose request is the same each time, gets another one, too"
    ok csm key create rsa --alg rsa2048
    ok csm cert enrol rsa
    first=$(serial rsa)
    ok csm cert renew rsa
    [ "$(serial rsa)" != "$first" ] || fail "the certificate is the one before"
    step "a second key needs no token; a name that the profile has not, is refused"
    ok csm key create other
    ok csm cert enrol other
    ok csm key create third
    expect_exit 3 csm cert enrol third --san dns:third.elsewhere.test
    csm cert enrol third --profile stale 2>err && fail "a certificate by a token that nobody made"
    grep -qF "of the profile stale: the CA does not take the token of $CSM_TEST_NODE/stale: " err || fail "which token: $(cat err)"
    step "other names for the node itself are taken as long as it has no certificate"
    sed -i "s|$CSM_TEST_NODE/stale|$CSM_TEST_NODE/late|; /^    stale:/,\$ s/node-1/node-9/g" "$CSM_NODE_DIR/csmd.yaml"
    node_csmd_stop "$CSM_NODE_DIR"
    node_csmd_start "$CSM_NODE_DIR" || fail "csmd does not start: $(tail -n 5 "$CSM_NODE_DIR/csmd.log")"
    ok csm cert enrol third --profile stale
    step "the same by EST"
    ok csm key create est
    ok csm cert enrol est --profile est
    ok csm cert renew est
    expect_equal state "$(csm cert show est --json | json state)" valid
    step "revoked"
    serial=$(serial)
    ok csm cert revoke web
    expect_equal state "$(csm cert show web --json | json state)" revoked
    expect_exit 7 csm ca cert revoke "$serial"
    ok csm ca cert revoke "$old"
    exit 0
fi

in_node --backend soft
# shellcheck source=tests/lib/ca.sh
. "$top/tests/lib/ca.sh"
# shellcheck disable=SC2119 # the profiles that are there by themselves
ca_start
export CSM_SERVER_ADMIN_SOCKET=$ca/admin.sock
ok csm ca init --subject "/CN=test CA" --admin "$work/admin" -o root.pem
for name in est token; do
    # two profiles, one node: a token for any name would not get the other's
    token=$(csm token create --profile node --name cn:node-1 --name dns:node-1.nodes.test) || fail "no token"
    printf '%s' "$token" >$name
    chmod 600 $name
done
(umask 077 && csm token create --profile node --name cn:node-9 --name dns:node-9.nodes.test -o late) || fail "no token"
(umask 077 && echo nobody-made-this-token-0123456789-abcdefgh >stale)
digest=$(openssl x509 -in root.pem -outform DER | sha256sum | cut -d' ' -f1)
{
    printf 'enrolment:\n  profiles:\n'
    for profile in default:cms:token est:est:est stale:cms:stale; do
        cat <<YAML
    ${profile%%:*}:
      protocol: $(cut -d: -f2 <<<"$profile")
      url: https://localhost:$port
      root_sha256: "$digest"
      token: file:$work/${profile##*:}
      label: default
      subject: "/CN={name}.nodes.test"
      san: ["dns:{name}.nodes.test"]
      node: {label: node, subject: "/CN=node-1", san: ["dns:node-1.nodes.test"]}
YAML
    done
} >csmd.yaml
"$top/scripts/with-node.sh" --backend soft --config csmd.yaml -- env CSM_TEST_NODE="$work" "$self" || {
    cat "$ca/log" inner.log >&2
    fail "as above"
}

step "the token is spent, and in no log"
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=thief -keyout thief.key -out thief.csr 2>openssl.log
py -c 'import json; print(json.dumps({"csr": open("thief.csr").read(), "profile": "node"}))' >thief.json
status=$(curl -s -m 20 -o answer -w '%{http_code}' --cacert root.pem -H "Authorization: Bearer $token" \
    -H 'Content-Type: application/json' --data @thief.json "https://localhost:$port/v1/cms/certificates")
case $status in 401 | 403) ;; *) fail "a spent token: $status: $(cat answer)" ;; esac
[ "${#token}" -gt 20 ] || fail "the token is '$token'"
! grep -rqF -- "$token" "$ca/log" inner.log "$node/csmd.log" || fail "the token is in a log"
