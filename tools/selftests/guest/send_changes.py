#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes random changes to a subvolume, with a read-only snapshot after each batch, for incremental sends.

usage: send_changes.py MOUNTPOINT SEED [BATCHES [CHANGES]]

Names come from a small set, so that what is moved takes the names of what was moved away, and some look like the
orphan names of a stream. With SEND_RECORD set, all data compresses well, and none of the other names begins with another
one: the C driver of Linux 6.18 compares paths of a deleted name and a current one only as far as the latter goes, that
of 7.3 does not. Now and then the subvolume is replaced by one made of an earlier snapshot, so that inodes of
the same number differ. The snapshots are MOUNTPOINT/snap-0 and so on. SEND_CHANGES says of what kind the changes are:
dirs, data, names, or mixed.
"""

import errno
import os
import random
import socket
import stat
import struct
import subprocess
import sys

import send_calls
from send_calls import BLOCK, COMPRESS, NODUMP

RECORD = "SEND_RECORD" in os.environ

WEIGHTS = {
    "mixed": dict(
        create=14, mkdir=8, special=3, write=14, truncate=6, punch=6, clone=10, dedupe=4, copy=5, link=8, unlink=7, rename=14,
        exchange=3, invert=4, rmdir=4, remove_tree=1, attributes=10, subvolume=1, orphan=1, many_links=1, sync=1,
    ),
    "dirs": dict(create=6, mkdir=14, link=3, unlink=3, rename=20, exchange=8, invert=16, rmdir=8, remove_tree=2,
                 attributes=2, subvolume=1, move_dir=25, write=1),
    "data": dict(create=8, write=25, truncate=14, punch=20, clone=22, dedupe=12, copy=6, unlink=3, rename=3, attributes=2, sync=6),
    "names": dict(create=10, mkdir=4, special=2, link=25, unlink=14, rename=22, exchange=8, many_links=3, rmdir=3,
                  move_dir=6, attributes=1, orphan=1),
}


class Tree:
    """A directory tree under random change."""

    def __init__(self, mount, seed, kind):
        self.mount = mount
        self.rng = random.Random(f"{kind} {seed}")
        self.weights = WEIGHTS[kind]
        self.pool = [f"{c}" for c in "abcdefgh"] + ["long" * 30, "x" * 255]
        self.bases = 0
        self.held = []
        self.stale = True
        self.new_base(None)

    def new_base(self, snapshot):
        self.top = f"{self.mount}/base{self.bases}"
        self.bases += 1
        if snapshot is None:
            send_calls.subvolume(self.top)
        else:
            send_calls.run("btrfs", "subvolume", "snapshot", snapshot, self.top)
        self.stale = True

    def scan(self):
        if not self.stale:
            return
        self.dirs, self.files, self.others = [self.top], [], []
        device = os.lstat(self.top).st_dev
        queue = [self.top]
        while queue:
            here = queue.pop()
            for name in sorted(os.listdir(here)):
                path = f"{here}/{name}"
                info = os.lstat(path)
                if info.st_dev != device:
                    continue
                if stat.S_ISDIR(info.st_mode):
                    # An empty directory stands where a snapshot had a subvolume.
                    if info.st_ino != 2:
                        self.dirs.append(path)
                        queue.append(path)
                elif stat.S_ISREG(info.st_mode):
                    self.files.append(path)
                else:
                    self.others.append(path)
        self.stale = False

    def name(self):
        if self.rng.random() < 0.06:
            return f"o{self.rng.randrange(257, 300)}-{self.rng.randrange(7, 14)}-{self.rng.randrange(2)}"
        name = self.rng.choice(self.pool) + self.rng.choice(["", "", "", "", "1", "2"])
        return f"{name[:254]}." if RECORD else name

    def place(self):
        directory = self.rng.choice(self.dirs)
        if self.rng.random() < 0.2:
            directory = self.top
        name = self.name()
        return f"{directory}/{name[:255]}"

    def data(self, size):
        if self.rng.random() < 0.4 or RECORD:
            return (b"%d " % self.rng.randrange(50)) * (size // 3 + 1)
        return self.rng.randbytes(size)

    def size(self):
        return self.rng.choice([0, 1, 100, 2000, 4096, 5000, 20000, 70000, 200000])

    def create(self):
        path = self.place()
        # Now and then over what is there, if it can be written to without waiting for somebody.
        mode = "wb" if self.rng.random() < 0.3 and (os.path.isfile(path) or not os.path.lexists(path)) else "xb"
        with open(path, mode) as f:
            f.write(self.data(self.size()))

    def mkdir(self):
        os.mkdir(self.place())

    def special(self):
        path, kind = self.place(), self.rng.randrange(4)
        if kind == 0:
            os.symlink(self.name(), path)
        elif kind == 1:
            os.mkfifo(path)
        elif kind == 2 and len(path) < 100:
            with socket.socket(socket.AF_UNIX) as s:
                s.bind(path)
        else:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(self.rng.randrange(300), self.rng.randrange(70000)))

    def write(self):
        with open(self.rng.choice(self.files), "r+b") as f:
            f.seek(self.rng.choice([0, 1, BLOCK, 10000, 65536, self.rng.randrange(400000)]))
            f.write(self.data(self.size()))
        if self.rng.random() < 0.3:
            self.sync()

    def sync(self):
        send_calls.sync(self.top)

    def truncate(self):
        path = self.rng.choice(self.files)
        sizes = [self.size(), self.rng.randrange(300000), os.path.getsize(path) // BLOCK * BLOCK]
        os.truncate(path, self.rng.choice(sizes))

    def punch(self):
        path = self.rng.choice(self.files)
        offset, length = self.rng.randrange(60) * BLOCK, self.rng.randrange(1, 40) * BLOCK
        if self.rng.random() < 0.2:
            offset, length = self.rng.randrange(200000), self.rng.randrange(1, 100000)
        # Preallocation with and without growth, holes, zeros.
        send_calls.fallocate(path, self.rng.choice([0, 1, 3, 3, 3, 0x10, 0x11]), offset, length)

    def range(self):
        """Two files, where to read in the first, how much, and where in the second it goes."""
        source, target = self.rng.choice(self.files), self.rng.choice(self.files)
        size = os.path.getsize(source)
        offset = self.rng.randrange(size // BLOCK + 1) * BLOCK
        length = self.rng.choice([0, 0, BLOCK, 4 * BLOCK, 16 * BLOCK])
        return source, target, offset, length, self.rng.choice([offset, self.rng.randrange(80) * BLOCK, 0])

    def clone(self):
        send_calls.clone(*self.range())

    def dedupe(self):
        """Writes into a file what is in another one, and lets them share it."""
        source, target, offset, length, to = self.range()
        with open(source, "rb") as f:
            f.seek(offset)
            data = f.read(length or -1)
        with open(target, "r+b") as f:
            f.seek(to)
            f.write(data)
        # A block in part can be shared where both files end in it, and only there.
        length = len(data)
        if os.path.getsize(source) > offset + length or os.path.getsize(target) > to + length:
            length -= length % BLOCK
        if length:
            send_calls.dedupe(source, target, offset, length, to)

    def copy(self):
        source, path = self.rng.choice(self.files), self.place()
        with open(path, "xb"):
            send_calls.clone(source, path)

    def link(self):
        os.link(self.rng.choice(self.files + self.others), self.place(), follow_symlinks=False)

    def many_links(self):
        path, directory = self.rng.choice(self.files), self.rng.choice(self.dirs)
        start = self.rng.randrange(40)
        for i in range(start, start + self.rng.randrange(1, 60)):
            os.link(path, f"{directory}/link-{'l' * (i % 70)}-{i}.")

    def unlink(self):
        os.unlink(self.rng.choice(self.files + self.others))

    def rename(self):
        old, new = self.rng.choice(self.files + self.others + self.dirs[1:]), self.place()
        os.rename(old, new)

    def move_dir(self):
        """Moves a directory into another one, under its own name or that of another one."""
        old, into = self.rng.choice(self.dirs[1:]), self.rng.choice(self.dirs)
        name = self.rng.choice([os.path.basename(old), self.name(), os.path.basename(self.rng.choice(self.dirs[1:]))])
        os.rename(old, f"{into}/{name}")

    def exchange(self):
        """Two names change places."""
        paths = self.dirs[1:] + (self.files + self.others if self.rng.random() < 0.4 else [])
        one, two = self.rng.sample(paths, 2)
        send_calls.exchange(one, two)

    def invert(self):
        """A directory goes into one that was below it."""
        lower = self.rng.choice(self.dirs[1:])
        above = [path for path in self.dirs[1:] if lower.startswith(path + "/")]
        if not above:
            return
        upper = self.rng.choice(above)
        parent = os.path.dirname(upper)
        aside = f"{self.top}/aside{self.rng.randrange(3)}."
        os.rename(lower, aside)
        os.rename(upper, f"{aside}/{self.rng.choice([os.path.basename(upper), self.name()])}")
        if self.rng.random() < 0.8:
            os.rename(aside, f"{parent}/{self.rng.choice([os.path.basename(upper), os.path.basename(lower), self.name()])}")

    def rmdir(self):
        for path in self.rng.sample(self.dirs[1:], min(5, len(self.dirs) - 1)):
            try:
                os.rmdir(path)
                return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise

    def remove_tree(self):
        """Removes a directory, and moves some of what is in it elsewhere before."""
        top = self.rng.choice(self.dirs[1:])
        inside = [path for path in self.dirs + self.files + self.others if path.startswith(top + "/")]
        for path in self.rng.sample(inside, min(len(inside), self.rng.randrange(4))):
            try:
                os.rename(path, self.place())
            except OSError:
                pass
        subprocess.run(["rm", "-rf", "--one-file-system", top], check=False, stderr=subprocess.DEVNULL)

    def orphan(self):
        """A file that is deleted and open when the snapshot is made."""
        path = self.rng.choice(self.files)
        self.held.append(open(path, "rb"))
        os.unlink(path)

    def subvolume(self):
        path = self.place()
        if os.path.lexists(path):
            return
        send_calls.subvolume(path)

    def attributes(self):
        path = self.rng.choice(self.files + self.dirs)
        kind = self.rng.randrange(8)
        if kind == 0:
            os.chmod(path, self.rng.randrange(0o10000))
        elif kind == 1:
            os.chown(path, self.rng.randrange(5), self.rng.randrange(5))
        elif kind in (2, 3):
            os.setxattr(path, f"user.x{self.rng.randrange(4)}", self.rng.randbytes(self.rng.randrange(50)))
        elif kind == 4 and os.listxattr(path):
            os.removexattr(path, self.rng.choice(os.listxattr(path)))
        elif kind == 5:
            send_calls.set_flags(path, self.rng.choice([0, NODUMP, COMPRESS]))
        elif kind == 6:
            os.utime(path, (self.rng.randrange(1 << 31), self.rng.randrange(1 << 31)))
        elif os.path.isfile(path):
            capability = struct.pack("<IIIII", 0x02000001, self.rng.randrange(1 << 20), 0, 0, 0)
            os.setxattr(path, "security.capability", capability)

    def change(self):
        self.scan()
        kind = self.rng.choices(list(self.weights), list(self.weights.values()))[0]
        if kind in ("write", "truncate", "punch", "clone", "dedupe", "copy", "link", "unlink", "many_links", "orphan"):
            if not self.files:
                kind = "create"
        if kind in ("move_dir", "exchange", "invert", "rmdir", "remove_tree", "rename") and len(self.dirs) < 3:
            kind = "mkdir"
        try:
            getattr(self, kind)()
        except OSError as error:
            # A name that is taken, a move that cannot be: the next change is as good.
            if error.errno not in (errno.EEXIST, errno.EINVAL, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR, errno.ENXIO,
                                   errno.ENAMETOOLONG, errno.EMLINK, errno.ENODATA, errno.ENOENT, errno.EPERM,
                                   errno.EXDEV, errno.EBUSY, errno.EOPNOTSUPP, errno.ETXTBSY, errno.EADDRINUSE):
                raise
        if kind not in ("write", "truncate", "punch", "clone", "dedupe", "attributes", "sync"):
            self.stale = True


def main():
    mount, seed = sys.argv[1], int(sys.argv[2])
    batches = int(sys.argv[3]) if len(sys.argv) > 3 else 4
    changes = int(sys.argv[4]) if len(sys.argv) > 4 else 60
    tree = Tree(mount, seed, os.environ.get("SEND_CHANGES", "mixed"))
    for batch in range(batches):
        if batch > 1 and tree.rng.random() < 0.25:
            tree.new_base(f"{mount}/snap-{tree.rng.randrange(batch - 1)}")
        for _ in range(changes if batch else 2 * changes):
            tree.change()
        send_calls.snapshot(tree.top, f"{mount}/snap-{batch}")
        for held in tree.held:
            held.close()
        tree.held = []


if __name__ == "__main__":
    main()
