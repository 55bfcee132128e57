"""The tables of proto-spec (errors, methods, messages, limits) as Python values."""
import os
import re

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SPEC = os.path.join(ROOT, "proto-spec")


def _text(name):
    with open(os.path.join(SPEC, name), encoding="utf-8") as f:
        text = f.read()
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    return text.replace("\\\n", " ")


def _number(expression, known):
    expression = re.sub(r"\b(0x[0-9a-fA-F]+|\d+)[uUlL]+\b", r"\1", expression)
    for name in set(re.findall(r"[A-Z][A-Z0-9_]+", expression)):
        expression = re.sub(rf"\b{name}\b", f"({known[name]})", expression)
    if not re.fullmatch(r"[0-9a-fx()+*\- ]+", expression):
        raise ValueError(f"not a number: {expression}")
    return eval(expression, {"__builtins__": {}})  # digits and operators only, see above


def limits():
    """Every constant of limits.h, in its order."""
    known = {"UINT32_MAX": 2**32 - 1, "UINT64_MAX": 2**64 - 1}
    for name, value in re.findall(r"^#define (CSM_\w+) +(\S.*?) *$", _text("limits.h"), flags=re.M):
        known[name] = _number(value, known)
    return known


class Error:
    def __init__(self, symbol, number, name, cls, http, text):
        self.symbol, self.number, self.name = symbol, int(number), name
        self.cls, self.http, self.text = cls, int(http), text
        self.retryable = cls == "RETRY"


def errors():
    rows = re.findall(r'^X\((\w+), *(\d+), *"(\w+)", *(\w+), *(\d+), *"(.*?)"\)', _text("errors.def"), flags=re.M)
    return [Error(*row) for row in rows]


class Method:
    def __init__(self, symbol, number, name, permission, states, roles, where, request, response, flags):
        self.symbol, self.number, self.name, self.permission = symbol, int(number), name, permission
        self.states, self.roles, self.where = states, roles.split("|"), where
        self.request, self.response = request, response
        self.flags = [] if flags == "0" else flags.split("|")


def methods():
    row = (r'^X\((\w+), *(\d+), *"([\w.]+)", *(\w+), *(\w+), *([\w|]+), *(\w+), *(\w+), *(\w+), *([\w|]+)\)')
    return [Method(*r) for r in re.findall(row, _text("methods.def"), flags=re.M)]


class Field:
    def __init__(self, kind, name, presence, maximum, each):
        self.kind, self.name, self.required = kind, name, presence == "REQ"
        self.max, self.each = maximum, each


def messages():
    """message name -> list of Field, in the order of messages.def."""
    known = limits()
    text = _text("messages.def")
    found = {}
    for line in text.splitlines():
        m = re.match(r"#define CSM_MSG_(\w+)\(F\)(.*)$", line)
        if not m:
            continue
        fields = []
        for row in re.findall(r"F\((\w+), *(\w+), *(\w+), *([^,]+), *([^)]+)\)", m.group(2)):
            kind, name, presence, maximum, each = (c.strip() for c in row)
            each = each if kind in ("MAP", "MAPS") else _number(each, known)
            fields.append(Field(kind, name, presence, _number(maximum, known), each))
        found[m.group(1)] = fields
    return found
