#!/usr/bin/python3
"""Reads proto-spec/vectors with the msgpack module: each record's bytes must be its JSON reading.
Also asks the generators whether the vectors and PROTOCOL.md are what the tables give."""
import json
import os
import subprocess
import sys

import msgpack

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VECTORS = os.path.join(ROOT, "proto-spec", "vectors")


def records(path):
    record = {}
    with open(path, encoding="utf-8") as f:
        for line in [*f, "\n"]:
            line = line.rstrip("\n")
            if line.startswith("#"):
                continue
            if line:
                key, _, value = line.partition(":")
                record[key] = value[1:]
            elif record:
                yield record
                record = {}


def value(reading):
    """The value of a JSON reading."""
    if isinstance(reading, dict):
        if list(reading) == ["$bin"]:
            return bytes.fromhex(reading["$bin"])
        return {k: value(v) for k, v in reading.items()}
    if isinstance(reading, list):
        return [value(v) for v in reading]
    return reading


def check(record):
    want = value(json.loads(record["json"]))
    raw = bytes.fromhex(record.get("reads-as", record["hex"]))
    if msgpack.unpackb(raw, raw=False) != want:
        return "does not read as its JSON"
    if msgpack.packb(want, use_bin_type=True) != raw:
        return "is not what msgpack writes"
    # bytes and str compare unequal, but True == 1: types must be the same as well.
    if json.dumps(want, default=bytes.hex) != json.dumps(msgpack.unpackb(raw, raw=False), default=bytes.hex):
        return "has other types than its JSON"
    return None


def main():
    failed = checked = 0
    names = set()
    for name in sorted(os.listdir(VECTORS)):
        if not name.endswith(".txt"):
            continue
        for record in records(os.path.join(VECTORS, name)):
            if record["name"] in names:
                print(f"{name}: {record['name']} stands twice", file=sys.stderr)
                failed += 1
            names.add(record["name"])
            if record["expect"] != "ok":
                continue
            checked += 1
            problem = check(record)
            if problem:
                print(f"{name}: {record['name']} {problem}", file=sys.stderr)
                failed += 1
    if checked < 200:
        print(f"only {checked} records found", file=sys.stderr)
        failed += 1
    for generator in ("gen-vectors.py", "gen-protocol.py"):
        failed += subprocess.call([sys.executable, os.path.join(ROOT, "scripts", generator), "--check"])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
