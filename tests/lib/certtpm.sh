# shellcheck shell=bash
# A simulated TPM whose endorsement keys its maker has certified. Sourced after system.sh.

# certified_tpm DIR: makes it below DIR and starts it; certified_tcti names it, and its maker's certificates are
# DIR/ca/issuercert.pem and DIR/ca/swtpm-localca-rootca-cert.pem.
certified_tpm() {
    local dir=$1
    mkdir -p "$dir/tpm" "$dir/ca"
    printf 'create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = %s\ncreate_certs_tool_options = %s\n' \
        "$dir/localca.conf" "$dir/localca.options" >"$dir/setup.conf"
    printf 'statedir = %s\nsigningkey = %s\nissuercert = %s\ncertserial = %s\n' \
        "$dir/ca" "$dir/ca/signkey.pem" "$dir/ca/issuercert.pem" "$dir/ca/certserial" >"$dir/localca.conf"
    printf -- '--platform-manufacturer Test\n--platform-version 1\n--platform-model Test\n' >"$dir/localca.options"
    timeout 60 swtpm_setup --tpm2 --tpmstate "$dir/tpm" --create-ek-cert --config "$dir/setup.conf" --overwrite \
        >"$dir/setup.log" 2>&1 || { cat "$dir/setup.log" >&2 && fail "no TPM with certificates"; }
    node_swtpm_start "$dir" || fail "the certified TPM does not start"
    # shellcheck disable=SC2034 # for the scripts
    certified_tcti=swtpm:path=$dir/tpm/sock
}
