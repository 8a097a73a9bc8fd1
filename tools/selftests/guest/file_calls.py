#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Times, versions, attributes and reads that must not wait, which are to be as with the C driver.

Usage: file_calls.py DIRECTORY
"""

import ctypes
import errno
import fcntl
import os
import struct
import subprocess
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
TOP = sys.argv[1]
FILE_GETATTR = 468
failed = False


def want(what, expected, found):
    global failed
    if expected != found:
        print(f"{what}: expected {expected!r}, found {found!r}")
        failed = True


def name_of(f, *arguments, **more):
    try:
        f(*arguments, **more)
    except OSError as error:
        return "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else errno.errorcode[error.errno]
    return "ok"


def path(name):
    return os.path.join(TOP, name)


def changed_between(change, stat, rounds=300):
    """How many changes, each seen before the next, did not show in the time."""
    same = 0
    before = stat()
    for n in range(rounds):
        change(n)
        now = stat()
        same += now <= before
        before = now
    return same


def times():
    fd = os.open(path("times"), os.O_CREAT | os.O_RDWR, 0o644)
    want("writes that do not show", 0, changed_between(lambda n: os.pwrite(fd, b"x", 0), lambda: os.fstat(fd).st_mtime_ns))
    ctime = lambda: os.fstat(fd).st_ctime_ns
    want("modes that do not show", 0, changed_between(lambda n: os.fchmod(fd, 0o600 + n % 2), ctime))
    want("xattrs that do not show", 0, changed_between(lambda n: os.setxattr(fd, "user.x", b"%d" % n), ctime))
    want("sizes that do not show", 0, changed_between(lambda n: os.ftruncate(fd, n + 2), ctime))
    of_dir = lambda: os.stat(TOP).st_mtime_ns
    want("names that do not show", 0, changed_between(lambda n: os.close(os.open(path(f"n{n}"), os.O_CREAT, 0o644)), of_dir))
    want("renames that do not show", 0, changed_between(lambda n: os.rename(path(f"n{n}"), path(f"m{n}")), of_dir))
    want("removals that do not show", 0, changed_between(lambda n: os.unlink(path(f"m{n}")), of_dir))
    want("links that do not show", 0, changed_between(lambda n: os.link(path("times"), path(f"l{n}")), ctime))
    want("unlinks that do not show", 0, changed_between(lambda n: os.unlink(path(f"l{n}")), ctime))
    # Times never go back from one file to the next.
    latest = 0
    for n in range(200):
        os.pwrite(fd, b"y", 0)
        first = os.fstat(fd).st_mtime_ns
        os.close(os.open(path(f"t{n}"), os.O_CREAT, 0o644))
        second = os.stat(path(f"t{n}")).st_mtime_ns
        want("a file made after a write is older", True, second >= first >= latest)
        latest = second
        os.unlink(path(f"t{n}"))
    os.close(fd)


def version(name):
    fd = os.open(path(name), os.O_RDONLY)
    try:
        got = bytearray(8)
        fcntl.ioctl(fd, 0x80087601, got)
        return struct.unpack("=I", got[:4])[0]
    finally:
        os.close(fd)


def file_getattr(name):
    attributes = ctypes.create_string_buffer(24)
    if LIBC.syscall(FILE_GETATTR, -100, path(name).encode(), attributes, 24, 0x100) < 0:
        raise OSError(ctypes.get_errno(), "")


def attributes():
    os.mkfifo(path("fifo"))
    os.symlink("x", path("symlink"))
    os.mkdir(path("dir"))
    open(path("file"), "w").close()
    want("a version", True, version("file") > 0)
    want("the version of a directory", True, version("dir") > 0)
    for name, expected in (("file", "ok"), ("dir", "ok"), ("fifo", "EOPNOTSUPP"), ("symlink", "EOPNOTSUPP")):
        want(f"file_getattr of a {name}", expected, name_of(file_getattr, name))


def nowait():
    with open(path("hot"), "wb") as hot:
        hot.write(b"h" * 65536)
    fd = os.open(path("hot"), os.O_RDWR)
    os.pread(fd, 65536, 0)
    got = bytearray(65536)
    want("a read of what is cached", 65536, os.preadv(fd, [got], 0, os.RWF_NOWAIT))
    want("and what it read", b"h" * 65536, bytes(got))
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    found = name_of(os.preadv, fd, [got], 0, os.RWF_NOWAIT)
    want("a read of what is not", True, found in ("EAGAIN", "ok"))
    os.close(fd)


def lsattr(name):
    out = subprocess.run(["lsattr", "-d", path(name)], capture_output=True, text=True, check=False).stdout
    return "".join(letter for letter in out.split(" ")[0] if letter in "cm")


def prop(name):
    try:
        return os.getxattr(path(name), "btrfs.compression", follow_symlinks=False)
    except OSError:
        return None


def properties():
    key = "btrfs.compression"
    os.mkdir(path("c"))
    os.setxattr(path("c"), key, b"zstd:5")
    want("lsattr of a directory with zstd", "c", lsattr("c"))
    open(path("c/file"), "w").close()
    os.mkdir(path("c/dir"))
    os.symlink("x", path("c/symlink"))
    os.mkfifo(path("c/fifo"))
    for name, expected in (("file", b"zstd"), ("dir", b"zstd"), ("symlink", None), ("fifo", None)):
        want(f"the property of a new {name}", expected, prop(f"c/{name}"))
    want("lsattr of a new file", "c", lsattr("c/file"))
    os.setxattr(path("c/file"), key, b"none")
    want("lsattr with none", "m", lsattr("c/file"))
    os.setxattr(path("c/file"), key, b"")
    want("the property set to nothing", (None, ""), (prop("c/file"), lsattr("c/file")))
    want("set to nothing again", "ok", name_of(os.setxattr, path("c/file"), key, b""))
    want("removed", "ENODATA", name_of(os.removexattr, path("c/file"), key))
    want("another value", "EINVAL", name_of(os.setxattr, path("c/file"), key, b"gzip"))
    for name in ("symlink", "fifo"):
        want(f"set on a {name}", "ok", name_of(os.setxattr, path(f"c/{name}"), key, b"lzo", follow_symlinks=False))
        want(f"and not kept by the {name}", None, prop(f"c/{name}"))
    subprocess.run(["chattr", "+c", path("c/file")], check=False)
    want("chattr +c", (b"zlib", "c"), (prop("c/file"), lsattr("c/file")))
    subprocess.run(["chattr", "-c", "+m", path("c/file")], check=False)
    want("chattr +m", (None, "m"), (prop("c/file"), lsattr("c/file")))
    subprocess.run(["chattr", "-m", path("c/file")], check=False)
    want("chattr -m", (None, ""), (prop("c/file"), lsattr("c/file")))


times()
attributes()
nowait()
properties()
sys.exit(failed)
