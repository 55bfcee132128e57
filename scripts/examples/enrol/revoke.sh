#!/bin/bash
# A certificate is taken back: the list of revoked ones has it, and OCSP says so.
set -euo pipefail
serial=$(openssl x509 -in batch.pem -noout -serial | cut -d= -f2)
ocsp=$(openssl x509 -in batch.pem -noout -ocsp_uri)
openssl ocsp -issuer ca.pem -CAfile ca.pem -cert batch.pem -url "$ocsp"
csm ca cert revoke "$serial" --reason keyCompromise
sleep 2
openssl ocsp -issuer ca.pem -CAfile ca.pem -cert batch.pem -url "$ocsp"
csm ca crl -o crl.pem
openssl crl -in crl.pem -noout -text | grep -A 4 "$serial"
if openssl verify -CAfile ca.pem -CRLfile crl.pem -crl_check batch.pem; then exit 1; fi
