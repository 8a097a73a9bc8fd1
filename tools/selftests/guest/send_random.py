#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes random changes to a subvolume, with a read-only snapshot after each batch.

usage: send_random.py MOUNTPOINT SEED [BATCHES] [CHANGES]

The same seed makes the same changes on the same kernel. With SEND_RANDOM_TEXT set, all data compresses well.
The snapshots are MOUNTPOINT/snap-0 and so on.
"""

import ctypes
import errno
import fcntl
import os
import random
import stat
import struct
import subprocess
import sys

FICLONERANGE = 0x4020940D
BLOCK = 4096

libc = ctypes.CDLL(None, use_errno=True)


class Tree:
    """A directory tree under random change."""

    def __init__(self, top, seed):
        self.top = top
        self.rng = random.Random(seed)
        self.dirs = [top]
        self.files = []
        self.others = []
        self.count = 0

    def name(self):
        self.count += 1
        if self.rng.random() < 0.05:
            return f"o{self.rng.randrange(256, 400)}-{self.rng.randrange(5, 30)}-{self.rng.randrange(2)}"
        return f"{self.rng.choice('abcdefgh') * self.rng.choice([1, 1, 1, 3, 40])}{self.count}"

    def place(self):
        return f"{self.rng.choice(self.dirs)}/{self.name()}"

    def data(self, size):
        if self.rng.random() < 0.4 or "SEND_RANDOM_TEXT" in os.environ:
            return (b"%d " % self.rng.randrange(50)) * (size // 3 + 1)
        return self.rng.randbytes(size)

    def size(self):
        return self.rng.choice([0, 1, 100, 2000, 4096, 5000, 20000, 70000, 200000])

    def create(self):
        path = self.place()
        with open(path, "wb") as f:
            f.write(self.data(self.size()))
        self.files.append(path)

    def mkdir(self):
        path = self.place()
        os.mkdir(path)
        self.dirs.append(path)

    def special(self):
        path = self.place()
        kind = self.rng.randrange(3)
        if kind == 0:
            os.symlink(self.name(), path)
        elif kind == 1:
            os.mkfifo(path)
        else:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(self.rng.randrange(300), self.rng.randrange(70000)))
        self.others.append(path)

    def write(self):
        path = self.rng.choice(self.files)
        with open(path, "r+b") as f:
            f.seek(self.rng.choice([0, 1, BLOCK, 10000, 65536, self.rng.randrange(400000)]))
            f.write(self.data(self.size()))
        if self.rng.random() < 0.3:
            os.sync()

    def truncate(self):
        os.truncate(self.rng.choice(self.files), self.rng.choice([self.size(), self.rng.randrange(300000)]))

    def fallocate(self):
        fd = os.open(self.rng.choice(self.files), os.O_RDWR)
        offset, length = self.rng.randrange(60) * BLOCK, self.rng.randrange(1, 40) * BLOCK
        libc.fallocate(fd, self.rng.choice([0, 1, 3]), ctypes.c_long(offset), ctypes.c_long(length))
        os.close(fd)

    def clone(self):
        source, target = self.rng.choice(self.files), self.rng.choice(self.files)
        size = os.path.getsize(source)
        offset = self.rng.randrange(size // BLOCK + 1) * BLOCK
        length = self.rng.choice([0, BLOCK, 4 * BLOCK, 16 * BLOCK])
        to = self.rng.choice([offset, self.rng.randrange(80) * BLOCK])
        with open(source, "rb") as s, open(target, "r+b") as t:
            fcntl.ioctl(t, FICLONERANGE, struct.pack("=qQQQ", s.fileno(), offset, length, to))

    def copy(self):
        source, path = self.rng.choice(self.files), self.place()
        with open(source, "rb") as s, open(path, "wb") as t:
            fcntl.ioctl(t, FICLONERANGE, struct.pack("=qQQQ", s.fileno(), 0, 0, 0))
        self.files.append(path)

    def link(self):
        group = self.rng.choice([g for g in (self.files, self.others) if g])
        path = self.place()
        os.link(self.rng.choice(group), path, follow_symlinks=False)
        group.append(path)

    def unlink(self):
        group = self.rng.choice([g for g in (self.files, self.others) if g])
        path = self.rng.choice(group)
        os.unlink(path)
        group.remove(path)

    def rename(self):
        group = self.rng.choice([g for g in (self.files, self.others, self.dirs[1:]) if g])
        old, new = self.rng.choice(group), self.place()
        if (new + "/").startswith(old + "/"):
            return
        os.rename(old, new)
        for group in (self.files, self.others, self.dirs):
            for i, path in enumerate(group):
                if path == old or path.startswith(old + "/"):
                    group[i] = new + path[len(old):]

    def swap(self):
        if len(self.dirs) < 3:
            return
        one, two = self.rng.sample(self.dirs[1:], 2)
        if (one + "/").startswith(two + "/") or (two + "/").startswith(one + "/"):
            return
        if libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(two), 2) != 0:
            raise OSError(ctypes.get_errno(), "renameat2")
        for group in (self.files, self.others, self.dirs):
            for i, path in enumerate(group):
                if (path + "/").startswith(one + "/") and path != one:
                    group[i] = two + path[len(one):]
                elif (path + "/").startswith(two + "/") and path != two:
                    group[i] = one + path[len(two):]

    def rmdir(self):
        for path in self.rng.sample(self.dirs[1:], min(5, len(self.dirs) - 1)):
            try:
                os.rmdir(path)
                self.dirs.remove(path)
                return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise

    def attributes(self):
        path = self.rng.choice(self.files + self.dirs)
        kind = self.rng.randrange(5)
        if kind == 0:
            os.chmod(path, self.rng.randrange(0o10000))
        elif kind == 1:
            os.chown(path, self.rng.randrange(5), self.rng.randrange(5))
        elif kind == 2:
            os.setxattr(path, f"user.x{self.rng.randrange(4)}", self.rng.randbytes(self.rng.randrange(50)))
        elif kind == 3 and os.listxattr(path):
            os.removexattr(path, self.rng.choice(os.listxattr(path)))
        else:
            capability = struct.pack("<IIIII", 0x02000001, self.rng.randrange(1 << 20), 0, 0, 0)
            os.setxattr(path, "security.capability", capability)

    def change(self):
        weights = {
            self.create: 20, self.mkdir: 10, self.special: 4, self.write: 15, self.truncate: 5, self.fallocate: 5,
            self.clone: 12, self.copy: 6, self.link: 8, self.unlink: 6, self.rename: 15, self.swap: 2, self.rmdir: 3,
            self.attributes: 10,
        }
        kind = self.rng.choices(list(weights), list(weights.values()))[0]
        if kind in (self.write, self.truncate, self.fallocate, self.clone, self.copy) and not self.files:
            kind = self.create
        if kind in (self.link, self.unlink, self.rename) and not self.files and not self.others:
            kind = self.create
        try:
            kind()
        except OSError as error:
            # A name that is taken, a clone that cannot be: the next change is as good.
            if error.errno not in (errno.EEXIST, errno.EINVAL, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR,
                                   errno.ENAMETOOLONG, errno.EMLINK, errno.ENODATA):
                raise


def main():
    mount, seed = sys.argv[1], int(sys.argv[2])
    batches = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    changes = int(sys.argv[4]) if len(sys.argv) > 4 else 300
    base = f"{mount}/base"
    subprocess.run(["btrfs", "subvolume", "create", base], check=True, stdout=subprocess.DEVNULL)
    tree = Tree(base, seed)
    for batch in range(batches):
        for _ in range(changes):
            tree.change()
        os.sync()
        subprocess.run(
            ["btrfs", "subvolume", "snapshot", "-r", base, f"{mount}/snap-{batch}"],
            check=True, stdout=subprocess.DEVNULL,
        )


if __name__ == "__main__":
    main()
