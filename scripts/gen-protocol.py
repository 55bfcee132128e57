#!/usr/bin/python3
"""Rewrites the generated parts of proto-spec/PROTOCOL.md from the tables beside it.

Usage: gen-protocol.py [--check]. A part stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; NAME is
errors, limits, methods, reserved, or a method's name. With --check nothing is written; exit status 1 when a part is
not what would be written, or a method has no section."""
import json
import os
import re
import sys
import textwrap

import protospec

DOCUMENT = os.path.join(protospec.SPEC, "PROTOCOL.md")
MESSAGES = protospec.messages()
METHODS = protospec.methods()
LIMITS = protospec.limits()
SERVED = [m for m in METHODS if m.where != "NONE"]
TYPES = {"U64": "integer", "BOOL": "boolean", "STR": "string", "BIN": "bin", "STRS": "array of string", "MAP": "map",
         "MAPS": "array of map"}
STATES = {"READY": "ready", "ANY": "any"}
ROLES = {"PUBLIC": "public socket", "ADMIN": "administration socket", "ROLES": "csm's own helpers",
         "IDENT": "csm-ident's descriptor", "DELIVER": "csm-deliver's descriptor", "ENROL": "csm-enrol's descriptors"}

# The limits that concern a client, with their unit and meaning.
LIMIT_TEXTS = {
    "CSM_MESSAGE_MAX": "bytes of one message",
    "CSM_DEPTH_MAX": "arrays and maps in each other",
    "CSM_IN_FLIGHT_MAX": "requests of one connection without an answer; further ones are read later",
    "CSM_REQUEST_ID_MAX": "bytes of a `request_id`",
    "CSM_REQUEST_ID_TTL_S": "seconds that a `request_id` is remembered",
    "CSM_LIST_MAX": "entries of one answer to a list method",
    "CSM_LIST_DEFAULT": "entries when no `limit` is given",
    "CSM_NAMESPACE_MAX": "bytes of a namespace",
    "CSM_NAME_MAX": "bytes of the name of a key, domain, secret or pair",
    "CSM_PAIRS_MAX": "pairs of a secret",
    "CSM_SECRET_MAX": "bytes of one version of a secret, names and values together",
    "CSM_SIGN_MESSAGE_MAX": "bytes of a message, or of a part of one, in one request",
    "CSM_SIGN_STREAMS_MAX": "open `key.sign_init` operations of one connection",
    "CSM_RANDOM_MAX": "bytes of one `random`",
    "CSM_SEAL_MAX": "bytes of one `seal`",
    "CSM_SANS_MAX": "alternative names of a certificate request",
    "CSM_CONNECTIONS_PER_UID": "connections of one user, by default",
    "CSM_FIRST_MESSAGE_MS": "milliseconds from the connection to its first whole message",
    "CSM_MESSAGE_MS": "milliseconds from a message's first byte to its last",
}


def meanings():
    found = {}
    with open(os.path.join(protospec.SPEC, "fields.txt"), encoding="utf-8") as f:
        for line in f:
            m = re.match(r"([\w*]+\.\w+) +(\S.*)$", line)
            if m:
                found[m.group(1)] = m.group(2)
            elif line.strip() and not line.startswith("#"):
                raise SystemExit(f"fields.txt: not understood: {line.rstrip()}")
    known = {f"{m}.{f.name}" for m, fields in MESSAGES.items() for f in fields}
    names = {f.name for fields in MESSAGES.values() for f in fields}
    for key in found:
        if key not in known and not (key.startswith("*.") and key[2:] in names):
            raise SystemExit(f"fields.txt: messages.def has no field {key}")
    return found


MEANINGS = meanings()


def meaning(message, field):
    text = MEANINGS.get(f"{message}.{field}") or MEANINGS.get(f"*.{field}")
    if text is None:
        raise SystemExit(f"fields.txt: says nothing of {message}.{field}")
    return text.replace("|", "\\|")


def table(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---" for _ in head) + " |"
    for row in rows:
        yield "| " + " | ".join(str(c) for c in row) + " |"


def limit_of(f):
    if f.kind == "U64":
        return {2**64 - 1: "64 bits", 2**32 - 1: "32 bits"}.get(f.max, f"at most {f.max}")
    if f.kind in ("STR", "BIN"):
        return f"{f.max} bytes"
    if f.kind == "STRS":
        return f"{f.max} of {f.each} bytes"
    return f"{f.max} entries" if f.kind == "MAPS" else ""


def fields_table(message):
    """The table of a message, then those of the messages in it."""
    fields = MESSAGES[message]
    yield from table(("field", "type", "", "limit", "meaning"),
                     [(f"`{f.name}`", TYPES[f.kind], "required" if f.required else "optional", limit_of(f),
                       meaning(message, f.name)) for f in fields])
    for f in fields:
        if f.kind in ("MAP", "MAPS"):
            yield ""
            yield f"Each map of `{f.name}`:" if f.kind == "MAPS" else f"The map `{f.name}`:"
            yield ""
            yield from fields_table(f.each)


def examples():
    """vector name -> (hex, json) of the examples."""
    found, record = {}, {}
    for name in ("messages.txt", "errors.txt"):
        with open(os.path.join(protospec.SPEC, "vectors", name), encoding="utf-8") as f:
            for line in f:
                key, _, value = line.rstrip("\n").partition(": ")
                record[key] = value
                if key == "json":
                    found[record["name"]] = (record["hex"], value)
    return found


EXAMPLES = examples()


def example(mark, name):
    digits, reading = EXAMPLES[name]
    lines = textwrap.wrap(digits, 96)
    yield f"{mark} {lines[0]}"
    yield from (f"   {line}" for line in lines[1:])
    yield from (f"   {line}" for line in textwrap.wrap(reading, 100, break_long_words=True, break_on_hyphens=False))


def permission_of(m):
    if m.permission == "OPEN":
        return "none is asked"
    if m.permission == "ADMIN":
        return "the socket decides"
    return "`" + next(o.name for o in METHODS if o.symbol == m.permission) + "`"


def part_method(m):
    sockets = ", ".join(ROLES[r] for r in m.roles)
    yield f"Number {m.number}. Permission: {permission_of(m)}. Served on: {sockets}. State: {STATES[m.states]}."
    for title, message in (("Request", m.request), ("Answer", m.response)):
        yield ""
        if not MESSAGES[message]:
            yield f"{title}: an empty map."
            continue
        yield f"{title}:"
        yield ""
        yield from fields_table(message)
    yield ""
    yield "```"
    yield from example("->", f"{m.name}.request.example")
    yield from example("<-", f"{m.name}.response.example")
    yield "```"


def part_errors():
    retry = {True: "yes", False: ""}
    yield from table(("code", "name", "retryable", "text"),
                     [(e.number, f"`{e.name}`", retry[e.retryable], e.text)
                      for e in protospec.errors() if e.number < 100])
    yield ""
    yield "For example:"
    yield ""
    yield "```"
    yield from example("<-", "error.denied")
    yield from example("<-", "error.busy.later")
    yield from example("<-", "error.proof_required.nonce")
    yield "```"


def part_limits():
    yield from table(("limit", "of"), [(LIMITS[name], text) for name, text in LIMIT_TEXTS.items()])


def part_methods():
    yield from table(("number", "method", "permission", "changes something", "carries a secret"),
                     [(m.number, f"[`{m.name}`](#{m.name.replace('.', '')})", permission_of(m),
                       "yes" if "MUTATES" in m.flags else "", "yes" if "SECRET" in m.flags else "") for m in SERVED])


def part_reserved():
    yield from table(("number", "method"), [(m.number, f"`{m.name}`") for m in METHODS if m.where == "NONE"])


def parts():
    found = {"errors": part_errors, "limits": part_limits, "methods": part_methods, "reserved": part_reserved}
    for m in SERVED:
        found[m.name] = lambda m=m: part_method(m)
    return found


def rewrite(text):
    seen = set()
    makers = parts()

    def replace(match):
        name = match.group(1)
        if name not in makers:
            raise SystemExit(f"PROTOCOL.md: nothing is called {name}")
        seen.add(name)
        return f"<!-- begin {name} -->\n" + "\n".join(makers[name]()) + f"\n<!-- end {name} -->"

    text = re.sub(r"<!-- begin (\S+) -->\n.*?<!-- end \1 -->", replace, text, flags=re.S)
    missing = sorted(set(makers) - seen)
    if missing:
        raise SystemExit("PROTOCOL.md: no part for " + ", ".join(missing))
    for m in SERVED:
        if f"\n### {m.name}\n" not in text:
            raise SystemExit(f"PROTOCOL.md: no section of {m.name}")
    return text


def main():
    with open(DOCUMENT, encoding="utf-8") as f:
        old = f.read()
    new = rewrite(old)
    if new == old:
        return 0
    if "--check" in sys.argv[1:]:
        print("gen-protocol.py: PROTOCOL.md is not what the tables give; run scripts/gen-protocol.py", file=sys.stderr)
        return 1
    with open(DOCUMENT, "w", encoding="utf-8") as f:
        f.write(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
