"""The audit log for tests, by hand: its lines, their hashes, and attacks on them. Nothing of csm's own code.

usage: auditlog.py attack FOLDER     every attack on every place that matters; each has to be found there
       auditlog.py has FOLDER FILE   each object or serial number in FILE (a line each) has its line in the log
       auditlog.py anew FOLDER FILE  FILE is a log that lacks denials and signatures, with numbers and hashes that fit
"""

import hashlib
import json
import os
import subprocess
import sys


def files(folder):
    return sorted(name for name in os.listdir(folder) if name.startswith("audit-")) + ["audit.log"]


def read(folder, name):
    with open(os.path.join(folder, name), "rb") as f:
        return f.read().splitlines(keepends=True)


def write(folder, name, lines):
    """In place: csmd has the file in use open."""
    with open(os.path.join(folder, name), "r+b") as f:
        f.write(b"".join(lines))
        f.truncate()


def verify(*args):
    run = subprocess.run(["csm", "audit", "verify", "--json", *args], stdout=subprocess.PIPE, timeout=60)
    return run.returncode, json.loads(run.stdout)


def finish(body, before):
    hashed = hashlib.blake2b(before + body, digest_size=32).digest()
    return body + b',"hash":"' + hashed.hex().encode() + b'"}\n', hashed


def body_of(line):
    return line[:line.rindex(b',"hash":"')]


def hash_of(line):
    return bytes.fromhex(json.loads(line)["hash"])


class Attack:
    def __init__(self, folder):
        self.folder = folder
        self.files = files(folder)
        self.lines = {name: read(folder, name) for name in self.files}
        self.n = 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def expect(self, what, problem, name, line, seq):
        """The problem is told of that file, line and number; then all is put back."""
        status, told = verify()
        places = [(p["problem"], p["file"], p["line"], p["seq"]) for p in told["problems"]]
        assert status == 1 and not told["whole"], (what, status, told)
        assert (problem, self.path(name), line, seq) in places, (what, (problem, name, line, seq), places)
        self.restore()
        self.n += 1

    def restore(self):
        for name in self.files:
            write(self.folder, name, self.lines[name])

    def seq(self, name, i):
        return json.loads(self.lines[name][i])["seq"]

    def change(self, name, i):
        lines = list(self.lines[name])
        lines[i] = lines[i].replace(b'"event":"', b'"event":"x', 1)
        write(self.folder, name, lines)
        self.expect("changed", "changed", name, i + 1, self.seq(name, i))

    def change_and_hash(self, name, i):
        """With a hash that fits: then it is the next line that does not follow, or the end is another one."""
        lines = list(self.lines[name])
        before = hash_of(self.lines[name][i - 1])
        lines[i] = finish(body_of(lines[i]).replace(b'"event":"', b'"event":"x', 1), before)[0]
        write(self.folder, name, lines)
        if i + 1 < len(lines):
            self.expect("changed with its hash", "changed", name, i + 2, self.seq(name, i) + 1)
        elif name == "audit.log":
            self.expect("changed with its hash", "changed", name, i + 1, self.seq(name, i))
        else:
            following = self.files[self.files.index(name) + 1]
            self.expect("changed with its hash", "changed", following, 1, self.seq(name, i) + 1)

    def drop(self, name, i):
        lines = list(self.lines[name])
        del lines[i]
        write(self.folder, name, lines)
        seq = self.seq(name, i)
        if i < len(lines):
            self.expect("dropped", "dropped", name, i + 1, seq)
        elif name == "audit.log":
            self.expect("dropped", "cut", name, len(lines), seq)
        else:
            self.expect("dropped", "dropped", self.files[self.files.index(name) + 1], 1, seq)

    def move(self, name, i):
        """A line later than it was: the one that it let pass is out of its place."""
        lines = list(self.lines[name])
        lines[i - 1], lines[i] = lines[i], lines[i - 1]
        write(self.folder, name, lines)
        self.expect("moved", "moved", name, i + 1, self.seq(name, i - 1))

    def double(self, name, i):
        lines = list(self.lines[name])
        lines.insert(i + 1, lines[i])
        write(self.folder, name, lines)
        self.expect("doubled", "doubled", name, i + 2, self.seq(name, i))

    def cut(self, name, i):
        write(self.folder, name, self.lines[name][:i])
        if name == "audit.log":
            self.expect("cut", "cut", name, i, self.seq(name, i))
        else:
            self.expect("cut", "dropped", self.files[self.files.index(name) + 1], 1, self.seq(name, i))

    def file_gone(self, name):
        os.rename(self.path(name), self.path("kept"))
        following = self.files[self.files.index(name) + 1]
        status, told = verify()
        os.rename(self.path("kept"), self.path(name))
        places = [(p["problem"], p["file"], p["line"], p["seq"], p["last"]) for p in told["problems"]]
        assert status == 1 and ("dropped", self.path(following), 1, self.seq(name, 0),
                                self.seq(following, 0) - 1) in places, (name, told)
        self.n += 1

    def forge(self, number):
        """All that follows fits again, but for the signatures and the end that csmd knows."""
        before = None
        for name in self.files:
            lines = []
            for line in self.lines[name]:
                row = json.loads(line)
                if row["seq"] >= number:
                    body = body_of(line)
                    if row["seq"] == number:
                        body = body.replace(b'"uid":0', b'"uid":7', 1)
                    if b'"prev":"' in body:
                        at = body.index(b'"prev":"') + 8
                        body = body[:at] + before.hex().encode() + body[at + 64:]
                    line, before = finish(body, before)
                else:
                    before = hash_of(line)
                lines.append(line)
            write(self.folder, name, lines)
        status, told = verify()
        kinds = {p["problem"] for p in told["problems"]}
        assert status == 1 and "changed" in kinds, told
        last = self.seq("audit.log", len(self.lines["audit.log"]) - 1)
        assert any(p["seq"] == last for p in told["problems"]), told
        self.restore()
        self.n += 1
        return kinds


def attack(folder):
    a = Attack(folder)
    status, told = verify()
    assert status == 0 and told["whole"] and told["files"] == len(a.files) > 3, told
    for name in (a.files[0], a.files[1], a.files[-1]):
        last = len(a.lines[name]) - 1
        for i in (0, 1, last // 2, last):
            a.change(name, i)
            a.drop(name, i)
            a.double(name, i)
            if i > 0:
                a.cut(name, i)
                a.change_and_hash(name, i)
            if i > 1:
                a.move(name, i)
    a.file_gone(a.files[1])
    # In the first file there are changes, and each file but the last ends in a checkpoint.
    first = next(json.loads(line)["seq"] for line in a.lines[a.files[0]] if b'"event":"change"' in line)
    assert "signature" in a.forge(first), "the signature does not tell"
    status, told = verify()
    assert status == 0 and told["whole"], told
    print("%d attacks, each found at its place" % a.n)


def has(folder, path):
    wanted = set(open(path).read().split())
    seen = set()
    for name in files(folder):
        for line in read(folder, name):
            row = json.loads(line)
            if row["event"] == "change" and row["result"] == "ok":
                seen.update((row["object"], row.get("serial")))
    assert wanted <= seen, "no line for %s" % sorted(wanted - seen)[:5]
    print("%d changes have their lines" % len(wanted))


def anew(folder, path):
    before, lines = bytes(32), []
    for name in files(folder):
        for line in read(folder, name):
            event = json.loads(line)["event"]
            if event in ("checkpoint", "denied") or (event == "file" and lines):
                continue
            body = body_of(line)
            body = b'{"seq":%d' % (len(lines) + 1) + body[body.index(b','):].replace(b'"uid":0', b'"uid":7')
            line, before = finish(body, before)
            lines.append(line)
    with open(path, "wb") as out:
        out.write(b"".join(lines))


if __name__ == "__main__":
    {"attack": attack, "has": has, "anew": anew}[sys.argv[1]](*sys.argv[2:])
