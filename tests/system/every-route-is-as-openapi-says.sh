#!/bin/bash
# Every route of csm-server does what it is there for, and says no to nobody in particular; what is sent and what is answered is as
# openapi.yaml has it.
. "$(dirname "$0")/../lib/system.sh"
in_node --backend soft
# shellcheck source=tests/lib/ca.sh
. "$top/tests/lib/ca.sh"

plain=$(ca_port)
ca_start "public_listen: \"127.0.0.1:$plain\"
public_url: http://localhost:$plain
issuers: {default: {key: ca}, under: {key: under-ca}}
profiles:
  default: {subject: {CN: \"*\"}, san: [\"dns:**\"]}
  web: {subject: {CN: \"*\"}, san: [\"dns:**\"], keys: [p384]}
  node: {role: node, subject: {CN: \"*\"}, san: [\"dns:**\"]}
  manual: {subject: {CN: \"*\"}, san: [\"dns:**\"], approval: manual}"
# shellcheck disable=SC2119 # nothing more is asked
ca_init
"$node_build/bin/csm-server" --routes >routes
py "$top/tests/system/every_route.py" "$top/proto-spec/openapi.yaml" routes "$ca" "$port" "$plain"
