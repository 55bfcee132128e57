#!/bin/bash
# A certificate comes from a foreign EST server by csm-enrol, for a key that nobody but csmd has; what is for another key is
# refused and the old one stays; the server being away, or waiting for a person, is told and changes nothing; it is renewed
# and watched; a node's own key serves nobody.
# bound: 90
# coverage
here=$(dirname "$0")
if [ -z "${CSM_TEST_INSIDE:-}" ]; then
    folder=$(mktemp -d "${TMPDIR:-/tmp}/csm-est.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
    mkfifo "$folder/in"
    /usr/bin/python3 "$here/../interop/est_server.py" "$folder" <"$folder/in" &
    exec 9>"$folder/in"
    for _ in $(seq 100); do [ -s "$folder/port" ] && break; sleep 0.1; done
    # one that takes connections and says nothing
    /usr/bin/python3 - "$folder/silent" 3<"$folder/in" 9>&- <<'PY' &
import os, socket, sys
s = socket.create_server(("127.0.0.1", 0))
with open(sys.argv[1] + ".tmp", "w") as f:
    f.write(str(s.getsockname()[1]))
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
os.read(3, 1)
PY
    for _ in $(seq 100); do [ -s "$folder/silent" ] && break; sleep 0.1; done
    port=$(cat "$folder/port")
    (umask 077 && echo "estuser:estpwd" >"$folder/token")
    {
        printf 'enrolment:\n  profiles:\n'
        for label in good other wait; do
            printf '    %s: {protocol: est, url: "https://127.0.0.1:%s", anchors: "%s/root.pem", token: "file:%s/token", ' \
                "$label" "$port" "$folder" "$folder"
            [ "$label" = good ] || printf 'label: %s, ' "$label"
            printf 'subject: "/CN={name}", names: ["dns:*.csm.test", "/CN=w*"], node: {subject: "/CN=node-%s"}, timeout: 10s}\n' "$label"
        done
        printf '    hang: {protocol: est, url: "https://127.0.0.1:%s", anchors: "%s/root.pem", token: "file:%s/token", timeout: 20s}\n' \
            "$(cat "$folder/silent")" "$folder" "$folder"
        printf '    away: {protocol: est, url: "https://127.0.0.1:1", anchors: "%s/root.pem", token: "file:%s/token"}\n' "$folder" "$folder"
        printf '    pinned: {protocol: est, url: "https://127.0.0.1:%s", root_sha256: "%s", token: "file:%s/token"}\n' "$port" \
            "$(sha256sum "$folder/root.der" | cut -d' ' -f1)" "$folder"
    } >"$folder/csmd.yaml"
    "$here/../../scripts/with-node.sh" --backend soft --config "$folder/csmd.yaml" -- \
        env CSM_TEST_INSIDE="$(realpath "$0")" EST_FOLDER="$folder" "$0"
    status=$?
    exec 9>&-
    wait
    exit $status
fi
. "$here/../lib/system.sh"
in_node --backend soft
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
serial() { csm --json cert show "$1" | json serial; }
field() { csm --json cert show "$1" | json "$2"; }

step "a certificate for a key that stays where it is"
csm key create web >/dev/null
csm cert enrol web --profile good --san dns:www.csm.test >/dev/null || fail "no certificate"
csm cert export web "$work/web"
openssl verify -CAfile "$EST_FOLDER/root.pem" -untrusted "$work/web/fullchain.pem" "$work/web/cert.pem" >/dev/null ||
    fail "openssl does not verify it"
expect_equal state "$(field web state)" valid
expect_equal names "$(field web san.0)" dns:www.csm.test
openssl x509 -in "$work/web/cert.pem" -noout -pubkey | cmp -s - <(csm key public web) || fail "it is for another key"
grep -q "POST /.well-known/est/simpleenroll basic 200" <(awk '{print $2, $3, $4, $5}' "$EST_FOLDER/log") || fail "the node did not show its token"
grep -q "POST /.well-known/est/simpleenroll cert 200" <(awk '{print $2, $3, $4, $5}' "$EST_FOLDER/log") ||
    fail "the node did not show its certificate"

step "renewed, and who watches is told"
old=$(serial web)
csm cert renew web >/dev/null || fail "not renewed"
[ "$(serial web)" != "$old" ] || fail "the certificate is the old one"

step "what is for another key is refused: the old one stays"
old=$(serial web)
csm cert enrol web --profile other --san dns:www.csm.test >/dev/null 2>"$work/err" && fail "another key's certificate was taken"
grep -q "no certificate for the key" "$work/err" || fail "it is not told why: $(cat "$work/err")"
expect_equal serial "$(serial web)" "$old"

step "while a server hangs, nothing here waits"
csm key create signer >/dev/null
timeout 1 csm cert enrol signer --profile hang >/dev/null 2>&1 && fail "a certificate from a server that says nothing"
: >"$work/in"
for _ in $(seq 40); do
    timeout 3 csm sign signer -o "$work/sig" "$work/in" || fail "a signature waits for the CA"
done
timeout 3 csm cert show web >/dev/null || fail "a look at a certificate waits for the CA"

step "a server that is away, and one where a person has to look"
csm key create lone >/dev/null
for profile in away wait; do
    csm cert enrol lone --profile $profile >/dev/null 2>"$work/err" && fail "$profile: a certificate from nowhere"
    expect_equal "$profile: state" "$(field lone state)" pending
    [ -n "$(field lone last_error)" ] || fail "$profile: no reason is told"
    [ "$(field lone next_try)" -gt "$(date +%s)" ] || fail "$profile: it is not tried again"
done
csm cert show lone >"$work/shown"
grep -qE '^next_try: +20[0-9-]+T[0-9:]+Z$' "$work/shown" || fail "the next try is no date: $(cat "$work/shown")"
grep -qE '^not_after: +none$' "$work/shown" || fail "an end of what there is not: $(cat "$work/shown")"
csm cert enrol lone --profile away >/dev/null 2>"$work/err" && fail "a certificate from nowhere"
grep -q 'the profile away: ' "$work/err" || fail "which profile: $(cat "$work/err")"

told() { # PROFILE FIELD
    csm --json --socket "$CSM_ADMIN_SOCKET" status | py -c 'import json, sys
print(*[p[sys.argv[2]] for p in json.load(sys.stdin)["enrolment"] if p["name"] == sys.argv[1]])' "$@"
}
expect_equal "state of the profile" "$(told good state)" ready
expect_equal "state of the profile that is away" "$(told away state)" waiting
[ -n "$(told away error)" ] || fail "status does not tell why a profile waits"

step "trust at the first contact, by the hash of the root"
csm key create pin >/dev/null
csm cert enrol pin --profile pinned >/dev/null || fail "not by the hash of the root: $(field pin last_error)"
expect_equal state "$(field pin state)" valid

step "names that the profile does not give"
csm cert enrol web --profile good --san dns:www.evil.test >/dev/null 2>&1 && fail "a name that the profile does not allow"
csm cert enrol web --profile good --subject /CN=root >/dev/null 2>&1 && fail "a subject that the profile does not allow"

step "the node's own key serves nobody"
expect_exit 3 csm sign csm:good /dev/null
expect_exit 3 csm key create csm:mine
expect_exit 3 csm cert enrol csm:good --profile good
