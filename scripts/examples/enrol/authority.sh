#!/bin/bash
# The authority: its root certificate, and what it has issued so far.
set -euo pipefail
csm ca show -o ca.pem
openssl x509 -in ca.pem -noout -subject -dates
csm ca cert list
