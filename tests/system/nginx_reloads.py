"""Reloads of nginx, one after the other: each is over when both workers are new ones and the old ones are gone.

usage: nginx_reloads.py MASTER ROUNDS

Prints the private memory of the master in KiB after a quarter of the rounds, and at the end. (A shell that forks for each
look meets, after some ten thousand of them, a process number that it still waits for.)
"""

import os
import signal
import sys
import time

DEADLINE = 20


def workers(master):
    found = set()
    with open(f"/proc/{master}/task/{master}/children", encoding="ascii") as f:
        for pid in f.read().split():
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
                    if cmdline.read().startswith(b"nginx: worker process\0"):
                        found.add(pid)
            except (FileNotFoundError, ProcessLookupError):
                pass
    return found


def reload(master):
    old, end = workers(master), time.monotonic() + DEADLINE
    assert len(old) == 2, old
    os.kill(master, signal.SIGHUP)
    while True:
        new = workers(master)
        if len(new) == 2 and not new & old:
            return
        assert time.monotonic() < end, "nginx does not reload: workers %s, before it %s" % (new, old)
        time.sleep(0.005)


def private_kib(master):
    with open(f"/proc/{master}/smaps_rollup", encoding="ascii") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("Private_"))


def main():
    master, rounds = int(sys.argv[1]), int(sys.argv[2])
    grown = 0
    for i in range(1, rounds + 1):
        reload(master)
        if i == max(1, rounds // 4):
            grown = private_kib(master)
    print(grown, private_kib(master))


main()
