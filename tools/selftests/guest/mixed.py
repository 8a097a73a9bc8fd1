#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Random operations on the files of a directory, compared with a model in memory all along and at the end.

usage: mixed.py DIRECTORY SEED OPERATIONS

Prints the operation that led to a difference, those before it, and what differs.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import random
import struct
import sys

FICLONERANGE = 0x4020940D
FIDEDUPERANGE = 0xC0189436
KEEP_SIZE, PUNCH, ZERO = 1, 2, 16
LARGEST = 300_000
BLOCK = 4096

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


class Different(Exception):
    pass


def fallocate(fd, mode, offset, length):
    if libc.fallocate(fd, mode, offset, length) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


class Model:
    """Files by name; two names of one file share its contents. Directories have their names end in a slash."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.files, self.dirs = {}, {""}
        self.serial = 0

    def new_name(self):
        self.serial += 1
        return self.random.choice(sorted(self.dirs)) + f"f{self.serial}" + "x" * self.random.choice((0, 0, 100))

    def any_file(self):
        return self.random.choice(sorted(self.files)) if self.files else self.create()

    def range(self, size):
        start = self.random.randrange(size + 1)
        return start, self.random.choice((1, 10, 1000, 5000, 70_000)) + self.random.randrange(100)

    def blocks(self, size):
        last = max(size // BLOCK, 1)
        start = self.random.randrange(last)
        return start * BLOCK, self.random.randrange(1, last - start + 1) * BLOCK

    def bytes(self, length):
        return self.random.randbytes(min(length, 64)) * (length // 64 + 1) if length > 64 else self.random.randbytes(length)

    # Each operation does the same to the volume and to the model.

    def create(self):
        name = self.new_name()
        data = self.bytes(self.random.choice((0, 5, 1500, 3000, 9000)))
        with open(name, "wb") as f:
            f.write(data)
        self.files[name] = bytearray(data)
        return name

    def store(self, data, offset, new):
        if len(data) < offset:
            data.extend(bytes(offset - len(data)))
        data[offset : offset + len(new)] = new

    def write(self):
        name = self.any_file()
        data = self.files[name]
        offset, length = self.range(min(len(data) + 10_000, LARGEST))
        new = self.bytes(length)
        fd = os.open(name, os.O_WRONLY)
        done = os.pwrite(fd, new, offset)
        if self.random.randrange(8) == 0:
            self.random.choice((os.fsync, os.fdatasync))(fd)
        os.close(fd)
        if done != len(new):
            raise Different(f"{name}: {done} bytes of {len(new)} written")
        self.store(data, offset, new)

    def write_direct(self):
        name = self.any_file()
        offset, length = self.blocks(LARGEST)
        length = min(length, 65536)
        buffer = mmap.mmap(-1, length)
        buffer.write(self.bytes(length)[:length])
        fd = os.open(name, os.O_WRONLY | os.O_DIRECT)
        os.pwritev(fd, [buffer], offset)
        os.close(fd)
        self.store(self.files[name], offset, buffer[:length])

    def write_mapped(self):
        name = self.any_file()
        data = self.files[name]
        if not data:
            return
        offset = self.random.randrange(len(data))
        new = self.bytes(self.random.randrange(1, 9000))[: len(data) - offset]
        with open(name, "r+b") as f, mmap.mmap(f.fileno(), 0) as mapped:
            mapped[offset : offset + len(new)] = new
        data[offset : offset + len(new)] = new

    def truncate(self):
        name = self.any_file()
        size, data = self.random.randrange(LARGEST), self.files[name]
        if self.random.randrange(2):
            size = min(size, len(data))
        os.truncate(name, size)
        del data[size:]
        data.extend(bytes(size - len(data)))

    def allocate(self):
        name = self.any_file()
        data = self.files[name]
        offset, length = self.range(max(len(data), 1))
        mode = self.random.choice((0, KEEP_SIZE, PUNCH | KEEP_SIZE, PUNCH | KEEP_SIZE, ZERO, ZERO | KEEP_SIZE))
        fd = os.open(name, os.O_RDWR)
        fallocate(fd, mode, offset, length)
        os.close(fd)
        if not mode & KEEP_SIZE and offset + length > len(data):
            data.extend(bytes(offset + length - len(data)))
        if mode & (PUNCH | ZERO):
            end = min(offset + length, len(data))
            if end > offset:
                data[offset:end] = bytes(end - offset)

    def clone(self):
        source, target = self.any_file(), self.any_file()
        size = len(self.files[source])
        if self.files[source] is self.files[target] or size < BLOCK:
            return
        start, length = self.blocks(size)
        offset = self.random.randrange(40) * BLOCK
        new = bytes(self.files[source][start : start + length])
        s, t = os.open(source, os.O_RDONLY), os.open(target, os.O_RDWR)
        try:
            fcntl.ioctl(t, FICLONERANGE, struct.pack("qQQQ", s, start, len(new), offset))
        except OSError as e:
            # A small file in the tree, which the range does not cover, stays there.
            if e.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
        else:
            self.store(self.files[target], offset, new)
        os.close(s)
        os.close(t)

    def dedupe(self):
        source, target = self.any_file(), self.any_file()
        size = min(len(self.files[source]), len(self.files[target]))
        if self.files[source] is self.files[target] or size < BLOCK:
            return
        start, length = self.blocks(size)
        same = self.files[source][start : start + length] == self.files[target][start : start + length]
        s, t = os.open(source, os.O_RDONLY), os.open(target, os.O_RDWR)
        request = bytearray(struct.pack("QQHHI", start, length, 1, 0, 0) + struct.pack("qQQiI", t, start, 0, 0, 0))
        fcntl.ioctl(s, FIDEDUPERANGE, request)
        status = struct.unpack_from("i", request, 24 + 24)[0]
        os.close(s)
        os.close(t)
        if same != (status == 0):
            raise Different(f"dedupe of {source} and {target}: {status}, equal: {same}")

    def copy(self):
        source, target = self.any_file(), self.any_file()
        if self.files[source] is self.files[target]:
            return
        start, length = self.range(len(self.files[source]))
        new = bytes(self.files[source][start : start + length])
        offset = self.random.randrange(min(LARGEST, len(self.files[target]) + 10_000))
        with open(source, "rb") as s, open(target, "r+b") as t:
            done = 0
            while done < len(new):
                more = os.copy_file_range(s.fileno(), t.fileno(), len(new) - done, start + done, offset + done)
                if more == 0:
                    raise Different(f"copy from {source}: {done} of {len(new)}")
                done += more
        if new:
            self.store(self.files[target], offset, new)

    def link(self):
        name, new = self.any_file(), self.new_name()
        os.link(name, new)
        self.files[new] = self.files[name]

    def unlink(self):
        name = self.any_file()
        held = os.open(name, os.O_RDWR) if self.random.randrange(3) == 0 else None
        os.unlink(name)
        data = self.files.pop(name)
        if held is not None:
            os.pwrite(held, b"gone", 0)
            self.store(data, 0, b"gone")
            if os.pread(held, len(data) + 1, 0) != bytes(data):
                raise Different(f"{name}, which is open and has lost its name")
            os.close(held)

    def rename(self):
        name, new = self.any_file(), self.random.choice((self.new_name, self.any_file))()
        os.rename(name, new)
        # Two names of one file both stay.
        if self.files.get(new) is self.files[name]:
            return
        self.files[new] = self.files.pop(name)

    def make_dir(self):
        if len(self.dirs) > 12:
            return
        name = self.new_name()
        os.mkdir(name)
        self.dirs.add(name + "/")

    def remove_dir(self):
        name = self.random.choice(sorted(self.dirs))
        if name == "" or any(n.startswith(name) and n != name for n in (*self.files, *self.dirs)):
            return
        os.rmdir(name)
        self.dirs.remove(name)

    def move_dir(self):
        name, to = self.random.choice(sorted(self.dirs)), self.new_name() + "/"
        if name == "" or to.startswith(name):
            return
        os.rename(name[:-1], to[:-1])
        moved = lambda old: to + old[len(name) :] if old.startswith(name) else old
        self.dirs = {moved(old) for old in self.dirs}
        self.files = {moved(old): data for old, data in self.files.items()}

    def set_attribute(self):
        name, value = self.random.choice(sorted(self.dirs)), self.bytes(self.random.choice((0, 10, 2000)))
        os.setxattr(name or ".", "user.value", value)
        if os.getxattr(name or ".", "user.value") != value:
            raise Different(f"user.value of {name}")

    def sync(self):
        fd = os.open(".", os.O_RDONLY)
        libc.syncfs(fd)
        os.close(fd)

    def compare_one(self):
        name = self.any_file()
        self.compare(name)

    def compare(self, name):
        with open(name, "rb") as f:
            found = f.read()
        wanted = self.files[name]
        if found != wanted:
            at = next((i for i, (a, b) in enumerate(zip(found, wanted)) if a != b), min(len(found), len(wanted)))
            raise Different(f"{name}: {len(found)} bytes, expected {len(wanted)}; they differ at {at}")

    def compare_all(self):
        found = []
        for dir, dirs, files in os.walk("."):
            dir = dir[2:] + "/" if dir != "." else ""
            found += [dir + name for name in files] + [dir + name + "/" for name in dirs]
        wanted = [*self.files, *(self.dirs - {""})]
        if sorted(found) != sorted(wanted):
            raise Different(f"names: {sorted(set(found) ^ set(wanted))}")
        for name in self.files:
            self.compare(name)
            links = sum(data is self.files[name] for data in self.files.values())
            if os.stat(name).st_nlink != links:
                raise Different(f"{name}: {os.stat(name).st_nlink} links, expected {links}")


OPERATIONS = (
    [Model.create, Model.write, Model.write] * 3
    + [Model.write_direct, Model.write_mapped, Model.truncate, Model.allocate, Model.allocate, Model.clone, Model.copy]
    + [Model.dedupe, Model.link, Model.unlink, Model.rename, Model.make_dir, Model.remove_dir, Model.move_dir]
    + [Model.set_attribute, Model.compare_one, Model.compare_one]
)


def main():
    os.chdir(sys.argv[1])
    model, done = Model(int(sys.argv[2])), []
    for n in range(int(sys.argv[3])):
        operation = Model.sync if n % 500 == 499 else model.random.choice(OPERATIONS)
        if len(model.files) > 60:
            operation = Model.unlink
        done.append(operation.__name__)
        try:
            operation(model)
        except (Different, OSError) as e:
            print(f"seed {sys.argv[2]}, operation {n}: {e}; the last ones: {' '.join(done[-30:])}")
            sys.exit(1)
    try:
        model.compare_all()
    except (Different, OSError) as e:
        print(f"seed {sys.argv[2]}, at the end: {e}")
        sys.exit(1)


main()
