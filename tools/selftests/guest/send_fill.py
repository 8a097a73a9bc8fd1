#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Fills a mounted btrfs with read-only subvolumes that exercise every kind of item that send meets.

usage: send_fill.py MOUNTPOINT

What is made depends on nothing but the filesystem it is made on. Each subvolume to be sent is named snap-*.
"""

import fcntl
import os
import random
import socket
import stat
import struct
import sys

from send_calls import NOCOW, clone, fallocate, run, set_flags, snapshot

SET_RECEIVED_SUBVOL = 0xC0C89425
MiB = 1 << 20

rng = random.Random(7)


def write(path, data, offset=None):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
    with os.fdopen(fd, "wb") as f:
        if offset is not None:
            f.seek(offset)
        f.write(data)


def noise(size):
    return rng.randbytes(size)


def text(size):
    words = b"leaf node slot extent backref chunk transaction commit root ".split()
    out = b" ".join(rng.choice(words) for _ in range(size // 4 + 2))
    return out[:size]


def directories(top):
    """Nesting, parents younger than their children, and more directories than wait for their times at once."""
    os.makedirs(f"{top}/a/b/c/d/e/f")
    for i in range(40):
        os.mkdir(f"{top}/chain{i}")
        write(f"{top}/chain{i}/file", b"%d" % i)
    for i in range(39):
        os.rename(f"{top}/chain{i}", f"{top}/chain{i + 1}/below")
    write(f"{top}/first", b"made before its directory")
    os.mkdir(f"{top}/later")
    os.rename(f"{top}/first", f"{top}/later/first")
    os.mkdir(f"{top}/x")
    os.mkdir(f"{top}/y")
    os.rename(f"{top}/x", f"{top}/y/x")
    os.rename(f"{top}/y", f"{top}/later/y")
    os.makedirs(f"{top}/empty/empty")
    for i in range(150):
        os.mkdir(f"{top}/dir{i}")
    order = list(range(150)) * 3
    rng.shuffle(order)
    for n, i in enumerate(order):
        write(f"{top}/dir{i}/file{n}", b"x" * (n % 7))
    for n in range(30):
        os.mkdir(f"{top}/dir{n}/sub")
        os.rename(f"{top}/dir{n}", f"{top}/dir{n + 60}/moved")


def names(top):
    for name in ["grüße", "日本語", "\udcff\udcfe", "a" * 255, "with space", "-dash", "new\nline", ".hidden", "..."]:
        write(os.fsencode(f"{top}/{name}"), b"name")
    deep = top
    for i in range(12):
        deep = f"{deep}/{'d%03d' % i}{'x' * 200}"
        os.mkdir(deep)
    write(f"{deep}/leaf", b"deep")
    for ino in range(256, 330):
        for generation in range(5, 12):
            if (ino + generation) % 3 == 0:
                write(f"{top}/o{ino}-{generation}-0", b"")
                if generation % 2:
                    write(f"{top}/o{ino}-{generation}-1", b"")
    for name in ["o0300-7-0", "o300-7", "o300-7-0-0", "o-1-1", "o99999999999999999999-1-0"]:
        write(f"{top}/{name}", b"")


def links(top):
    os.mkdir(f"{top}/links")
    write(f"{top}/links/one", b"linked")
    for i in range(400):
        os.link(f"{top}/links/one", f"{top}/links/{'l' * 60}{i}")
    write(f"{top}/links/two", b"in many directories")
    for i in range(100):
        os.mkdir(f"{top}/links/d{i}")
        os.link(f"{top}/links/two", f"{top}/links/d{i}/two")
        os.link(f"{top}/links/two", f"{top}/links/d{i}/two-again")
    os.unlink(f"{top}/links/two")
    os.symlink("target", f"{top}/links/symlink")
    os.symlink("t" * 3900, f"{top}/links/long-symlink")
    os.link(f"{top}/links/symlink", f"{top}/links/symlink-link", follow_symlinks=False)


def specials(top):
    os.mkdir(f"{top}/specials")
    os.mkfifo(f"{top}/specials/fifo", 0o600)
    os.mknod(f"{top}/specials/char", 0o620 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(f"{top}/specials/block", 0o600 | stat.S_IFBLK, os.makedev(259, 70000))
    s = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(f"{top}/specials")
    s.bind("socket")
    os.chdir(here)
    s.close()
    os.link(f"{top}/specials/fifo", f"{top}/fifo-link")


def attributes(top):
    os.mkdir(f"{top}/attributes")
    path = f"{top}/attributes/file"
    write(path, b"attributes")
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    os.setxattr(path, "security.capability", capability)
    os.setxattr(path, "user.empty", b"")
    os.setxattr(path, "user.large", noise(3500))
    os.setxattr(path, "trusted.t", b"\0\1\2")
    os.setxattr(path, "security.c", b"a name that security.capability begins with")
    for i in range(60):
        os.setxattr(path, f"user.many{i}", b"%d" % i * i)
    acl = struct.pack("<I", 2)
    for tag, perm, ident in [(1, 7, -1), (2, 5, 1000), (4, 5, -1), (0x10, 5, -1), (0x20, 4, -1)]:
        acl += struct.pack("<HHi", tag, perm, ident)
    os.setxattr(path, "system.posix_acl_access", acl)
    os.setxattr(f"{top}/attributes", "system.posix_acl_default", acl)
    os.setxattr(top, "user.top", b"the top has attributes, too")
    write(f"{top}/attributes/inherits", b"")
    os.mkdir(f"{top}/attributes/inherits-too")
    os.chown(path, 12345, 4000000000)
    write(f"{top}/attributes/setuid", b"x")
    os.chown(f"{top}/attributes/setuid", 1, 2)
    os.chmod(f"{top}/attributes/setuid", 0o6755)
    os.chmod(f"{top}/attributes", 0o1777)
    os.utime(f"{top}/attributes/setuid", ns=(-10**18, 4 * 10**18 + 123456789))
    os.symlink("x", f"{top}/attributes/link")
    os.setxattr(f"{top}/attributes/link", "trusted.link", b"on a link", follow_symlinks=False)


def data(top):
    os.mkdir(f"{top}/data")
    for size in [0, 1, 2047, 2048, 2049, 4095, 4096, 4097, 8192, 49151, 49152, 49153, 65536, 131071, 131072, 131073,
                 300001, MiB + 17]:
        write(f"{top}/data/size{size}", noise(size))
    for size in [1, 1000, 2048, 4000]:
        write(f"{top}/data/grown{size}", text(size))
        os.truncate(f"{top}/data/grown{size}", 10000)
    write(f"{top}/data/sparse", b"end", 3 * MiB + 5)
    write(f"{top}/data/sparse", b"middle", 1 * MiB)
    write(f"{top}/data/hole-at-end", noise(10000))
    os.truncate(f"{top}/data/hole-at-end", MiB)
    os.truncate(f"{top}/data/hole-at-end", MiB + 1)
    write(f"{top}/data/only-hole", b"")
    os.truncate(f"{top}/data/only-hole", 12345678)
    write(f"{top}/data/shrunk", noise(300000))
    os.sync()
    os.truncate(f"{top}/data/shrunk", 150001)
    fallocate(f"{top}/data/prealloc", 0, 0, 200000)
    write(f"{top}/data/prealloc", noise(5000), 50000)
    fallocate(f"{top}/data/prealloc-beyond", 1, 0, MiB)
    write(f"{top}/data/prealloc-beyond", noise(70000), 0)
    write(f"{top}/data/punched", noise(400000))
    os.sync()
    fallocate(f"{top}/data/punched", 3, 100000, 100000)
    write(f"{top}/data/overwritten", noise(400000))
    os.sync()
    for i in range(20):
        write(f"{top}/data/overwritten", noise(3000 + i), i * 17000)
    os.mkdir(f"{top}/data/nocow")
    set_flags(f"{top}/data/nocow", NOCOW)
    write(f"{top}/data/nocow/file", noise(200001))
    os.mkdir(f"{top}/data/small")
    for i in range(90):
        write(f"{top}/data/small/{i}", noise(3000 + 117 * i))


def compressed(mount, top):
    for method in ["zlib", "lzo", "zstd"]:
        run("mount", "-o", f"remount,compress={method}", mount)
        here = f"{top}/{method}"
        os.mkdir(here)
        for size in [100, 1999, 4096, 10000, 131073, 200000]:
            write(f"{here}/size{size}", text(size))
            write(f"{here}/zeros{size}", bytes(size))
        write(f"{here}/large", text(500000))
        write(f"{here}/mixed", text(200000) + noise(200000) + text(100001))
        write(f"{here}/cut", text(400000))
        write(f"{here}/patched", text(500000))
        os.sync()
        os.truncate(f"{here}/cut", 200003)
        for at in [1, 100000, 140000, 262144, 400000]:
            write(f"{here}/patched", text(9000), at)
        os.sync()
        clone(f"{here}/patched", f"{here}/cloned")
        clone(f"{here}/large", f"{here}/part", 131072 + 4096, 65536, 8192)
        os.truncate(f"{here}/large", 300000)
    run("mount", "-o", "remount,compress=no", mount)


def clones(top):
    """Extents shared within files, between files, in parts, and with what is sent later."""
    os.mkdir(f"{top}/clones")
    here = f"{top}/clones"
    write(f"{here}/a", noise(MiB))
    write(f"{here}/tail", noise(300000 + 77))
    write(f"{here}/block", noise(4096))
    os.sync()
    clone(f"{here}/a", f"{here}/whole")
    clone(f"{here}/tail", f"{here}/whole-tail")
    clone(f"{here}/block", f"{here}/whole-block")
    write(f"{here}/shifted", noise(100000))
    clone(f"{here}/a", f"{here}/shifted", 65536, 262144, 131072)
    clone(f"{here}/a", f"{here}/shifted", 0, 65536, MiB)
    clone(f"{here}/a", f"{here}/shifted", 4096, 4096, 2 * MiB)
    clone(f"{here}/a", f"{here}/a", 0, 131072, 2 * MiB)
    clone(f"{here}/a", f"{here}/a", 65536, 131072, 3 * MiB)
    clone(f"{here}/a", f"{here}/later")
    write(f"{here}/a", noise(50000), 300000)
    clone(f"{here}/tail", f"{here}/tail-in-the-middle", 0, 0, 0)
    write(f"{here}/tail-in-the-middle", noise(100000), 500000)
    clone(f"{here}/later", f"{here}/holes", 131072, 131072, 131072)
    clone(f"{here}/later", f"{here}/holes", 131072, 131072, 600000 // 4096 * 4096)
    clone(f"{here}/holes", f"{here}/holes-again")
    os.truncate(f"{here}/holes-again", 700001)
    clone(f"{here}/whole", f"{here}/cut-source")
    os.truncate(f"{here}/whole", 500000)
    clone(f"{here}/cut-source", f"{here}/cut-source-2")
    os.truncate(f"{here}/cut-source", 123456)
    write(f"{here}/pieces", noise(512 * 1024))
    os.sync()
    for i in range(60):
        offset = rng.randrange(0, 120) * 4096
        clone(f"{here}/pieces", f"{here}/mosaic{i % 5}", offset, 4096 * rng.randrange(1, 8), rng.randrange(0, 200) * 4096)
    fallocate(f"{here}/shared-prealloc", 0, 0, 262144)
    write(f"{here}/shared-prealloc", noise(65536), 65536)
    os.sync()
    clone(f"{here}/shared-prealloc", f"{here}/shared-prealloc-2")
    for i in range(40):
        clone(f"{here}/block", f"{here}/popular{i}")
        clone(f"{here}/pieces", f"{here}/popular-pieces{i}", 0, 65536, 0)


def nested(top):
    run("btrfs", "subvolume", "create", f"{top}/nested")
    write(f"{top}/nested/file", b"not part of the snapshot")
    os.mkdir(f"{top}/holder")
    run("btrfs", "subvolume", "create", f"{top}/holder/nested2")


def orphans(mount):
    """A subvolume made read-only while deleted files are still open."""
    top = f"{mount}/snap-orphans"
    run("btrfs", "subvolume", "create", top)
    write(f"{top}/kept", b"kept")
    held = []
    for i in range(5):
        write(f"{top}/gone{i}", noise(10000))
        held.append(open(f"{top}/gone{i}", "rb"))
        write(f"{top}/between{i}", b"between")
        os.unlink(f"{top}/gone{i}")
    os.mkdir(f"{top}/dir")
    write(f"{top}/dir/last", b"last")
    held.append(os.fdopen(os.open(top, os.O_TMPFILE | os.O_WRONLY, 0o600), "wb"))
    os.sync()
    run("btrfs", "property", "set", top, "ro", "true")
    os.sync()
    return held


def main():
    mount = sys.argv[1]
    base = f"{mount}/base"
    run("btrfs", "subvolume", "create", base)
    os.mkdir(f"{mount}/snaps")
    snapshot(base, f"{mount}/snap-empty")
    names(base)
    directories(base)
    links(base)
    specials(base)
    attributes(base)
    snapshot(base, f"{mount}/snap-tree")
    data(base)
    clones(base)
    compressed(mount, base)
    nested(base)
    snapshot(base, f"{mount}/snap-all")
    # What follows unshares leaves of the snapshots, so that their extents get references by leaf.
    for i in range(0, 90, 3):
        write(f"{base}/data/small/{i}", noise(4096), 4096)
    for i in range(0, 40, 7):
        clone(f"{base}/clones/pieces", f"{base}/clones/popular{i}", 65536, 65536, 65536)
    write(f"{base}/clones/a", noise(4096), 8192)
    os.unlink(f"{base}/clones/later")
    os.truncate(f"{base}/clones/shifted", 300000)
    snapshot(base, f"{mount}/snaps/snap-later")
    fd = os.open(f"{mount}/snaps/snap-later", os.O_RDONLY)
    run("btrfs", "property", "set", f"{mount}/snaps/snap-later", "ro", "false")
    received = bytes(range(1, 17)) + struct.pack("=QQ", 4711, 0) + bytes(168)
    fcntl.ioctl(fd, SET_RECEIVED_SUBVOL, received[:200])
    os.close(fd)
    run("btrfs", "property", "set", f"{mount}/snaps/snap-later", "ro", "true")
    held = orphans(mount)
    os.sync()
    return held


if __name__ == "__main__":
    # The files that orphans() holds open stay so until the caller has copied or unmounted the
    # volume.
    kept = main()
    if len(sys.argv) > 2:
        print("ready", flush=True)
        sys.stdin.readline()
