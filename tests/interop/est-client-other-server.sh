#!/bin/bash
# csm-enrol enrols and renews at an EST server that shares no code with csm, in every form that RFC 7030 and 8951 permit, by TLS
# 1.2 and 1.3 with client keys of every kind; each refusal and each answer that is none is told as what it is.
# bound: 60
# coverage
. "$(dirname "$0")/../lib/system.sh"
work=$(mktemp -d) && cd "$work"
trap 'rm -rf "$work"' EXIT
py "$top/tests/interop/est_client.py" "$node_build/bin/csm-enrol" "$top/tests/interop/est_server.py"
