#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Damages a tree block of an unmounted volume, checksum put right again, as a lost or misplaced write would.

usage: damage.py DEVICE child-generation|leaf-for-node TREE
       damage.py DEVICE backref BLOCK

child-generation  the root of TREE expects another generation of its last child
leaf-for-node     the root of TREE, an interior node, is a leaf of the same tree
backref           the extent item of the tree block at BLOCK names another tree
All copies are damaged alike.
"""

import re
import struct
import subprocess
import sys

NODE = 16384
HEADER = 101
TABLE = []


def crc32c(data):
    """The checksum of a block."""
    if not TABLE:
        for n in range(256):
            for _ in range(8):
                n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
            TABLE.append(n)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def dump(device, *args):
    """What btrfs-progs say of the volume."""
    command = ["btrfs", "inspect-internal", "dump-tree", *args, device]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def chunks(device):
    """(logical, length, [physical]) of every chunk."""
    found = []
    for line in dump(device, "-t", "chunk").splitlines():
        if match := re.search(r"key \(FIRST_CHUNK_TREE CHUNK_ITEM (\d+)\)", line):
            found.append([int(match[1]), 0, []])
        elif found and (match := re.search(r"^\s+length (\d+) owner", line)):
            found[-1][1] = int(match[1])
        elif found and (match := re.search(r"stripe \d+ devid 1 offset (\d+)", line)):
            found[-1][2].append(int(match[1]))
    return found


def places(device, logical):
    """Where the copies of a logical address are."""
    for start, length, copies in chunks(device):
        if start <= logical < start + length:
            return [copy + logical - start for copy in copies]
    raise SystemExit(f"no chunk holds {logical}")


def read(device, logical):
    """A tree block, to be changed."""
    with open(device, "rb") as file:
        file.seek(places(device, logical)[0])
        return bytearray(file.read(NODE))


def write(device, logical, block):
    """Puts a changed block in the place of all copies."""
    struct.pack_into("<Q", block, 48, logical)
    struct.pack_into("<I", block, 0, crc32c(block[32:]))
    with open(device, "r+b") as file:
        for place in places(device, logical):
            file.seek(place)
            file.write(block)


def root_of(device, tree):
    """The address of a tree's root."""
    text = dump(device, "-t", tree)
    return int(re.search(r"^(?:node|leaf) (\d+) ", text, re.M)[1])


def main():
    """Damages."""
    device, what, where = sys.argv[1:]
    if what == "backref":
        logical = int(where)
        leaf = None
        for line in dump(device, "-t", "extent").splitlines():
            if match := re.match(r"leaf (\d+) ", line):
                leaf = int(match[1])
            elif f"key ({logical} METADATA_ITEM" in line:
                break
        block = read(device, leaf)
        for slot in range(struct.unpack_from("<I", block, 96)[0]):
            objectid, typ, _, offset, _ = struct.unpack_from("<QBQII", block, HEADER + 25 * slot)
            if objectid == logical and typ == 169:
                # Behind the extent item: the type of the first inline reference, and then the
                # tree's id.
                struct.pack_into("<Q", block, HEADER + offset + 24 + 1, 999)
                write(device, leaf, block)
                return
        raise SystemExit("no such extent item")
    root = root_of(device, where)
    block = read(device, root)
    if block[100] == 0:
        raise SystemExit("the tree is a single leaf")
    # The last child: the first one holds the root directory, without which nothing can be looked
    # up.
    last = HEADER + 33 * (struct.unpack_from("<I", block, 96)[0] - 1)
    child, generation = struct.unpack_from("<QQ", block, last + 17)
    if what == "child-generation":
        struct.pack_into("<Q", block, last + 25, generation - 1)
        write(device, root, block)
    elif what == "leaf-for-node":
        leaf = read(device, child)
        struct.pack_into("<Q", leaf, 80, struct.unpack_from("<Q", block, 80)[0])
        write(device, root, leaf)
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
