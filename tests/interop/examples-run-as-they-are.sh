#!/bin/bash
# What scripts/examples has runs as it stands there: the commands of its README, nginx and stunnel with a key in the
# TPM for a service that has none, callers and called ones told by certificates; nobody but the unit can use the key.
# bound: 180
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/spaces.sh"
. "$(dirname "$0")/../lib/programs.sh"
. "$(dirname "$0")/../lib/installed.sh"
need_cgroups
in_own_namespaces
in_node --backend tpm2
examples=$top/scripts/examples
make_groups /system.slice/nginx.service /system.slice/system-stunnel.slice/stunnel@sidecar.service
front_ends
as_installed

# The lines of the README's block of that name.
commands() {
    awk -v from="<!-- $1 -->" '$0 == from { on = 1 } $0 == "<!-- end -->" { on = 0 }
        on && /^```sh$/ { code = 1; next } /^```$/ { code = 0 } on && code' "$examples/README.md" | sed -E 's/^\$ //'
}
# in_unit NAME GROUP COMMAND...: in the background, as systemd starts it with csm.conf.
environment=$(sed -n 's/^Environment=//p' "$examples/csm.conf")
in_unit() {
    local name=$1 group=$2
    shift 2
    start "$name" bash -c 'echo $$ >"$0" && exec env "$@"' "$cgroup_root$group/cgroup.procs" "$environment" "$@"
}
call() { curl -sS --max-time 10 --resolve web.example.org:443:127.0.0.1 --cacert trust.pem "$@" https://web.example.org/; }

step "the key and its certificate, by the commands of the README"
cp "$examples/policy.yaml" "$node/policy.yaml"
ok csm policy reload
commands run >run.sh
[ "$(grep -c csm run.sh)" -ge 3 ] || fail "no commands in the README"
bash -eu run.sh >run.out 2>&1 || { cat run.out >&2 && fail "a command of the README"; }
expect_equal "protection" "$(csm key show web:tls --json | json protection)" tpm

step "the service, and the one that it calls"
sed -E 's/^(127\.0\.0\.1.*)/\1 orders.example.org/' /etc/hosts >hosts && cat hosts >/etc/hosts
mv ca.key trust.key
file_key caller trust URI:spiffe://example.org/caller
file_key orders trust DNS:orders.example.org
make_ca other
file_key stranger other URI:spiffe://example.org/caller
start service /usr/bin/python3 "$top/tests/lib/plainservice.py" 8080
service=$started
serves 8080 service
start orders /usr/bin/python3 "$top/tests/lib/plainservice.py" 8443 --tls orders.crt orders.key trust.pem
serves 8443 orders

# What holds for either sidecar: WORD is how strangers are turned away.
both_directions() {
    step "$1: callers with a certificate of the CA are served, and nobody else"
    call --cert caller.crt --key caller.key >got
    grep -qx 'the service' got || fail "an answer: $(cat got)"
    refused call --cert stranger.crt --key stranger.key --fail
    refused call --fail
    step "$1: the service calls others under its own name"
    curl -sS --max-time 10 http://127.0.0.1:8081/ >got-orders
    grep -qx 'peer spiffe://example.org/web' got-orders || fail "what orders saw: $(cat got-orders)"
}
# Whoever has the files and is not in the unit has nothing.
files_alone_are_nothing() {
    step "$1: the files alone sign nothing, not for its own user nor for root"
    for uid in 0 "$(id -u "$2")" $uid_a; do
        refused as_uid "$uid" env "$environment" timeout 20 openssl pkeyutl -sign -rawin -in run.sh -inkey "/etc/$1/tls/key.pem"
    done
    ! grep -rqE 'PRIVATE KEY' "/etc/$1" || fail "a private key in /etc/$1"
}

step "nginx"
commands "run nginx" >run-nginx.sh
bash -eu run-nginx.sh
cp "$examples/nginx/sidecar.conf" /etc/nginx/conf.d/
in_unit nginx /system.slice/nginx.service /usr/sbin/nginx -g 'daemon off;'
serves 443 nginx
both_directions nginx
call --cert caller.crt --key caller.key >got
grep -qx 'certificate spiffe://example.org/caller' got || fail "what the service was told: $(cat got)"
for pid in $(pgrep -P "$started"); do
    expect_equal "a worker's user" "$(stat -c %U "/proc/$pid")" www-data
done
stop
files_alone_are_nothing nginx www-data
step "PKCS#11, in the unit and outside of it"
signs=(timeout 20 p11tool --provider "$p11_module" --test-sign "$(grep -o 'pkcs11:token=[^`]*' "$examples/README.md");type=private")
ok in_group /system.slice/nginx.service "$(id -u www-data)" "${signs[@]}"
refused as_uid "$(id -u www-data)" "${signs[@]}"
refused "${signs[@]}"
step "nginx outside of its unit shakes no hand"
start nginx env "$environment" /usr/sbin/nginx -g 'daemon off;'
serves 443 nginx
refused call --cert caller.crt --key caller.key
stop

step "stunnel"
commands "run nginx" | sed "s/nginx/stunnel/g" >run-stunnel.sh
bash -eu run-stunnel.sh
cp "$examples/stunnel/sidecar.conf" /etc/stunnel/
in_unit stunnel /system.slice/system-stunnel.slice/stunnel@sidecar.service /usr/bin/stunnel4 /etc/stunnel/sidecar.conf
serves 443 stunnel
both_directions stunnel
expect_equal "stunnel's user" "$(stat -c %U "/proc/$started")" stunnel4
stop
files_alone_are_nothing stunnel stunnel4

step "the sidecar for Envoy, with a plain server in Envoy's place"
start envoy /usr/bin/python3 "$top/tests/lib/plainservice.py" 10000 --proxy
serves 10000 envoy
cp "$examples/envoy/sidecar.conf" /etc/stunnel/
in_unit stunnel /system.slice/system-stunnel.slice/stunnel@sidecar.service /usr/bin/stunnel4 /etc/stunnel/sidecar.conf
serves 443 stunnel
both_directions stunnel
grep -qE '^proxy PROXY TCP4 127\.0\.0\.1 127\.0\.0\.1 [0-9]+ 443$' got || fail "the PROXY header: $(cat got)"
stop
stop "$service"

step "the README's questions to the policy"
expect_equal "the unit" "$(csm policy explain key.sign web:tls --as unit=nginx.service --json | json allowed)" true
expect_equal "root" "$(csm policy explain key.sign web:tls --as uid=0 --json | json allowed)" false
