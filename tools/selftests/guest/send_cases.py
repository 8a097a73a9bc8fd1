#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes pairs of snapshots for incremental sends that are known to be hard.

usage: send_cases.py MOUNTPOINT

Each case is a generator: what it does before it yields makes the parent, the rest the subvolume to be sent. The
snapshots are MOUNTPOINT/CASE-parent and MOUNTPOINT/CASE-sent. Prints the names of the cases.
"""

import os
import struct
import subprocess
import sys

from send_calls import BLOCK, KEEP, NODUMP, PUNCH, ZERO, clone, fallocate, run, set_flags, snapshot


def mkdirs(top, *paths):
    for path in paths:
        os.makedirs(f"{top}/{path}", exist_ok=True)


def write(path, data=b"text\n", offset=0):
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644), "wb") as f:
        f.seek(offset)
        f.write(data)


def text(size, start=0):
    return b"".join(b"%09d " % i for i in range(start, start + size // 10 + 1))[:size]


def mv(top, *moves):
    for old, new in moves:
        os.rename(f"{top}/{old}", f"{top}/{new}")


def move_below_renamed(top):
    """A directory goes below one that has a higher number and is renamed, too."""
    mkdirs(top, "a/b/c/d", "a/b/c2")
    write(f"{top}/a/b/c/d/file")
    yield
    mv(top, ("a/b/c/d", "a/b/c2/d2"), ("a/b/c", "a/b/c2/d2/cc"))


def invert_two(top):
    mkdirs(top, "x/y/z")
    write(f"{top}/x/y/z/file")
    yield
    mv(top, ("x/y", "y"), ("x", "y/x"))


def invert_chain(top):
    """Twelve directories one in another, the other way round."""
    mkdirs(top, "/".join(f"p{i}" for i in range(12)))
    write(f"{top}/" + "/".join(f"p{i}" for i in range(12)) + "/file")
    yield
    # Each comes to the top, and the one that it was in goes into it.
    mv(top, ("p0", "rest"))
    for i in range(1, 12):
        mv(top, (f"rest/p{i}", "next"))
        mv(top, ("rest", f"next/p{i - 1}"))
        mv(top, ("next", "rest"))
    mv(top, ("rest", "p11"))


def name_of_a_waiting_directory(top):
    """A directory takes the name of one that has to wait for a third."""
    mkdirs(top, "a", "b", "c")
    write(f"{top}/a/file")
    yield
    mv(top, ("c", "x"), ("a", "x/y"), ("b", "a"))


def waiting_for_each_other(top):
    """Two directories that went below each other's old places."""
    mkdirs(top, "a/b", "c/d", "e")
    yield
    mv(top, ("a/b", "t1"), ("c/d", "t2"), ("a", "t2/a2"), ("c", "t1/c2"), ("t1", "e/d"), ("t2", "e/b"))


def waits_twice(top):
    """What a directory had waited for has to wait in turn."""
    mkdirs(top, "a/b/c/d/e", "f/g")
    yield
    mv(top, ("a/b/c/d/e", "e"), ("a/b/c/d", "e/d"), ("a/b/c", "e/d/c"), ("f/g", "e/d/c/g"), ("a/b", "e/d/c/g/b"),
       ("a", "e/d/c/g/b/a"), ("f", "e/d/c/g/b/a/f"))


def removed_with_waiting_child(top):
    """A directory is removed whose child waits to be moved."""
    mkdirs(top, "a/b/c/x", "a/b/y")
    write(f"{top}/a/b/c/foo")
    yield
    os.unlink(f"{top}/a/b/c/foo")
    mv(top, ("a/b/y", "a/b/YY"), ("a/b/c/x", "a/b/YY/x"))
    os.rmdir(f"{top}/a/b/c")


def removed_tree_of_many(top):
    mkdirs(top, *[f"gone/{i % 7}/{i}" for i in range(60)])
    for i in range(60):
        write(f"{top}/gone/{i % 7}/{i}/file")
    mkdirs(top, "kept")
    yield
    for i in range(0, 60, 5):
        mv(top, (f"gone/{i % 7}/{i}", f"kept/{i}"))
    run("rm", "-rf", f"{top}/gone")


def removed_and_made_again(top):
    mkdirs(top, "dir/sub", "other")
    write(f"{top}/dir/sub/file")
    write(f"{top}/dir/name")
    yield
    mv(top, ("dir/sub/file", "other/file"))
    run("rm", "-rf", f"{top}/dir")
    mkdirs(top, "dir/sub")
    write(f"{top}/dir/name")
    mv(top, ("other", "dir/sub/other"))


def names_rotate(top):
    """Directories and files hand their names on in a circle."""
    mkdirs(top, "one", "two", "three")
    for name in ("one", "two", "three"):
        write(f"{top}/{name}/{name}")
        write(f"{top}/file-{name}")
    yield
    for prefix in ("", "file-"):
        mv(top, (f"{prefix}one", "aside"), (f"{prefix}two", f"{prefix}one"), (f"{prefix}three", f"{prefix}two"),
           ("aside", f"{prefix}three"))


def changed_places(top):
    """Directories of different depth change places with what is in them."""
    mkdirs(top, "a/b/c", "d/e/f")
    for path in ("a/b/c", "d/e/f"):
        write(f"{top}/{path}/file")
    yield
    mv(top, ("a/b", "t"), ("d/e/f", "a/b"), ("t", "d/e/f"), ("a", "u"), ("d", "a"), ("u", "d"))


def ancestor_loses_its_name(top):
    """A file gets the name of the directory that it is in, another the name of a file in that."""
    mkdirs(top, "testdir")
    write(f"{top}/testdir/a")
    write(f"{top}/b")
    yield
    mv(top, ("testdir", "testdir_2"))
    os.link(f"{top}/testdir_2/a", f"{top}/testdir")
    mv(top, ("b", "b2"))
    os.link(f"{top}/testdir", f"{top}/b")
    os.unlink(f"{top}/testdir_2/a")
    write(f"{top}/testdir_2/a")


def links_into_orphans(top):
    """A file gets the names of two directories, one in the other."""
    write(f"{top}/f1")
    write(f"{top}/f2")
    mkdirs(top, "d1/d2")
    yield
    mv(top, ("d1", "aside"), ("aside/d2", "f2_link"), ("f1", "f2_link/f1"), ("f2", "d1"), ("aside", "f2"))
    mv(top, ("f2_link", "f2/f2_link"))
    os.link(f"{top}/d1", f"{top}/f2/d2")


def first_name_taken(top):
    """The first name of a file goes to another one, and only further names are left."""
    mkdirs(top, "d")
    write(f"{top}/a")
    write(f"{top}/b", text(5000))
    os.link(f"{top}/b", f"{top}/d/b2")
    os.link(f"{top}/b", f"{top}/d/b3")
    yield
    os.rename(f"{top}/a", f"{top}/b")
    os.unlink(f"{top}/d/b2")


def thousand_links(top):
    """More names than an item holds, in several directories; every third goes and others come."""
    mkdirs(top, *[f"d{i}" for i in range(5)])
    write(f"{top}/file", text(10000))
    for i in range(1000):
        os.link(f"{top}/file", f"{top}/d{i % 5}/{'link' * (i % 9)}{i}")
    yield
    for i in range(0, 1000, 3):
        os.unlink(f"{top}/d{i % 5}/{'link' * (i % 9)}{i}")
    for i in range(1000, 1200):
        os.link(f"{top}/file", f"{top}/d{i % 5}/{'new' * (i % 11)}{i}")
    mv(top, ("d3", "d0/d3"), ("d1", "aside"))
    os.unlink(f"{top}/file")


def names_like_orphans(top):
    """Names that the stream would use for others are taken, in one snapshot or in both."""
    mkdirs(top, "a", "b")
    write(f"{top}/a/file")
    generation = 0
    for line in subprocess.run(["btrfs", "subvolume", "show", top], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines():
        if "Generation" in line and "Gen at" not in line:
            generation = int(line.split()[-1])
    for ino in range(257, 264):
        for made in range(generation - 2, generation + 4):
            write(f"{top}/o{ino}-{made}-0")
            if ino % 2:
                write(f"{top}/o{ino}-{made}-1")
    yield
    for ino in range(257, 262):
        for made in range(generation - 2, generation + 4):
            os.unlink(f"{top}/o{ino}-{made}-0")
            write(f"{top}/o{ino}-{made}-2")
    mv(top, ("a", "c"), ("b", "a"), ("c", "a/b"))
    mkdirs(top, "new")
    write(f"{top}/new/file")
    mv(top, ("a/b/file", "new/moved"))


def deep_paths(top):
    """Paths of almost the longest length, whose upper and lower ends move."""
    here = os.open(top, os.O_RDONLY)
    home = os.getcwd()
    os.fchdir(here)
    for i in range(15):
        os.mkdir("d%d" % i + "x" * 240)
        os.chdir("d%d" % i + "x" * 240)
    write("file")
    os.fchdir(here)
    yield
    os.fchdir(here)
    names = ["d%d" % i + "x" * 240 for i in range(15)]
    os.rename(names[0], "top")
    os.rename("top/" + "/".join(names[1:8]), "lower")
    os.rename("top", "lower/" + names[8] + "/upper")
    write("lower/" + "/".join(names[8:]) + "/file", b"more", 10)
    os.chdir(home)
    os.close(here)


def kinds_change(top):
    """Names go from files to directories, links and devices, and back."""
    write(f"{top}/a")
    mkdirs(top, "b/c")
    os.symlink("a", f"{top}/d")
    os.mkfifo(f"{top}/e")
    yield
    os.unlink(f"{top}/a")
    mkdirs(top, "a/x")
    run("rm", "-r", f"{top}/b")
    os.symlink("somewhere", f"{top}/b")
    os.unlink(f"{top}/d")
    os.mknod(f"{top}/d", 0o20600, os.makedev(4, 5))
    os.unlink(f"{top}/e")
    write(f"{top}/e")


def nested_subvolumes(top):
    mkdirs(top, "dir")
    run("btrfs", "subvolume", "create", f"{top}/dir/nested")
    write(f"{top}/dir/nested/file")
    run("btrfs", "subvolume", "create", f"{top}/gone")
    yield
    mv(top, ("dir", "moved"))
    run("btrfs", "subvolume", "delete", f"{top}/gone")
    write(f"{top}/gone")
    run("btrfs", "subvolume", "create", f"{top}/later")


def attributes(top):
    mkdirs(top, "dir")
    capability = struct.pack("<IIIII", 0x02000001, 0x400, 0, 0, 0)
    for name in ("owner", "data", "taken", "given"):
        write(f"{top}/{name}")
        if name != "given":
            os.setxattr(f"{top}/{name}", "security.capability", capability)
    for i in range(12):
        os.setxattr(f"{top}/dir", f"user.{i}", b"value")
    write(f"{top}/flags")
    yield
    os.chown(f"{top}/owner", 7, 8)
    os.setxattr(f"{top}/owner", "security.capability", capability)
    write(f"{top}/data", b"more", 100)
    os.setxattr(f"{top}/data", "security.capability", capability)
    os.removexattr(f"{top}/taken", "security.capability")
    os.setxattr(f"{top}/given", "security.capability", capability)
    for i in range(0, 12, 2):
        os.removexattr(f"{top}/dir", f"user.{i}")
        os.setxattr(f"{top}/dir", f"user.{i + 1}", b"other value")
    os.setxattr(f"{top}/dir", "user.empty", b"")
    os.setxattr(f"{top}/dir", "system.posix_acl_default",
                struct.pack("<I", 2) + b"".join(struct.pack("<HHI", t, 7, 0xFFFFFFFF) for t in (1, 4, 0x20)))
    set_flags(f"{top}/flags", NODUMP)
    os.chmod(f"{top}/dir", 0o1777)


def holes(top):
    """Holes at the start, in the middle, at the end; preallocation within and behind the end."""
    for name in ("start", "middle", "end", "all", "zero", "shorter", "longer", "prealloc", "unaligned", "behind"):
        write(f"{top}/{name}", text(100000))
    write(f"{top}/inline", text(1000))
    os.sync()
    yield
    fallocate(f"{top}/start", PUNCH | KEEP, 0, 5 * BLOCK)
    fallocate(f"{top}/middle", PUNCH | KEEP, 4 * BLOCK, 13 * BLOCK)
    fallocate(f"{top}/end", PUNCH | KEEP, 20 * BLOCK, 10 * BLOCK)
    fallocate(f"{top}/all", PUNCH | KEEP, 0, 100000)
    fallocate(f"{top}/zero", ZERO, 2 * BLOCK, 9 * BLOCK)
    os.truncate(f"{top}/shorter", 30001)
    os.truncate(f"{top}/longer", 200001)
    fallocate(f"{top}/prealloc", 0, 90000, 200000)
    fallocate(f"{top}/unaligned", PUNCH | KEEP, 1000, 50000)
    fallocate(f"{top}/behind", KEEP, 100000, 100000)
    os.truncate(f"{top}/inline", 500)
    os.truncate(f"{top}/inline", 5000)


def many_extents(top):
    """A file of more extents than some leaves hold, with few changes far apart."""
    for i in range(400):
        write(f"{top}/file", text(100, i), i * 2 * BLOCK)
        if i % 40 == 0:
            os.sync()
    yield
    for i in (0, 57, 58, 200, 399):
        write(f"{top}/file", b"changed", i * 2 * BLOCK)
    for i in (100, 300):
        fallocate(f"{top}/file", PUNCH | KEEP, i * 2 * BLOCK, 40 * BLOCK)
    write(f"{top}/file", text(50000), 801 * BLOCK)


def clones_of_the_parent(top):
    """Data that the receiver has in other files, other places, other pieces."""
    write(f"{top}/a", text(200000))
    write(f"{top}/tail", text(70001))
    write(f"{top}/target", text(300000, 5))
    write(f"{top}/tail-target", text(90000, 5))
    os.sync()
    yield
    clone(f"{top}/a", f"{top}/copy")
    clone(f"{top}/a", f"{top}/target", 8 * BLOCK, 16 * BLOCK, 20 * BLOCK)
    clone(f"{top}/a", f"{top}/a", 0, 8 * BLOCK, 30 * BLOCK)
    os.truncate(f"{top}/tail-target", 0)
    clone(f"{top}/tail", f"{top}/tail-target")
    clone(f"{top}/tail", f"{top}/tail-in-the-middle")
    write(f"{top}/tail-in-the-middle", text(10000), 200000)
    os.unlink(f"{top}/tail")
    fallocate(f"{top}/a", PUNCH | KEEP, 8 * BLOCK, BLOCK)


def hundred_directories(top):
    """More directories than have their times or names remembered, all with something new in them."""
    for i in range(100):
        mkdirs(top, f"{i % 10}/{i}")
        write(f"{top}/{i % 10}/{i}/file")
    yield
    for i in range(100):
        write(f"{top}/{i % 10}/{i}/file2")
        if i % 3 == 0:
            mv(top, (f"{i % 10}/{i}/file", f"{(i * 7) % 10}/moved{i}"))
        if i % 5 == 0:
            mv(top, (f"{i % 10}/{i}", f"{i % 10}/r{i}"))
    for i in range(5):
        mv(top, (f"{i}", f"{i + 5}/{i}"))


CASES = [
    move_below_renamed, invert_two, invert_chain, name_of_a_waiting_directory, waiting_for_each_other, waits_twice,
    removed_with_waiting_child, removed_tree_of_many, removed_and_made_again, names_rotate, changed_places,
    ancestor_loses_its_name, links_into_orphans, first_name_taken, thousand_links, names_like_orphans, deep_paths,
    kinds_change, nested_subvolumes, attributes, holes, many_extents, clones_of_the_parent, hundred_directories,
]


def replaced_inodes(mount):
    """Two subvolumes that have nothing in common but the numbers of their inodes."""
    for which in ("parent", "sent"):
        top = f"{mount}/replaced_inodes-{which}-base"
        run("btrfs", "subvolume", "create", top)
        mkdirs(top, "a/b", "c")
        write(f"{top}/a/b/file", text(9000, len(which)))
        write(f"{top}/c/{which}")
        os.symlink(which, f"{top}/link")
        os.setxattr(f"{top}/c", "user.which", which.encode())
        if which == "sent":
            mv(top, ("a/b", "b"), ("a", "b/a"))
        snapshot(top, f"{mount}/replaced_inodes-{which}")


def new_directory_waits(mount):
    """The parent lacks a directory with a low number, below which another one waits. The C driver fails with ENOENT."""
    top = f"{mount}/new_directory_waits-base"
    run("btrfs", "subvolume", "create", top)
    mkdirs(top, "n", "x", "y", "z")
    snapshot(top, f"{mount}/new_directory_waits-first")
    os.rmdir(f"{top}/n")
    snapshot(top, f"{mount}/new_directory_waits-parent")
    top = f"{mount}/new_directory_waits-base2"
    run("btrfs", "subvolume", "snapshot", f"{mount}/new_directory_waits-first", top)
    mv(top, ("z", "z2"), ("n", "z2/n"), ("y", "z2/n/y2"), ("x", "z2/n/y2/x"))
    snapshot(top, f"{mount}/new_directory_waits-sent")


def main():
    mount = sys.argv[1]
    for case in CASES:
        name = case.__name__
        top = f"{mount}/{name}-base"
        run("btrfs", "subvolume", "create", top)
        steps = case(top)
        next(steps)
        snapshot(top, f"{mount}/{name}-parent")
        for _ in steps:
            pass
        snapshot(top, f"{mount}/{name}-sent")
        print(name)
    replaced_inodes(mount)
    print("replaced_inodes")
    # Without a name: there is no stream to record.
    new_directory_waits(mount)


if __name__ == "__main__":
    main()
