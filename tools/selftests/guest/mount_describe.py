#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Prints all that user space can see of a tree: types, attributes, names in order, xattrs, data and its holes."""

import hashlib
import os
import stat
import sys

# What stands for a subvolume that a snapshot does not contain is made when it is looked at.
STAND_IN = 2


def segments(path, size):
    found = []
    fd = os.open(path, os.O_RDONLY)
    at = 0
    while at < size:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            found.append(("end", error.errno))
            break
        at = os.lseek(fd, data, os.SEEK_HOLE)
        found.append((data, at))
    os.close(fd)
    return found


def digest(path):
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()


def describe(path, shown):
    st = os.lstat(path)
    line = [shown, oct(st.st_mode), st.st_ino, st.st_nlink, st.st_uid, st.st_gid]
    line += [st.st_size, st.st_blocks, st.st_blksize, st.st_rdev]
    if st.st_ino != STAND_IN:
        line += [st.st_mtime_ns, st.st_ctime_ns, st.st_atime_ns]
    try:
        for name in sorted(os.listxattr(path, follow_symlinks=False)):
            value = os.getxattr(path, name, follow_symlinks=False)
            line.append((name, value.hex()))
    except OSError as error:
        line.append(("xattrs", error.errno))
    if stat.S_ISLNK(st.st_mode):
        line.append(os.readlink(path))
    if stat.S_ISREG(st.st_mode):
        try:
            line += [digest(path), segments(path, st.st_size)]
        except OSError as error:
            line.append(("read", error.errno))
    print(*line)
    if stat.S_ISDIR(st.st_mode):
        with os.scandir(path) as entries:
            entries = [(e.name, e.inode(), e.is_dir(follow_symlinks=False)) for e in entries]
        print(" order", shown, entries)
        for name, _, _ in sorted(entries):
            describe(os.path.join(path, name), shown + "/" + name)


describe(sys.argv[1], ".")
