#!/bin/bash
# csmd --check tells what is wrong in the configuration with file, line and column, makes nothing, and takes what is
# right; csmd itself does not start on what --check refuses.
. "$(dirname "$0")/../lib/system.sh"
work=$(mktemp -d "${TMPDIR:-/tmp}/csm-config.XXXXXX")
trap 'node_csmd_stop "$work" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"
node_make "$work" soft "" ""
cp csmd.yaml good.yaml

step "what is right"
ok "$node_build/bin/csmd" --check --config csmd.yaml

refused() { # LINE:COLUMN TEXT, configuration on top of the good one
    local at=$1 text=$2
    expect_exit 1 "$node_build/bin/csmd" --check --config csmd.yaml
    grep -qF "csmd.yaml: line ${at%:*}, column ${at#*:}: $text" err || fail "$text: $(cat err)"
    [ ! -e state/store ] || fail "a store was made"
}
step "what is wrong"
for line in 'plugin_dir: /nonexistent|plugin_dir: there is no folder /nonexistent' \
    "plugin_dir: $work/good.yaml|plugin_dir: there is no folder" \
    'tpm: {tcti: mssim}|tpm.tcti: must be swtpm' \
    'loop: 1|loop: unknown key'; do
    { echo "${line%%|*}" && cat good.yaml; } >csmd.yaml
    column=1
    [[ $line != *tcti* ]] || column=7
    refused 1:$column "${line#*|}"
done
{ grep -v ^backends: good.yaml && echo 'backends: {default: tpm2, enable: [soft]}'; } >csmd.yaml
refused "$(wc -l <csmd.yaml):12" "backends.default: tpm2 is not among"
: >csmd.yaml
refused 1:1 "the file is empty"

step "csmd does not start on it"
{ echo 'plugin_dir: /nonexistent' && cat good.yaml; } >csmd.yaml
expect_exit 1 timeout 20 "$node_build/bin/csmd" --config csmd.yaml
grep -qF 'csmd.yaml: line 1, column 1: plugin_dir' err || fail "$(cat err)"
[ ! -e public/csm.sock ] || fail "a socket was made"
