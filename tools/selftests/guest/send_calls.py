# SPDX-License-Identifier: GPL-2.0
"""What those who fill volumes for send need of the system, and Python lacks."""

import ctypes
import fcntl
import os
import struct
import subprocess

FICLONERANGE = 0x4020940D
FIDEDUPERANGE = 0xC0189436
SETFLAGS = 0x40086602
NOCOW, NODUMP, COMPRESS = 0x00800000, 0x00000040, 0x00000004
KEEP, PUNCH, ZERO = 1, 2, 16
EXCHANGE = 2
AT_FDCWD = -100
BLOCK = 4096

libc = ctypes.CDLL(None, use_errno=True)


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def checked(result, what):
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what)


def subvolume(path):
    run("btrfs", "subvolume", "create", path)


def sync(path):
    """Writes out the file system of `path` and no other."""
    fd = os.open(path, os.O_RDONLY)
    try:
        checked(libc.syncfs(fd), path)
    finally:
        os.close(fd)


def snapshot(source, path):
    """A read-only snapshot, with all that was written before."""
    sync(source)
    run("btrfs", "subvolume", "snapshot", "-r", source, path)


def fallocate(path, mode, offset, length):
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        checked(libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)), path)
    finally:
        os.close(fd)


def exchange(one, two):
    """Two names change places."""
    checked(libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(two), EXCHANGE), one)


def set_flags(path, flags):
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, SETFLAGS, struct.pack("l", flags))
    finally:
        os.close(fd)


def clone(source, target, offset=0, length=0, to=0):
    """Clones a range into a file, which is made if it is not there; a length of 0 means as far as the end."""
    with open(source, "rb") as s, os.fdopen(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644), "wb") as t:
        fcntl.ioctl(t, FICLONERANGE, struct.pack("=qQQQ", s.fileno(), offset, length, to))


def dedupe(source, target, offset, length, to):
    """Lets two files share a range that is the same in both; answers how many bytes they share now."""
    with open(source, "rb") as s, open(target, "r+b") as t:
        request = bytearray(struct.pack("=QQHHIqQQiI", offset, length, 1, 0, 0, t.fileno(), to, 0, 0, 0))
        fcntl.ioctl(s, FIDEDUPERANGE, request)
    *_, shared, status, _ = struct.unpack("=QQHHIqQQiI", request)
    return shared if status == 0 else 0
