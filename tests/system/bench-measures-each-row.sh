#!/bin/bash
# The benchmarks measure what their table asks for: each peer is there and does its work, each row gets a figure. Not how
# fast: that is for `make bench`, on a quiet machine.
# bound: 180
. "$(dirname "$0")/../lib/system.sh"
work=$(mktemp -d "${TMPDIR:-/tmp}/bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$top"

timeout 150 scripts/bench.sh --rounds 1 --tries 1 --seconds 0.1 --output "$work/bench.json" \
    start sign sign16 tpm hsm get get-epoll get16 put put64 ping ping-across tls pkcs11 provider issue revoke crl inventory >"$work/table" 2>"$work/err" ||
    fail "bench.sh: $(tail -n 5 "$work/err")"
! grep -q 'not measured' "$work/table" || fail "$(grep 'not measured' "$work/table"): $(cat "$work/err")"
/usr/bin/python3 - "$work/bench.json" "$top/tests/bench" <<'END'
import json, sys
sys.path.insert(0, sys.argv[2])
import table
report = json.load(open(sys.argv[1]))
assert len(report["ratios"]) == len(table.RATIOS), len(report["ratios"])
# memory and bad peers take their time
left_out = {r[0] for r in table.LIMITS} - {r["group"] for r in report["limits"]}
assert left_out == {"memory", "others", "hanging", "rude"}, left_out
for row in report["ratios"] + report["limits"]:
    value = row["ratio"] if "ratio" in row else row["value"]
    assert value is not None and value > 0, row
bars = [r for r in report["ratios"] if r["bar"] is not None]
assert all(r["bar_met"] == ((r["ratio"] >= r["bar"]) if r["kind"] == "at least" else (r["ratio"] <= r["bar"])) for r in bars)
END
