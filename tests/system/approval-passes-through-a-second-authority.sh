#!/bin/bash
# A csm-server whose issuer is another csm-server, asked over EST: where a person has to approve there, who asks here waits,
# and has the certificate once it was approved; what was denied is told with the reason.
# bound: 150
. "$(dirname "$0")/../lib/system.sh"
self=$(realpath "$0")

if [ -n "${CSM_TEST_OUTER:-}" ]; then
    outer=$CSM_TEST_OUTER
    work=$CSM_NODE_DIR/work
    mkdir -p "$work"
    chmod 1777 "$work"
    cd "$work"
    # shellcheck source=tests/lib/ca.sh
    . "$top/tests/lib/ca.sh"
    ca_start "issuers:
  default: {key: ca}
  outer: {external: outer, chain: $outer/root.pem}
  prompt: {external: prompt, chain: $outer/root.pem}
profiles:
  default: {subject: {CN: '*'}, san: ['dns:**']}
  outer: {issuer: outer, subject: {CN: '*'}, san: ['dns:**']}
  prompt: {issuer: prompt, subject: {CN: '*'}, san: ['dns:**']}"
    # shellcheck disable=SC2119 # options of its own: none
    ca_init
    at_outer() { CSM_SERVER_ADMIN_SOCKET=$outer/ca/admin.sock csm ca request "$@"; }
    want() { send POST /v1/cms/certificates csr "@$ca/$1.csr" profile outer; }
    # until the outer authority has the request
    asked() {
        want "$1" && got 202
        for _ in $(seq 100); do
            id=$(at_outer list | sed -n "s/^\([0-9a-f]\{32\}\) .*CN=$1 .*/\1/p")
            [ -z "$id" ] || return 0
            want "$1" && got 202
            sleep 0.2
        done
        fail "the outer authority was not asked: $(cat "$ca/log")"
    }
    answered() {
        for _ in $(seq 100); do
            want "$1"
            [ "$(cat "$ca/status")" = 202 ] || return 0
            sleep 0.2
        done
        fail 'it waits for ever'
    }
    step "a node's own request waits, which is no failure"
    ok csm key create own
    expect_exit 6 csm cert enrol own --profile outer --subject /CN=own --san dns:own.example
    csm cert show own --json >shown
    expect_equal 'its state' "$(json state <shown)" pending
    grep -q '"attempts": 0' shown || fail "attempts: $(cat shown)"
    grep -q 'waits for an approval' shown || fail "it does not say so: $(cat shown)"
    id=$(at_outer list | sed -n 's/^\([0-9a-f]\{32\}\) .*CN=own .*/\1/p')
    ok at_outer approve "$id"
    step "approved there, issued here"
    csr web web DNS:web.example
    t=$(token any_name :true profile outer)
    as_token "$t"
    asked web
    now_issued
    ok at_outer approve "$id"
    answered web && got 201
    field certificate >"$ca/web.pem"
    serial=$(field serial)
    ok openssl verify -CAfile "$outer/root.pem" "$ca/web.pem"
    answered web && got 201
    expect_equal 'asked again' "$(field serial)" "$serial"
    expect_equal 'certificates' "$(issued)" "$((count_before + 1))"
    step "denied there, and told here"
    csr shop shop DNS:shop.example
    why="no shops: $(printf 'whoever sells has to ask the other authority %.0s' 1 2 3), and that is all"
    as_admin
    asked shop
    ok at_outer deny "$id" "$why"
    now_issued
    answered shop
    refused 403 "$why"
    step "more in a minute than may wait, one after the other"
    as_admin
    now_issued
    for i in $(seq 35); do
        csr "many$i" "many$i" "DNS:many$i.example"
        send POST /v1/cms/certificates csr "@$ca/many$i.csr" profile prompt && got 201
    done
    expect_equal 'certificates' "$(issued)" "$((count_before + 35))"
    step "the node has asked again by itself"
    is_valid() { [ "$(csm cert show own --json | json state)" = valid ]; }
    node_await 60 is_valid || fail "$(csm cert show own)"
    step "one that hangs leaves places to others"
    json_of csr "@$ca/web.csr" profile outer >"$ca/hangs.json"
    for i in $(seq 28); do token any_name :true profile outer; done >"$ca/tokens"
    kill -STOP "$CSM_TEST_OUTER_PID"
    clients=()
    while read -r t; do
        as_token "$t"
        curl -sS -m 60 "${who[@]}" -H 'Content-Type: application/json' -o /dev/null -w '%{http_code}\n' --data-binary @"$ca/hangs.json" \
            "$base/v1/cms/certificates" >"$ca/hangs.${#clients[@]}" &
        clients+=($!)
    done <"$ca/tokens"
    wait "${clients[@]}"
    expect_equal 'answers' "$(sort "$ca"/hangs.[0-9]* | uniq -c | tr -s ' \n' ' ')" ' 24 202 4 429 '
    as_admin
    send POST /v1/cms/certificates csr "@$ca/web.csr" profile prompt && got 202
    kill -CONT "$CSM_TEST_OUTER_PID"
    exit 0
fi

in_node --backend soft
# shellcheck source=tests/lib/ca.sh
. "$top/tests/lib/ca.sh"
ca_start 'profiles:
  node: {role: node, subject: {CN: "*"}, san: ["dns:**"]}
  slow: {approval: manual, ask: [node], subject: {CN: "*"}, san: ["dns:**"]}
  prompt: {ask: [node], subject: {CN: "*"}, san: ["dns:**"]}'
read -r outer_pid <"$ca/pid"
trap 'kill -CONT $outer_pid; ca_stop' EXIT
export CSM_SERVER_ADMIN_SOCKET=$ca/admin.sock
ok csm ca init --subject "/CN=outer CA" --admin "$work/admin" -o root.pem
csm token create --profile node --name cn:proxy >secret
csm token create --profile node --name cn:proxy2 >secret2
chmod 600 secret secret2
cat >csmd.yaml <<YAML
enrolment:
  profiles:
    outer:
      protocol: est
      url: https://localhost:$port
      anchors: $work/root.pem
      token: file:$work/secret
      label: slow
      subject: "/CN={name}"
      names: ["/CN=*", "dns:**"]
      node: {label: node, subject: "/CN=proxy"}
    prompt:
      protocol: est
      url: https://localhost:$port
      anchors: $work/root.pem
      token: file:$work/secret2
      label: prompt
      subject: "/CN={name}"
      names: ["/CN=*", "dns:**"]
      node: {label: node, subject: "/CN=proxy2"}
YAML
"$top/scripts/with-node.sh" --backend soft --config csmd.yaml -- env CSM_TEST_OUTER="$work" CSM_TEST_OUTER_PID="$outer_pid" "$self" || {
    cat "$ca/log" >&2
    fail "as above"
}
