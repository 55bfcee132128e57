#!/bin/bash
# All that csm-enrol can do at a time hangs at a CA: in its connections, in TLS, the head, the body, at a byte a second. A
# client of csmd signs on meanwhile: each request is answered, none after more than 250 ms. Prints how much its p99 grows,
# as `make bench` does.
# alone
. "$(dirname "$0")/../lib/system.sh"
if [ -z "${CSM_TEST_INSIDE:-}" ]; then
    folder=$(mktemp -d "${TMPDIR:-/tmp}/csm-hang.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
    ports="$(node_free_port) $(node_free_port)"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=root -days 2 -keyout "$folder/root.key" \
        -out "$folder/root.pem" -addext basicConstraints=critical,CA:TRUE 2>"$folder/err" || fail "$(cat "$folder/err")"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=server -days 2 -keyout "$folder/key.pem" \
        -CA "$folder/root.pem" -CAkey "$folder/root.key" -addext basicConstraints=critical,CA:FALSE \
        -addext subjectAltName=IP:127.0.0.1 -out "$folder/good.pem" 2>"$folder/err" || fail "$(cat "$folder/err")"
    printf token >"$folder/token"
    chmod 600 "$folder/token"
    {
        printf 'enrolment:\n  profiles:\n'
        for i in 0 1 2 3; do
            for profile in "p$i: {url: \"https://127.0.0.1:${ports% *}\"" "c$i: {url: \"https://127.0.0.1:${ports#* }\""; do
                echo "    $profile, protocol: cms, anchors: $folder/root.pem, token: \"file:$folder/token\", timeout: 80s}"
            done
        done
    } >"$folder/csmd.yaml"
    "$top/scripts/with-node.sh" --backend soft --config "$folder/csmd.yaml" -- \
        env CSM_TEST_INSIDE="$(realpath "$0")" CSM_TEST_FOLDER="$folder" CSM_TEST_PORTS="$ports" "$0"
    exit
fi
in_node --backend soft
cd "$CSM_TEST_FOLDER"
# shellcheck disable=SC2086 # two ports
py "$top/tests/system/hanging_ca.py" $CSM_TEST_PORTS "$node_build/tests/bench/load" "$(count 1 6)"
