# shellcheck shell=bash
# Certificates for the tests, by openssl. Sourced after system.sh.

# make_ca NAME [ISSUER]: NAME.pem and NAME.key, self-signed or by ISSUER.
make_ca() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -subj "/O=test/CN=$1" -out "$1.csr" 2>/dev/null
    printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n' >"$1.ext"
    if [ $# -gt 1 ]; then
        openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -extfile "$1.ext" -days 3 -out "$1.pem" 2>/dev/null
    else
        openssl x509 -req -in "$1.csr" -key "$1.key" -extfile "$1.ext" -days 3 -out "$1.pem" 2>/dev/null
    fi
}

# issue CSR CA OUT [OPTIONS OF openssl x509]: a certificate for the request, with the names that it asks for.
issue() {
    openssl x509 -req -in "$1" -CA "$2.pem" -CAkey "$2.key" -copy_extensions copyall -days 2 -out "$3" "${@:4}" 2>/dev/null
}
