#!/bin/bash
# The documents do not rot: the tour of README.md runs as it stands there, and every csm command, make target and file
# that the documents name exists.
# coverage
. "$(dirname "$0")/../lib/system.sh"
in_node --backend tpm2 --server

step "the tours of README.md"
# The lines of its ```sh blocks between the markers, "$ " taken off.
awk '/<!-- tour/ { on = 1 } /<!-- end of tour -->/ { on = 0 }
    on && /^```sh$/ { code = 1; next } /^```$/ { code = 0 } on && code' "$top/README.md" | sed -E 's/^\$ //' >tour
[ "$(grep -c csm tour)" -ge 8 ] || fail "no tour in README.md"
grep -q "csm cert enrol" tour || fail "no tour with csm-server in README.md"
bash -eu tour >tour.out 2>&1 || { cat tour.out >&2 && fail "a command of the tour"; }

step "make targets that documents name"
(cd "$top" && make help) | awk '{ print $2 }' >targets
for target in $(cd "$top" && grep -ohE '`make [a-z-]+' README.md CONTRIBUTING.md ARCHITECTURE.md SECURITY.md tests/README.md |
    sed 's/.*make //' | sort -u); do
    grep -qx "$target" targets || fail "make $target is in the documents, not in make help"
done

step "files that documents name"
for file in $(cd "$top" && grep -ohE '`(daemon|libclient|plugins|proto-spec|scripts|tests)/[A-Za-z0-9_./-]+`' \
    README.md CONTRIBUTING.md ARCHITECTURE.md SECURITY.md tests/README.md proto-spec/*.md | tr -d '`' | sort -u); do
    [ -e "$top/$file" ] || [ -e "$top/$file.c" ] || fail "$file is in the documents, not in the tree"
done

step "every promise of SECURITY.md names a test that is there"
grep -oE '`[a-z0-9/_-]+\.(sh|c|py)`' "$top/SECURITY.md" | tr -d '`' | sort -u >tests
[ "$(wc -l <tests)" -ge 10 ] || fail "SECURITY.md names few tests"
while read -r test; do
    [ -e "$top/tests/$test" ] || fail "SECURITY.md names $test, which is not in tests/"
done <tests

step "csm commands that documents name"
grep -ohE '`csm [a-z][a-z-]*' "$top"/{README,SECURITY,ARCHITECTURE,CONTRIBUTING}.md | sed 's/^`csm //' | sort -u >commands
while read -r command; do
    ok csm help "$command"
done <commands
