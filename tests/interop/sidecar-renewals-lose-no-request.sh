#!/bin/bash
# The sidecars of the examples (nginx and stunnel, the key in the TPM) enrol at csm-server and are renewed by csmd, with csm-deliver's
# folder and reload: while wrk opens a new connection for each request, in both directions, no request fails by wrk's own count, and
# each new certificate is served within five seconds of its renewal. A sidecar that is stopped and started in place of it fails by it.
# bound: 180
# alone
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/spaces.sh"
. "$(dirname "$0")/../lib/programs.sh"
. "$(dirname "$0")/../lib/installed.sh"
need_cgroups
in_own_namespaces
in_node --backend tpm2 --server
examples=$top/scripts/examples
group=/system.slice/nginx.service
stunnel_group=/system.slice/system-stunnel.slice/stunnel@sidecar.service
make_groups $group $stunnel_group
front_ends
as_installed
# Its processes may read the /etc that was there when they began.
node_csmd_stop "$node"
node_csmd_start "$node" || fail "csmd does not start again"
environment=$(sed -n 's/^Environment=//p' "$examples/csm.conf")

step "the examples' files, a certificate of csm-server's, and csm-deliver's folder"
cp "$examples/policy.yaml" "$node/policy.yaml"
ok csm policy reload
cp "$CSM_CACERT" /etc/nginx/trust.pem
ok csm key create web:tls
ok csm cert enrol web:tls --subject /CN=web --san dns:web.example.org --san uri:spiffe://example.org/web
# What systemd does for `systemctl`: csm-deliver's own words for it, and the ExecReload of the unit: that of Debian's nginx.service,
# and the one in the example's file for stunnel.
reload=$(sed -n 's/^ExecReload=//p' "$examples/stunnel/reload.conf")
cat >systemctl <<SH2
#!/bin/bash
case "\$*" in
"--quiet --no-ask-password is-active -- nginx.service") test -s /run/nginx.pid || exit 3 ;;
"--quiet --no-ask-password reload -- nginx.service")
    echo \$\$ >$cgroup_root$group/cgroup.procs && exec env $environment /usr/sbin/nginx -g 'daemon off;' -s reload ;;
"--quiet --no-ask-password is-active -- stunnel@sidecar.service") test -s $work/stunnel.pid || exit 3 ;;
"--quiet --no-ask-password reload -- stunnel@sidecar.service")
    export MAINPID=\$(cat $work/stunnel.pid) && $reload ;;
*) exit 1 ;;
esac
SH2
chmod 0755 systemctl
mount --bind systemctl /usr/bin/systemctl
cp "$examples/deliver/deliver.yaml" "$node/deliver.yaml"
ok csm policy reload
node_await 20 test -s /etc/nginx/tls/fullchain.pem || fail "nothing was delivered: $(status_field deliveries)"

step "the sidecar, whose service it calls under its own name is itself"
sed -E 's/^(127\.0\.0\.1.*)/\1 web.example.org orders.example.org/' /etc/hosts >hosts && cat hosts >/etc/hosts
sed 's/https:\/\/orders.example.org:8443/https:\/\/web.example.org:443/' "$examples/nginx/sidecar.conf" >/etc/nginx/conf.d/sidecar.conf
# wrk has no certificate to show: for it the incoming half once more, without the demand for one, and without tickets, which it
# would take: each connection is a whole handshake.
sed -n '/^# Incoming/,/^}/p' "$examples/nginx/sidecar.conf" | sed 's/listen 443/listen 444/; /ssl_verify_client/d
    /ssl_protocols/i access_log /var/log/nginx/direct.log direct; ssl_session_tickets off;' >direct
grep -q 'listen 444' direct || fail "no incoming half in the example"
printf "log_format direct '\$connection_requests';\n" | cat - direct >/etc/nginx/conf.d/direct.conf
rm -f /etc/nginx/sites-enabled/*
start service /usr/bin/python3 "$top/tests/lib/plainservice.py" 8080
serves 8080 service
begin() {
    start nginx bash -c 'echo $$ >"$0" && exec env "$@"' "$cgroup_root$group/cgroup.procs" "$environment" /usr/sbin/nginx -g 'daemon off;'
    nginx=$started
    serves 444 nginx
}
begin
served() { # the serial number of what a new connection gets, verified
    timeout 10 openssl s_client -connect web.example.org:444 -servername web.example.org -CAfile /etc/nginx/trust.pem \
        -verify_return_error </dev/null 2>/dev/null >shaken && openssl x509 -noout -serial <shaken | cut -d= -f2
}
serial() { csm cert show web:tls --json | json serial | tr a-f A-F; }
is_served() { [ "$(served)" = "$1" ]; }
is_served "$(serial)" || fail "'$(served)' is served, not $(serial)"

# load NAME URL: wrk, until it is interrupted; its report is NAME.log then.
load() {
    start "$1" wrk --threads 1 --connections 4 --duration 600s --timeout 20s --header 'Connection: close' "$2"
    loads+=("$started")
}
end_loads() {
    local pid
    for pid in "${loads[@]}"; do
        ! node_gone "$pid" || fail "wrk was gone before the end: $(cat direct.log outgoing.log)"
        kill -INT "$pid"
        node_await 30 node_gone "$pid" || fail "wrk goes on"
    done
    loads=()
}
# By wrk's report: it prints a line of errors where there is one.
requests() { sed -nE 's/^ *([0-9]+) requests in .*/\1/p' "$1.log"; }
lossless() { [ "$(requests "$1")" -gt 0 ] && ! grep -qE 'Socket errors|Non-2xx' "$1.log"; }
more_than() { # BEFORE: of both loads
    answered | paste -sd ' ' - >now
    read -r direct outgoing <now
    [ "$direct" -gt "${1% *}" ] && [ "$outgoing" -gt "${1#* }" ]
}
go_on() { # while the sidecar is as it is now, requests of both loads come and are answered
    local before
    before=$(answered | paste -sd ' ' -)
    node_await 20 more_than "$before" || fail "no requests: $(answered | xargs)"
}
loads=()
rounds=$(count 3 100)

# Under the load of both, which begins before the first and ends after the last, and of which some is answered before and after
# each; `answered` says how many requests each has had so far.
renewals() { # ROUNDS
    local began took round
    load direct https://web.example.org:444/
    load outgoing http://127.0.0.1:8081/
    for ((round = 1; round <= $1; round++)); do
        go_on
        began=$(date +%s%N)
        ok csm cert renew web:tls
        wanted=$(serial)
        node_await 20 is_served "$wanted" || fail "$wanted is not served: $(status_field deliveries; tail -n 8 stunnel.log 2>&1)"
        took=$((($(date +%s%N) - began) / 1000000))
        echo "certificate $round after $took ms"
        [ "$took" -lt 5000 ] || fail "certificate $wanted was served after $took ms"
        go_on
    done
    end_loads
    for name in direct outgoing; do
        lossless $name || { cat $name.log >&2 && fail "$name: requests failed"; }
        echo "$name: $(requests $name) requests, none failed"
    done
}

step "nginx: $rounds renewals, one after the other, under load"
# by the half that wrk calls, and by both halves in a row
answered() { wc -l </var/log/nginx/direct.log && wc -l </var/log/nginx/access.log; }
signatures=$(csm key show web:tls --json | json signatures)
renewals "$rounds"
expect_equal "requests of a connection" "$(sort -u /var/log/nginx/direct.log)" 1
# Each is a whole handshake with the node's key; whom the outgoing half calls saw its certificate.
signed=$(($(csm key show web:tls --json | json signatures) - signatures))
[ $signed -ge "$(requests direct)" ] || fail "$signed signatures for $(requests direct) connections"

step "a configuration that nginx refuses: the certificate before goes on being served"
wanted=$(serial)
echo 'nonsense' >/etc/nginx/conf.d/wrong.conf
ok csm cert renew web:tls
failed() { [ "$(status_field deliveries | json 0.state)" = failed ]; }
node_await 20 failed || fail "not failed: $(status_field deliveries)"
is_served "$wanted" || fail "'$(served)' is served, not $wanted"
expect_equal "in the folder" "$(json serial </etc/nginx/tls/meta.json | tr a-f A-F)" "$wanted"
rm /etc/nginx/conf.d/wrong.conf

step "the count can be other than nought: stopped and started in place of reloaded"
load direct https://web.example.org:444/
before=$(wc -l </var/log/nginx/direct.log)
comes() { [ "$(wc -l </var/log/nginx/direct.log)" -gt "$before" ]; }
node_await 20 comes || fail "no requests"
stop "$nginx"
begin
end_loads
grep -q 'Socket errors: connect' direct.log || fail "wrk does not count what failed: $(cat direct.log)"
! lossless direct || fail "taken for lossless: $(cat direct.log)"
stop "$nginx"

step "stunnel: $((rounds / 2)) renewals under load"
cp "$examples/deliver/stunnel.yaml" "$node/deliver.yaml"
ok csm policy reload
node_await 20 test -s /etc/stunnel/tls/fullchain.pem || fail "nothing was delivered: $(status_field deliveries)"
cp "$CSM_CACERT" /etc/stunnel/trust.pem
# As for nginx; its own part for wrk is named `direct`.
sed 's/orders.example.org:8443/web.example.org:443/; s/^checkHost = .*/checkHost = web.example.org/' "$examples/stunnel/sidecar.conf" \
    >/etc/stunnel/sidecar.conf
sed -n '/^\[incoming/,/^$/p' "$examples/stunnel/sidecar.conf" |
    sed 's/incoming/direct/; s/^accept = 443/accept = 444/; /^requireCert/d; /^verifyChain/d' >>/etc/stunnel/sidecar.conf
# What systemd does for the example's socket unit: its sockets, and the one for wrk, are there before stunnel.
sockets=()
for listen in $(sed -n 's/^ListenStream=//p' "$examples/stunnel/sidecar.socket") 444; do sockets+=(--listen "$listen"); done
start stunnel bash -c 'echo $$ >"$0" && exec env "$@"' "$cgroup_root$stunnel_group/cgroup.procs" "$environment" \
    systemd-socket-activate "${sockets[@]}" --setenv OPENSSL_CONF --setenv PATH /usr/bin/stunnel4 /etc/stunnel/sidecar.conf
echo "$started" >stunnel.pid
serves 444 stunnel
answered() {
    grep -c 'Service \[direct\] accepted' stunnel.log || true
    grep -c 'Service \[outgoing\] accepted' stunnel.log || true
}
renewals $((rounds / 2))

