#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What the test of fsync does to a volume before its power goes.

    fsync_program.py DIR random SEED     changes files and directories, and syncs some of them
    fsync_program.py DIR sqlite MODE     inserts rows into a database with this journal mode, until
                                         it fails; after each it writes their number to standard output
    fsync_program.py DIR cut             shuts the volume down, so that nothing more is written
"""

import ctypes
import fcntl
import os
import random
import sqlite3
import struct
import sys

FICLONE = 0x40049409
GOING_DOWN = 0x8004587D
fallocate = ctypes.CDLL(None).fallocate
fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def cut(top):
    fd = os.open(top, os.O_RDONLY)
    fcntl.ioctl(fd, GOING_DOWN, struct.pack("I", 2))


def write(path, rand):
    with open(path, "r+b" if os.path.exists(path) else "wb") as file:
        file.seek(rand.randrange(100_000))
        file.write(rand.randbytes(rand.randrange(1, 40_000)))


def punch(path, rand):
    with open(path, "r+b") as file:
        offset = rand.randrange(100_000)
        fallocate(file.fileno(), rand.choice([0, 1, 3]), offset, rand.randrange(1, 60_000))


def clone(source, target):
    with open(source, "rb") as a, open(target, "wb") as b:
        fcntl.ioctl(b, FICLONE, a.fileno())


def step(rand, dirs, name):
    """One change; what cannot be done, because of what is there, is not done."""
    path, other = (os.path.join(rand.choice(dirs), rand.choice("abcdef")) for _ in range(2))
    kind = rand.randrange(16)
    if kind < 4:
        write(path, rand)
    elif kind == 4:
        os.truncate(path, rand.randrange(120_000))
    elif kind == 5:
        punch(path, rand)
    elif kind == 6:
        clone(path, other)
    elif kind < 9:
        os.rename(path, other)
    elif kind == 9:
        os.link(path, other)
    elif kind < 12:
        os.unlink(path)
    elif kind == 12:
        os.setxattr(path, f"user.{rand.randrange(3)}", rand.randbytes(rand.randrange(300)))
    elif kind == 13:
        os.symlink("target", other)
    elif kind == 14:
        made = os.path.join(rand.choice(dirs), name)
        os.mkdir(made)
        dirs.append(made)
    else:
        os.sync()


def run(top, seed):
    rand = random.Random(seed)
    os.chdir(top)
    dirs = ["."]
    for number in range(120):
        try:
            step(rand, dirs, f"dir{number}")
        except OSError:
            pass
        if number > 20 and rand.randrange(2):
            target = rand.choice(dirs)
            if rand.randrange(4):
                target = os.path.join(target, rand.choice("abcdef"))
            if os.path.exists(target) and not os.path.islink(target):
                sync(target)


def insert(top, mode):
    database = sqlite3.connect(f"{top}/{mode}.db", isolation_level=None)
    database.execute(f"pragma journal_mode={mode}")
    database.execute("pragma synchronous=extra")
    database.execute("create table if not exists rows (number integer primary key, text)")
    os.sync()
    number = 0
    while True:
        number += 1
        database.execute("insert into rows values (?, ?)", (number, "x" * (number % 700)))
        os.write(1, f"{number}\n".encode())


def main():
    top, what = sys.argv[1:3]
    if what == "random":
        run(top, int(sys.argv[3]))
    elif what == "sqlite":
        insert(top, sys.argv[3])
    else:
        cut(top)


if __name__ == "__main__":
    main()
