#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Commands about features that this driver lacks, on a volume that never used them: what each driver answers.

Usage: refused_calls.py c|rbtrfs DIRECTORY. Prints a line for each answer that is not the one in the table, and exits with
1 then.
"""

import ctypes
import errno
import fcntl
import os
import struct
import sys


def ioc(direction, number, size, kind=0x94):
    return direction << 30 | size << 16 | kind << 8 | number


WRITE, READ, BOTH = 1, 2, 3
DEVID = struct.pack("=Q", 1)


def buffer(head, size):
    return bytearray(head + bytes(size - len(head)))


def inherit(groups=0, size=None, flags=0, copies=0):
    """A subvolume's arguments with quota groups to be in; keeps the structure that they point to."""
    head = struct.pack("=QQQQ5Q", flags, groups, copies, 0, 0, 0, 0, 0, 0) + b"\1\0\0\0\0\0\1\0" * groups
    keep = ctypes.create_string_buffer(head, len(head))
    length = len(head) if size is None else size
    arguments = struct.pack("=qQQQQQQ", 0, 0, 4, length, ctypes.addressof(keep), 0, 0) + b"name%d" % len(KEPT)
    KEPT.append(keep)
    return buffer(arguments, 4096)


KEPT = []
SUBVOL_CREATE = ioc(WRITE, 24, 4096)
QUOTA = ioc(BOTH, 40, 16)
REPLACE = ioc(BOTH, 53, 2600)

# What, the command, its argument, what the C driver answers, and what this one does if that is
# another answer. What begins to use a feature works there, and is not tried: such rows have None.
CALLS = [
    ("quota enable", QUOTA, buffer(struct.pack("=Q", 1), 16), None, "EOPNOTSUPP"),
    ("simple quota enable", QUOTA, buffer(struct.pack("=Q", 4), 16), None, "EOPNOTSUPP"),
    ("quota disable", QUOTA, buffer(struct.pack("=Q", 2), 16), "ok", None),
    ("another quota command", QUOTA, buffer(struct.pack("=Q", 9), 16), "EINVAL", None),
    ("qgroup assign", ioc(WRITE, 41, 24), buffer(struct.pack("=QQQ", 1, 256, 1 << 48), 24), "ENOTCONN", None),
    ("qgroup create", ioc(WRITE, 42, 16), buffer(struct.pack("=QQ", 1, 1 << 48), 16), "ENOTCONN", None),
    ("qgroup limit", ioc(READ, 43, 48), buffer(b"", 48), "ENOTCONN", None),
    ("quota rescan", ioc(WRITE, 44, 64), buffer(b"", 64), "ENOTCONN", None),
    ("quota rescan status", ioc(READ, 45, 64), buffer(b"\xff" * 64, 64), "ok " + "00" * 16, None),
    ("quota rescan wait", ioc(0, 46, 0), None, "ok", None),
    ("subvolume in no group", SUBVOL_CREATE, inherit(), "ok", None),
    ("subvolume in a group", SUBVOL_CREATE, inherit(groups=1), "ok", None),
    ("subvolume with limits", SUBVOL_CREATE, inherit(flags=1), "ok", None),
    ("unknown flags of groups", SUBVOL_CREATE, inherit(flags=2), "EOPNOTSUPP", None),
    ("numbers to be copied", SUBVOL_CREATE, inherit(copies=1), "EINVAL", None),
    ("groups of another size", SUBVOL_CREATE, inherit(groups=1, size=72), "EINVAL", None),
    ("groups of no size", SUBVOL_CREATE, inherit(size=8), "EINVAL", None),
    ("replace start", REPLACE, buffer(struct.pack("=QQQ", 0, 0, 1), 2600), None, "EOPNOTSUPP"),
    ("replace status", REPLACE, buffer(struct.pack("=QQ", 1, 7), 2600), "ok 01" + "00" * 15, None),
    ("replace cancel", REPLACE, buffer(struct.pack("=QQ", 2, 7), 2600), "ok 02" + "00" * 7 + "01" + "00" * 7, None),
    ("another replace command", REPLACE, buffer(struct.pack("=Q", 3), 2600), "EINVAL", None),
    ("scrub of no device", ioc(BOTH, 27, 1024), buffer(struct.pack("=QQQQ", 9, 0, 1 << 40, 1), 1024), "ENODEV", None),
    ("scrub with unknown flags", ioc(BOTH, 27, 1024), buffer(struct.pack("=QQQQ", 1, 0, 1 << 40, 2), 1024), "EOPNOTSUPP", None),
    ("scrub cancel", ioc(0, 28, 0), None, "ENOTCONN", None),
    ("scrub progress", ioc(BOTH, 29, 1024), buffer(DEVID, 1024), "ENOTCONN", None),
    ("scrub progress of no device", ioc(BOTH, 29, 1024), buffer(struct.pack("=Q", 9), 1024), "ENODEV", None),
    ("no features to change", ioc(WRITE, 57, 48), buffer(b"", 48), "ok", None),
    ("a feature to change", ioc(WRITE, 57, 48), buffer(struct.pack("=6Q", 0, 0, 1 << 40, 0, 0, 1 << 40), 48), "EOPNOTSUPP", None),
    ("resize of no device", ioc(WRITE, 3, 4096), buffer(struct.pack("=q", 0) + b"9:max", 4096), "ENODEV", None),
    ("resize to no size", ioc(WRITE, 3, 4096), buffer(struct.pack("=q", 0) + b"1:", 4096), "EINVAL", None),
    ("resize without an end", ioc(WRITE, 3, 4096), bytearray(b"\1" * 4096), "ENAMETOOLONG", None),
    ("no resize to cancel", ioc(WRITE, 3, 4096), buffer(struct.pack("=q", 0) + b"cancel", 4096), "ENOTCONN", None),
    ("add a device", ioc(WRITE, 10, 4096), buffer(struct.pack("=q", 0) + b"/no/such", 4096), "ENOENT", "EOPNOTSUPP"),
    ("defragment", ioc(WRITE, 2, 4096), buffer(b"", 4096), None, "EOPNOTSUPP"),
    ("a command that does not exist", ioc(0, 200, 0), None, "ENOTTY", None),
]


def main():
    column, directory = sys.argv[1], sys.argv[2]
    failed = False
    fd = os.open(directory, os.O_RDONLY)
    for what, command, argument, expected, ours in CALLS:
        if column == "rbtrfs" and ours is not None:
            expected = ours
        if expected is None:
            continue
        try:
            fcntl.ioctl(fd, command, argument if argument is not None else 0)
            shown = argument[:16].hex() if argument is not None and expected.startswith("ok ") else ""
            found = f"ok {shown}".strip()
        except OSError as error:
            found = "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else errno.errorcode[error.errno]
        if found != expected:
            print(f"{what}: expected {expected}, found {found}")
            failed = True
    return failed


sys.exit(main())
