"""What is on the disk after a power cut: take back what tests/fault/powercut.c knows was not synced.

usage: powercut.py LOG arm N           cut the power N operations from now
       powercut.py LOG pid             the broker's process number
       powercut.py LOG MODE SEED       MODE: none, all, few, half, most, pages; or "any", chosen by the seed

A sector (512 bytes) that was written and not synced since is what it was before, what it is now, or anything between;
`all` takes every such sector back to what was synced last, few, half and most that part of them, and `pages` half of them
in pieces of 4,096 bytes. Sizes of files likewise. Of what was made, renamed and removed in a folder, the last steps are
undone, down to one chosen at random behind the last sync of that folder. Prints what was done; removes LOG.
"""

import os
import random
import shutil
import struct
import sys

HEAD = struct.Struct("<QQQQIIII")
CUT_AT = 24
REC = struct.Struct("<IIQQQQQ")
MAGIC = 0x747563726577706F
FILE, WRITE, TRUNC, SYNC, DIRSYNC, RENAME, UNLINK, MKDIR = range(1, 9)
DONE, DURABLE = 1, 2
SECTOR = 512
SHARE = {"none": 0.0, "few": 0.1, "half": 0.5, "most": 0.9, "all": 1.0, "pages": 0.5}


class Record:
    def __init__(self, data, at):
        (self.type, self.state, self.ino, self.off, self.len, self.old_size, size) = REC.unpack_from(data, at)
        self.payload = data[at + REC.size:at + REC.size + size]
        self.end = at + REC.size + (size + 7) // 8 * 8

    def texts(self, n):
        return [part.decode() for part in self.payload.split(b"\0")[:n]]


def read_log(path):
    with open(path, "rb") as log:
        magic, used, ops, _, _, full, _, _ = HEAD.unpack(log.read(HEAD.size))
        assert magic == MAGIC and not full, "the log is not whole"
        data = log.read(used)
    records, at = [], 0
    while at < used:
        records.append(Record(data, at))
        at = records[-1].end
    return records, ops


class Content:
    """One file: what each of its sectors may be."""

    def __init__(self, records, now):
        self.now = now
        self.writes = []
        for record in records:
            if record.type in (WRITE, TRUNC) and record.len > 0:
                self.writes.append(record)
            elif record.type == SYNC and record.state == DONE:
                for write in self.writes:
                    if write.state == DONE:
                        write.state = DURABLE

    def versions(self):
        """For each sector, oldest first: what it may be. And the sizes the file may have."""
        state, may = bytearray(self.now), {}
        sizes, settled, size_settled = [len(self.now)], set(), False
        for write in reversed(self.writes):
            end = write.off + len(write.payload) if write.type == TRUNC else write.off + write.len
            touched = range(write.off // SECTOR, (end + SECTOR - 1) // SECTOR)
            after = {s: bytes(state[s * SECTOR:(s + 1) * SECTOR]) for s in touched}
            if write.type == WRITE:
                state[write.off:write.off + len(write.payload)] = write.payload
                del state[write.old_size:]
            else:
                del state[write.off:]
                state += write.payload
                del state[write.old_size:]
            durable = write.state == DURABLE
            for s in touched:
                if s in settled:
                    continue
                may.setdefault(s, [after[s]])
                if durable:
                    settled.add(s)
                else:
                    may[s].insert(0, bytes(state[s * SECTOR:(s + 1) * SECTOR]))
            size_settled = size_settled or durable
            if not size_settled:
                sizes.insert(0, write.old_size)
        return {s: v for s, v in may.items() if len(v) > 1}, sizes

    def after_cut(self, mode, rng):
        may, sizes = self.versions()
        image, undone, pages = bytearray(self.now), 0, {}
        for s, versions in sorted(may.items()):
            back = rng.random() < SHARE[mode]
            if mode == "pages":
                back = pages.setdefault(s // 8, back)
            if not back:
                continue
            undone += 1
            old = versions[0] if mode in ("all", "pages") or rng.random() < 0.5 else rng.choice(versions[:-1])
            image[s * SECTOR:(s + 1) * SECTOR] = old.ljust(SECTOR, b"\0")
        size = len(self.now)
        if len(sizes) > 1 and rng.random() < SHARE[mode]:
            size = sizes[0] if mode == "all" else rng.choice(sizes)
        del image[size:]
        return bytes(image).ljust(size, b"\0"), undone, len(may)


def paths(records):
    """The path of each inode at the end."""
    found = {}
    for record in records:
        if record.type == FILE:
            found[record.ino] = record.texts(1)[0]
        elif record.type == RENAME:
            old, new = record.texts(2)
            for ino, path in list(found.items()):
                if path == new:
                    del found[ino]
                elif path == old:
                    found[ino] = new
        elif record.type == UNLINK:
            gone = record.texts(1)[0]
            found = {ino: path for ino, path in found.items() if path != gone}
    return found


def cut_contents(records, mode, rng):
    undone = possible = 0
    for ino, path in sorted(paths(records).items()):
        if not os.path.exists(path):
            continue
        with open(path, "rb") as file:
            now = file.read()
        image, did, could = Content([r for r in records if r.ino == ino], now).after_cut(mode, rng)
        if image != now:
            with open(path, "r+b") as file:
                file.truncate(len(image))
                file.write(image)
        undone, possible = undone + did, possible + could
    return undone, possible


def undo_name(record):
    if record.type == FILE:
        path = record.texts(1)[0]
        if os.path.exists(path):
            os.unlink(path)
    elif record.type == MKDIR:
        shutil.rmtree(record.texts(1)[0], ignore_errors=True)
    elif os.path.isdir(os.path.dirname(record.texts(1)[0])):
        owner = os.stat(os.path.dirname(record.texts(1)[0]))
        content = record.payload[len(record.payload) - record.len:] if record.off else None
        if record.type == RENAME:
            old, new = record.texts(2)
            if os.path.exists(new):
                os.rename(new, old)
            path = new
        else:
            path = record.texts(1)[0]
        if content is not None:
            with open(path, "wb") as file:
                file.write(content)
            os.chmod(path, 0o600)
            os.chown(path, owner.st_uid, owner.st_gid)


def cut_names(records, mode, rng):
    pending = {}
    for record in records:
        if record.type == DIRSYNC and record.state == DONE:
            pending.pop(os.path.normpath(record.texts(1)[0]), None)
        elif record.type in (RENAME, UNLINK, MKDIR) or (record.type == FILE and record.off):
            folder = os.path.dirname(record.texts(2)[1] if record.type == RENAME else record.texts(1)[0])
            pending.setdefault(folder, []).append(record)
    undone = 0
    # What is within a folder before the folder's own name.
    for _, steps in sorted(pending.items(), key=lambda item: item[0].count("/"), reverse=True):
        keep = 0
        if mode == "none":
            keep = len(steps)
        elif mode != "all":
            keep = rng.randint(0, len(steps))
        for step in reversed(steps[keep:]):
            undo_name(step)
            undone += 1
    return undone


def arm(path, n):
    with open(path, "r+b", buffering=0) as log:
        ops = HEAD.unpack(log.read(HEAD.size))[2]
        log.seek(CUT_AT)
        log.write(struct.pack("<Q", ops + n))


def broker(path):
    with open(path, "rb") as log:
        return HEAD.unpack(log.read(HEAD.size))[6]


def replay(log, mode, seed):
    """What was done, in words."""
    rng = random.Random(seed)
    if mode == "any":
        mode = rng.choice(sorted(SHARE))
    records, ops = read_log(log)
    undone, possible = cut_contents(records, mode, rng)
    names = cut_names(records, mode, rng)
    os.unlink(log)
    return "operations %d; %s: sectors taken back %d of %d, names %d" % (ops, mode, undone, possible, names)


def main():
    log, mode = sys.argv[1:3]
    if mode == "arm":
        return arm(log, int(sys.argv[3]))
    if mode == "pid":
        return print(broker(log))
    return print(replay(log, mode, int(sys.argv[3])))


if __name__ == "__main__":
    main()
