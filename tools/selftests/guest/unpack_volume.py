#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Puts a volume that record_streams.py packed on a disk that holds zeros.

usage: unpack_volume.py FILE.zst DISK
"""
import subprocess
import sys

BLOCK = 4096

with open(sys.argv[1], "rb") as packed, open(sys.argv[2], "r+b") as disk:
    size = int.from_bytes(packed.read(8), "little")
    frame = packed.read()
    blocks = subprocess.run(["zstd", "-dc", "--long=27"], input=frame, check=True, stdout=subprocess.PIPE).stdout
    if len(blocks) != size:
        sys.exit(f"{len(blocks)} bytes unpacked, expected {size}")
    for at in range(0, size, 8 + BLOCK):
        disk.seek(int.from_bytes(blocks[at : at + 8], "little") * BLOCK)
        disk.write(blocks[at + 8 : at + 8 + BLOCK])
