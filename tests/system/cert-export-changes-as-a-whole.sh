#!/bin/bash
# The folder of csm cert export changes as a whole: who reads while it is written finds one generation or the next, whole,
# and no moment without the folder; kill -9 leaves the one or the other; what is not csm's is left alone.
# bound: 90
. "$(dirname "$0")/../lib/system.sh"
. "$(dirname "$0")/../lib/certs.sh"
in_node --backend soft

make_ca root
make_ca inter root
ok csm key create web
csm csr web --subject /CN=web >web.csr
for i in 1 2; do
    issue web.csr inter web.pem -set_serial 0x10$i
    cat web.pem inter.pem root.pem >gen$i
done
ok csm cert install web gen1

step "what it holds"
ok csm cert export web dir
in_folder() { find "$1" -mindepth 1 -printf '%f\n' | sort | tr '\n' ' '; }
expect_equal "the files" "$(in_folder dir)" "ca.pem cert.pem chain.pem fullchain.pem key.pem meta.json "
cat dir/cert.pem dir/chain.pem | cmp - dir/fullchain.pem || fail "fullchain.pem"
ok openssl verify -CAfile dir/ca.pem -untrusted dir/chain.pem dir/cert.pem
expect_equal "meta.json" "$(json serial <dir/meta.json)" 0101
csm key reference web >web.reference
expect_same "key.pem" web.reference dir/key.pem
! grep -rq "PRIVATE KEY" dir || fail "a private key"
expect_equal "what is left beside it" "$(find . -maxdepth 1 -name '.dir*')" ""

step "readers beside 60 exports, some of them killed"
cat >reader.py <<'PY'
import json, os, sys, time

def generation(fd):
    def read(name):
        with open(os.open(name, os.O_RDONLY, dir_fd=fd), encoding="utf-8") as f:
            return f.read()
    serial = json.loads(read("meta.json"))["serial"]
    parts = [read(n) for n in ("cert.pem", "chain.pem", "fullchain.pem", "ca.pem", "key.pem")]
    assert all(p.endswith("-----\n") for p in parts), parts
    assert parts[2] == parts[0] + parts[1]
    return serial, parts[0]

seen, first = {}, {}
while not os.path.exists("stop"):
    fd = os.open("dir", os.O_RDONLY | os.O_DIRECTORY)  # there at any time
    open("dir/cert.pem", encoding="utf-8").close()      # and so is what is in it, by its path
    try:
        serial, cert = generation(fd)
    except FileNotFoundError:
        continue  # this generation's turn is over, and its folder emptied
    finally:
        os.close(fd)
    assert first.setdefault(serial, cert) == cert, "two generations in one folder"
    seen[serial] = seen.get(serial, 0) + 1
print(seen)
assert set(seen) == {"0101", "0102"}, seen
PY
/usr/bin/python3 reader.py >seen 2>reader.err &
reader=$!
for i in $(seq 60); do
    ok csm cert install web gen$((i % 2 + 1))
    if [ $((i % 4)) -eq 0 ]; then
        csm cert export web dir &
        hit=$!
        sleep "0.00$((RANDOM % 10))"
        kill -9 $hit 2>/dev/null || true
        wait $hit || true
    else
        ok csm cert export web dir
    fi
done
touch stop
wait $reader || { cat reader.err >&2 && fail "a reader found half of something"; }
cat seen
ok csm cert export web dir
expect_equal "what is left beside it" "$(find . -maxdepth 1 -name '.dir*')" ""

step "a folder with something else in it, and what is no folder, is left alone"
echo mine >dir/mine
expect_exit 7 csm cert export web dir
expect_equal "what was there" "$(cat dir/mine)" mine
expect_equal "and the rest" "$(in_folder dir | wc -w)" 7
echo file >file
expect_exit 7 csm cert export web file
expect_equal "the file" "$(cat file)" file
mkdir real && ln -s real link
expect_exit 7 csm cert export web link
expect_equal "behind the link" "$(in_folder real)" ""
expect_exit 1 csm cert export web none/dir
expect_exit 1 csm cert export web ..

step "mode and owner of a folder stay"
rm dir/mine
chmod 750 dir
chown 59104:59105 dir
ok csm cert export web dir
expect_equal "mode and owner" "$(stat -c '%a %u %g' dir)" "750 59104 59105"
