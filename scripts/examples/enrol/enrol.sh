#!/bin/bash
# A key in the node and a certificate for it. The request goes by csmd and csm-enrol to the authority; the key goes nowhere.
set -euo pipefail
csm key create orders
csm cert enrol orders --subject /CN=orders --san dns:orders.example.org --san uri:spiffe://example.org/orders
csm cert show orders --pem >orders.pem
openssl verify -CAfile ca.pem orders.pem
