#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Calls BTRFS_IOC_SEND with exactly the arguments given, which btrfs-progs would not do.

usage: send_ioctl.py SUBVOLUME OUTPUT [flags=N] [version=N] [parent=ID] [clone=ID]...

Prints nothing; exits with the errno of the ioctl, 0 for success.
"""

import ctypes
import fcntl
import os
import struct
import sys

SEND = 0x40489426


def main():
    subvolume, output, options = sys.argv[1], sys.argv[2], sys.argv[3:]
    values = {"flags": 0, "version": 0, "parent": 0}
    sources = []
    for option in options:
        name, value = option.split("=")
        if name == "clone":
            sources.append(int(value, 0))
        else:
            values[name] = int(value, 0)
    array = (ctypes.c_uint64 * max(len(sources), 1))(*sources)
    subvolume = os.open(subvolume, os.O_RDONLY)
    out = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    args = struct.pack(
        "=qQQQQI28x",
        out,
        len(sources),
        ctypes.addressof(array) if sources else 0,
        values["parent"],
        values["flags"],
        values["version"],
    )
    try:
        fcntl.ioctl(subvolume, SEND, args)
    except OSError as error:
        return error.errno
    return 0


if __name__ == "__main__":
    sys.exit(main())
