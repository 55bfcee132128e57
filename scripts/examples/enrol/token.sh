#!/bin/bash
# A certificate for somebody without csm: all that is needed is a token, which is good for one certificate of these names.
set -euo pipefail
csm token create --name dns:batch.example.org --ttl 10m -o token
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout batch.key -subj /CN=batch.example.org \
    -addext subjectAltName=DNS:batch.example.org -outform DER -out batch.csr 2>/dev/null
# The password goes by a file, so that no list of processes shows it.
printf 'user = ":%s"\n' "$(cat token)" >curl.conf
openssl base64 -in batch.csr | curl -sSf -K curl.conf --cacert ca.pem -H 'Content-Type: application/pkcs10' \
    --data-binary @- "$CSM_SERVER/.well-known/est/simpleenroll" >batch.p7
openssl base64 -d -in batch.p7 | openssl pkcs7 -inform DER -print_certs -out batch.pem
openssl verify -CAfile ca.pem batch.pem
# A second time it is worth nothing.
if openssl base64 -in batch.csr | curl -sSf -K curl.conf --cacert ca.pem -H 'Content-Type: application/pkcs10' \
    --data-binary @- "$CSM_SERVER/.well-known/est/simpleenroll"; then exit 1; fi
rm token curl.conf
