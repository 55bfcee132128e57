#!/bin/bash
# A node enrols at an EST server that shares no code with csm: with a password the first time, with its own certificate from then on;
# the certificate verifies, is renewed, and a server that refuses or gives another key's changes nothing.
# bound: 90
. "$(dirname "$0")/../lib/system.sh"
if [ -z "${CSM_TEST_INSIDE:-}" ]; then
    folder=$(mktemp -d "${TMPDIR:-/tmp}/csm-est.XXXXXX")
    mkdir "$folder/est"
    mkfifo "$folder/end"
    py "$top/tests/interop/est_server.py" "$folder/est" <"$folder/end" 2>/dev/null &
    server=$!
    exec 9>"$folder/end"
    trap 'exec 9>&-; wait $server || true; rm -rf "$folder"' EXIT
    node_await 20 test -e "$folder/est/port" || fail "est_server.py does not start"
    printf 'estuser:estpwd' >"$folder/token"
    chmod 600 "$folder/token"
    for profile in default:leaf other:other refuse:refuse; do
        cat <<YAML
    ${profile%:*}:
      protocol: est
      url: https://127.0.0.1:$(cat "$folder/est/port")
      anchors: $folder/est/root.pem
      token: file:$folder/token
      label: ${profile#*:}
      subject: "/CN={name}"
      san: ["dns:{name}.example.org"]
YAML
    done >"$folder/profiles"
    { printf 'enrolment:\n  profiles:\n' && cat "$folder/profiles"; } >"$folder/csmd.yaml"
    "$top/scripts/with-node.sh" --backend soft --config "$folder/csmd.yaml" -- \
        env CSM_TEST_INSIDE="$(realpath "$0")" CSM_TEST_FOLDER="$folder" "$0" 9>&-
    exit
fi
in_node --backend soft
folder=$CSM_TEST_FOLDER
log() { cat "$folder/est/log"; }

step "enrolled, and renewed"
ok csm key create web
ok csm cert enrol web
serial=$(csm cert show web --json | json serial)
expect_equal san "$(csm cert show web --json | json san)" '["dns:web.example.org"]'
ok csm cert export web "$PWD/web"
ok openssl verify -CAfile "$folder/est/root.pem" -untrusted web/chain.pem web/cert.pem
ok csm cert renew web
[ "$(csm cert show web --json | json serial)" != "$serial" ] || fail "the certificate is the same"
[ "$(log | grep -c 'enroll cert 200')" -ge 2 ] || fail "$(log)"

step "what the server gives in place of it is not taken, and why is told"
not_taken() { # PROFILE WHY
    ok csm key create "$1"
    if csm cert enrol "$1" --profile "$1" >out 2>err; then fail "$1: enrolled"; fi
    csm cert show "$1" --json >shown
    expect_equal "$1: state" "$(json state <shown)" pending
    grep -qF "$2" shown || fail "$1: $(cat shown)"
}
not_taken other "no certificate for the key"
not_taken refuse "not?[31m you"
expect_equal "times that the password was sent, by three profiles" "$(log | grep -c 'enroll basic 200')" 3
