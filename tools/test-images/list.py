#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
# list.py FOLDER: one line for each path below a mounted top-level subvolume, as
# rust/tests/log/listing.rs writes it.

import os
import stat
import sys


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def line(top, path):
    st = os.lstat(path)
    content = 0
    if stat.S_ISLNK(st.st_mode):
        content = fnv(os.fsencode(os.readlink(path)))
    elif stat.S_ISREG(st.st_mode):
        with open(path, "rb") as file:
            content = fnv(file.read())
    name = os.path.relpath(path, top)
    name = name if name == "." else "./" + name
    text = f"{name} {st.st_ino} {st.st_mode:o} {st.st_nlink} {st.st_uid} {st.st_gid} {st.st_size} {content:016x}"
    for xattr in sorted(os.listxattr(path, follow_symlinks=False)):
        text += f" {xattr}={fnv(os.getxattr(path, xattr, follow_symlinks=False)):016x}"
    return text + "\n"


def main(top):
    lines = [line(top, top)]
    for folder, folders, files in os.walk(top):
        lines += [line(top, os.path.join(folder, name)) for name in folders + files]
    sys.stdout.write("".join(sorted(lines)))


main(sys.argv[1])
