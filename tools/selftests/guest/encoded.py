#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Reads and writes encoded data of files, and prints what comes back, for two drivers to be compared.

usage: encoded.py FOLDER LOG: FOLDER is on a volume that is mounted with compress=, LOG a text of more than 300,000 bytes.
"""
import ctypes
import errno
import fcntl
import hashlib
import os
import struct
import sys

READ, WRITE = 0x80809440, 0x40809440
NONE, ZLIB, ZSTD, LZO, LZO_8K = 0, 1, 2, 3, 4


def call(fd, number, buffers, offset=0, flags=0, length=0, unencoded=0, skip=0, compression=0, encryption=0, reserved=0,
         count=None):
    vectors = b"".join(struct.pack("QQ", ctypes.addressof(b), len(b)) for b in buffers)
    held = ctypes.create_string_buffer(vectors, max(len(vectors), 1))
    args = bytearray(struct.pack("QQqQQQQII64s", ctypes.addressof(held), len(buffers) if count is None else count, offset, flags,
                                 length, unencoded, skip, compression, encryption, bytes([reserved]) + bytes(63)))
    try:
        got = fcntl.ioctl(fd, number, args)
    except OSError as e:
        return errno.errorcode[e.errno], None
    return got, struct.unpack("QQQII", args[32:64])


def buffer(size):
    return (ctypes.c_char * size)()


def read(fd, offset, sizes):
    buffers = [buffer(size) for size in sizes]
    got, fields = call(fd, READ, buffers, offset)
    data = b"".join(bytes(b) for b in buffers)
    return got, fields, data[:got] if isinstance(got, int) else b""


def write(fd, data, **how):
    middle = len(data) // 3
    parts = [(ctypes.c_char * len(p)).from_buffer_copy(p) for p in (data[:middle], data[middle:]) if p]
    return call(fd, WRITE, parts, **how)[0]


def main():
    folder, log = sys.argv[1:]
    text = open(log, "rb").read(300000)
    path = lambda name: os.path.join(folder, name)
    with open(path("source"), "wb") as f:
        f.write(text)
        f.truncate(500000)
    with open(path("tiny"), "wb") as f:
        f.write(text[:3000])
    fd, tiny = os.open(path("source"), os.O_RDWR), os.open(path("tiny"), os.O_RDWR)
    os.fsync(fd)
    os.fsync(tiny)

    # The sizes of what is compressed are each driver's own; all else is the same.
    kept = []
    for offset in (0, 4096, 5000, 131072, 262144, 299999, 303104, 400000, 499999, 500000):
        got, fields, data = read(fd, offset, [4096, 70000, 131072])
        if isinstance(got, int) and fields[3]:
            print("read", offset, fields, len(data) == got, got < fields[1])
            kept.append((offset, fields, data))
        else:
            print("read", offset, got, fields, hashlib.sha256(data).hexdigest()[:16])
    print("short", read(fd, 0, [4096])[:2])
    print("nothing", read(fd, 0, [])[:2], read(fd, 0, [0])[:2])
    got, fields, data = read(tiny, 0, [131072])
    print("tiny", fields, got < 3000)
    print("flags", call(fd, READ, [buffer(4096)], flags=1)[0])
    print("offset", call(fd, READ, [buffer(4096)], offset=-1)[0])
    print("vectors", call(fd, READ, [buffer(4096)], count=1025)[0])

    # What was read is written to another file, over something else that is in memory alone.
    with open(path("target"), "wb") as f:
        f.write(b"x" * 270000)
    to = os.open(path("target"), os.O_RDWR)
    mine = None
    for offset, fields, data in kept:
        if offset % 4096:
            continue
        length, unencoded, skip, compression, _ = fields
        got = write(to, data, offset=offset, length=length, unencoded=unencoded, skip=skip, compression=compression)
        print("write", offset, got == len(data))
        mine = mine or (data, unencoded, compression)
    same = os.pread(to, 400000, 0) == text
    print("the same", same, os.fstat(to).st_size)
    data, unencoded, compression = mine
    good = dict(length=unencoded, unencoded=unencoded, compression=compression)
    for name, how in (
        ("flags", dict(flags=1)), ("reserved", dict(reserved=1)), ("plain", dict(compression=NONE)), ("unknown", dict(compression=8)),
        ("sector", dict(compression=LZO_8K)), ("encrypted", dict(encryption=1)), ("skips all", dict(skip=unencoded + 1)),
        ("too long", dict(length=unencoded + 1)), ("inside", dict(length=5000)), ("unaligned", dict(offset=100)),
        ("skip", dict(skip=100, length=4096)), ("small", dict(unencoded=len(data), length=len(data))),
        ("large", dict(unencoded=131073)), ("offset", dict(offset=-4096)), ("far", dict(offset=(1 << 63) - 4096)), ("nothing", dict(length=0)),
    ):
        print("refused", name, write(to, data, **{**good, **how}))
    print("no data", write(to, b"", **good))
    fd = os.open(path("target"), os.O_RDONLY)
    print("read only", write(fd, data, **good))
    # After the end of a file, which then has a hole and ends within a sector.
    print("behind", write(to, data, **{**good, "offset": 1 << 20, "length": 100001}) == len(data))
    print(os.fstat(to).st_size, os.pread(to, 100001, 1 << 20) == text[:100001], os.pread(to, 4096, 600000) == bytes(4096))
    os.fsync(to)


main()
