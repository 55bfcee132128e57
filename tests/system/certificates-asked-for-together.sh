#!/bin/bash
# Certificates that are asked for at the same time come out as if one after the other: each request has its own answer, whatever becomes of
# those that are served with it. One token gives one; the same request twice is one certificate; what is refused, here or by csmd, waits
# for a person, or comes from who goes away, changes nothing for others; a csmd that is slow, or dies, loses nobody's answer.
# bound: 90
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
# shellcheck source=tests/lib/ca.sh
. "$top/tests/lib/ca.sh"

ca_start 'profiles:
  default: {subject: {CN: "*"}, san: ["dns:**"]}
  byhand: {subject: {CN: "*"}, san: ["dns:**"], approval: manual}
  other: {subject: {CN: "*"}, san: ["dns:**"], issuer: second}
issuers: {default: {key: ca}, second: {key: second-ca}}'
# csmd lets the key issue for less than the profile does
ca_init max_life :864000
as_local
send POST /v1/cms/ca subject /O=Example/CN=Second issuer second
got 201
csr web web.example DNS:web.example
py "$top/tests/system/certificates_together.py" "$ca" "$port" "$(cat "$ca/pid")" "$CSM_PID" "$(count 4 100)" >told 2>&1 ||
    { cat told "$ca/log" >&2 && fail "see above"; }
step "$(tail -n 1 told)"
