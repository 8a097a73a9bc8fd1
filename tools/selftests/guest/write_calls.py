#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""System calls that change files, each checked by what the volume shows afterwards. Prints what is wrong.

usage: write_calls.py DIRECTORY
"""
import ctypes
import errno
import fcntl
import mmap
import os
import signal
import stat
import struct
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
failed = 0


def expect(what, found, wanted=True):
    global failed
    if found != wanted:
        failed = 1
        print(f"{what}: {found!r} instead of {wanted!r}")


def error_of(call, *args):
    try:
        call(*args)
    except OSError as e:
        return errno.errorcode[e.errno]
    return "no error"


def rename2(old, new, flags):
    if libc.renameat2(-100, old.encode(), -100, new.encode(), flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def fallocate(fd, mode, offset, length):
    call = libc.fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    if call(fd, mode, offset, length) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def write(path, data, mode="wb"):
    with open(path, mode) as f:
        f.write(data)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def names():
    write("a", b"a")
    write("b", b"b")
    NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
    expect("rename without replacing", error_of(rename2, "a", "b", NOREPLACE), "EEXIST")
    rename2("a", "b", EXCHANGE)
    expect("exchange", (read("a"), read("b")), (b"b", b"a"))
    rename2("a", "c", WHITEOUT)
    found = os.stat("a")
    expect("whiteout", (stat.S_ISCHR(found.st_mode), found.st_rdev), (True, 0))
    expect("what was renamed", read("c"), b"b")
    os.unlink("a")
    os.mkdir("d1")
    os.mkdir("d2")
    write("d1/x", b"x")
    expect("rmdir of a full directory", error_of(os.rmdir, "d1"), "ENOTEMPTY")
    expect("rename onto a full directory", error_of(os.rename, "d2", "d1"), "ENOTEMPTY")
    os.rename("d1", "d2")
    expect("rename onto an empty directory", os.listdir("d2"), ["x"])
    expect("directory into itself", error_of(os.rename, "d2", "d2/y"), "EINVAL")
    os.link("c", "hard")
    expect("links", os.stat("c").st_nlink, 2)
    os.unlink("c")
    expect("links after one went", os.stat("hard").st_nlink, 1)
    expect("names that are too long", error_of(os.mkdir, "n" * 256), "ENAMETOOLONG")
    os.mkdir("n" * 255)
    for i in range(300):
        os.link("hard", f"link-with-quite-a-long-name-{i:03}")
    expect("many links", os.stat("hard").st_nlink, 301)
    os.mkfifo("fifo")
    os.mknod("null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    expect("device", os.stat("null").st_rdev, os.makedev(1, 3))
    os.symlink("t" * 2000, "long-link")
    expect("long link", os.readlink("long-link"), "t" * 2000)

    fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(fd, b"nameless")
    expect("nameless", os.fstat(fd).st_nlink, 0)
    FOLLOW = 0x400
    expect("name for it", libc.linkat(-100, f"/proc/self/fd/{fd}".encode(), -100, b"named", FOLLOW), 0)
    os.close(fd)
    expect("named", read("named"), b"nameless")
    os.close(os.open(".", os.O_TMPFILE | os.O_RDWR))

    fd = os.open("gone", os.O_CREAT | os.O_RDWR)
    os.unlink("gone")
    os.write(fd, b"x" * 100000)
    os.fsync(fd)
    expect("file without a name", os.pread(fd, 3, 99997), b"xxx")
    os.close(fd)


def data():
    fd = os.open("data", os.O_CREAT | os.O_RDWR)
    model = bytearray()

    def put(offset, piece):
        nonlocal model
        if len(model) < offset + len(piece):
            model.extend(bytes(offset + len(piece) - len(model)))
        model[offset:offset + len(piece)] = piece
        expect(f"write at {offset}", os.pwrite(fd, piece, offset), len(piece))

    def same(what):
        expect(what, os.pread(fd, len(model) + 1, 0) == bytes(model))

    put(0, b"small")
    os.fsync(fd)
    same("inline")
    put(3, b"still small" * 20)
    same("inline, longer")
    put(9000, b"behind a gap")
    os.fsync(fd)
    same("no longer inline")
    os.truncate(fd, 9005)
    del model[9005:]
    os.truncate(fd, 20000)
    model.extend(bytes(20000 - len(model)))
    same("cut off and grown")
    for i in range(200):
        put((i * 7919) % 400000, bytes([i]) * (1 + (i * 613) % 9000))
    same("scattered writes")
    os.fsync(fd)
    fallocate(fd, 3, 5000, 50000)
    model[5000:55000] = bytes(50000)
    same("hole")
    fallocate(fd, 0x10, 70001, 30000)
    model[70001:100001] = bytes(30000)
    same("zeroed range")
    fallocate(fd, 0, len(model), 100000)
    model.extend(bytes(100000))
    same("preallocated")
    put(len(model) - 50000, b"into preallocated space")
    os.fsync(fd)
    same("written to preallocated space")
    fallocate(fd, 1, len(model), 1 << 20)
    expect("size kept", os.fstat(fd).st_size, len(model))
    # A hole behind the end gives back what lies there, and nothing else.
    os.fsync(fd)
    blocks = os.fstat(fd).st_blocks
    behind = -(-len(model) // 4096) * 4096
    fallocate(fd, 3, behind + 65536, 65536)
    expect("hole behind the end", blocks - os.fstat(fd).st_blocks, 128)
    fallocate(fd, 3, len(model), 1 << 60)
    expect("size kept by a hole", os.fstat(fd).st_size, len(model))
    expect("nothing behind the end", os.fstat(fd).st_blocks <= blocks - (1 << 20) // 512 + 8)
    same("hole behind the end")
    expect("hole found", os.lseek(fd, 0, os.SEEK_HOLE) <= 8192)
    expect("data behind it", os.lseek(fd, 8192, os.SEEK_DATA) >= 53248)

    with mmap.mmap(fd, len(model)) as mapped:
        mapped[10:20] = b"by mapping"
        mapped[200000:200004] = b"four"
        model[10:20] = b"by mapping"
        model[200000:200004] = b"four"
        same("mapped")
        mapped.flush()
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    same("mapped, from disk")

    direct = os.open("data", os.O_RDWR | os.O_DIRECT)
    page = mmap.mmap(-1, 4096)
    page[:] = b"d" * 4096
    os.pwritev(direct, [page], 4096)
    model[4096:8192] = b"d" * 4096
    same("direct")
    os.close(direct)

    appended = os.open("data", os.O_WRONLY | os.O_APPEND)
    os.write(appended, b"tail")
    model.extend(b"tail")
    same("appended")
    os.close(appended)
    os.pwrite(fd, b"far", 1 << 40)
    expect("far away", os.fstat(fd).st_size, (1 << 40) + 3)
    os.truncate(fd, len(model))
    same("cut off again")
    os.close(fd)


def ends():
    """Files keep their ends, whatever becomes of dirty data before them; a remount shows it."""

    def changed(name, change):
        fd = os.open(name, os.O_CREAT | os.O_RDWR)
        os.pwrite(fd, b"e" * 65536, 0)
        change(fd)
        os.close(fd)

    changed("end-punched", lambda fd: fallocate(fd, 3, 0, 65536))
    changed("end-last-punched", lambda fd: fallocate(fd, 3, 32768, 32768))
    changed("end-punched-beyond", lambda fd: fallocate(fd, 3, 4096, 1 << 20))
    changed("end-zeroed", lambda fd: fallocate(fd, 0x11, 4096, 1 << 20))
    changed("end-cut", lambda fd: os.ftruncate(fd, 30000))
    changed("end-same", lambda fd: os.ftruncate(fd, 65536))
    changed("end-grown", lambda fd: os.ftruncate(fd, 100000))
    fd = os.open("end-apart", os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"e" * 4096, 0)
    os.pwrite(fd, b"e" * 4096, 61440)
    os.ftruncate(fd, 32768)
    os.close(fd)


def dirty_pages(fd):
    """How many pages of a file are in memory alone."""
    counts = (ctypes.c_uint64 * 5)()
    CACHESTAT = 451
    if libc.syscall(CACHESTAT, fd, (ctypes.c_uint64 * 2)(0, 0), counts, 0) != 0:
        raise OSError(ctypes.get_errno(), "cachestat")
    return counts[1]


def parts_synced():
    """To sync a part of a file is to sync all that makes its new size."""
    fd = os.open("parts", os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"p" * 65536, 0)
    expect("dirty before a sync", dirty_pages(fd) > 0)
    with mmap.mmap(fd, 65536) as mapped:
        mapped.flush(61440, 4096)
    expect("dirty after the sync of a part", dirty_pages(fd), 0)
    os.close(fd)


def on_disk():
    """Which commit the only volume that is mounted has on disk, and where its log is."""
    with open("/proc/self/mounts") as mounts:
        (device,) = {line.split()[0] for line in mounts if "btrfs" in line.split()[2]}
    block = mmap.mmap(-1, 4096)
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
    os.preadv(fd, [block], 65536)
    os.close(fd)
    return struct.unpack_from("<Q16xQ", block, 72)


def clones():
    FICLONE, FICLONERANGE, FIDEDUPERANGE = 0x40049409, 0x4020940D, 0xC0189436
    content = os.urandom(300000)
    write("source", content)
    source = os.open("source", os.O_RDWR)
    target = os.open("clone", os.O_CREAT | os.O_RDWR)
    fcntl.ioctl(target, FICLONE, source)
    expect("clone", read("clone") == content)
    os.pwrite(target, b"changed", 5)
    expect("the source of a clone", read("source") == content)
    fcntl.ioctl(target, FICLONERANGE, struct.pack("qQQQ", source, 4096, 8192, 409600))
    expect("cloned range", os.pread(target, 8192, 409600) == content[4096:12288])
    expect("what lies between", os.pread(target, 109600, 300000), bytes(109600))
    write("same", content)
    same = os.open("same", os.O_RDWR)
    args = bytearray(struct.pack("QQHHI", 0, 299008, 1, 0, 0) + struct.pack("qQQiI", same, 0, 0, 0, 0))
    fcntl.ioctl(source, FIDEDUPERANGE, args)
    expect("deduplicated", struct.unpack_from("qQQiI", args, 24)[2:4], (299008, 0))
    expect("content after that", read("same") == content)
    os.pwrite(same, b"!", 100)
    args = bytearray(struct.pack("QQHHI", 0, 4096, 1, 0, 0) + struct.pack("qQQiI", same, 0, 0, 0, 0))
    fcntl.ioctl(source, FIDEDUPERANGE, args)
    expect("what differs", struct.unpack_from("qQQiI", args, 24)[3], 1)
    write("tiny", b"tiny")
    tiny = os.open("tiny", os.O_RDWR)
    copy = os.open("tiny-clone", os.O_CREAT | os.O_RDWR)
    fcntl.ioctl(copy, FICLONE, tiny)
    expect("clone of a small file", read("tiny-clone"), b"tiny")
    # Whoever opens a file to write it synchronously has clones on disk, too, by a commit or a log.
    synced = os.open("synced-clone", os.O_CREAT | os.O_RDWR | os.O_SYNC)
    os.sync()
    before = on_disk()
    fcntl.ioctl(synced, FICLONE, source)
    expect("a clone is on disk", on_disk() != before)
    for fd in (source, target, same, tiny, copy, synced):
        os.close(fd)


def shared_in_a_snapshot():
    """What is the same is shared in a read-only snapshot as well, and keeps its times."""
    SUBVOL_CREATE, SNAP_CREATE_V2, FIDEDUPERANGE = 0x5000940E, 0x50009417, 0xC0189436
    content = os.urandom(65536)
    here = os.open(".", os.O_RDONLY)
    fcntl.ioctl(here, SUBVOL_CREATE, bytearray(struct.pack("q4088s", 0, b"same-subvolume")))
    write("same-subvolume/one", content)
    write("same-subvolume/two", content)
    for name in ("one", "two"):
        os.utime(f"same-subvolume/{name}", (1000, 2000))
    subvolume = os.open("same-subvolume", os.O_RDONLY)
    fcntl.ioctl(here, SNAP_CREATE_V2, bytearray(struct.pack("qQQ32x4040s", subvolume, 0, 2, b"same-snapshot")))
    source = os.open("same-subvolume/one", os.O_RDONLY)
    for path in ("same-subvolume/two", "same-snapshot/two"):
        before = os.stat(path)
        target = os.open(path, os.O_RDONLY)
        args = bytearray(struct.pack("QQHHI", 0, 65536, 1, 0, 0) + struct.pack("qQQiI", target, 0, 0, 0, 0))
        fcntl.ioctl(source, FIDEDUPERANGE, args)
        expect(f"shared with {path}", struct.unpack_from("qQQiI", args, 24)[2:4], (65536, 0))
        os.close(target)
        os.sync()
        write("/proc/sys/vm/drop_caches", b"3")
        after = os.stat(path)
        expect(f"times of {path}", (after.st_mtime_ns, after.st_ctime_ns), (before.st_mtime_ns, before.st_ctime_ns))
        expect(f"contents of {path}", read(path) == content)
    for fd in (here, subvolume, source):
        os.close(fd)


def attributes():
    write("attrs", b"x")
    os.setxattr("attrs", "user.a", b"1")
    expect("attribute there", error_of(os.setxattr, "attrs", "user.a", b"2", os.XATTR_CREATE), "EEXIST")
    expect("attribute not there", error_of(os.setxattr, "attrs", "user.b", b"2", os.XATTR_REPLACE), "ENODATA")
    os.setxattr("attrs", "user.a", b"two", os.XATTR_REPLACE)
    os.setxattr("attrs", "trusted.t", b"t" * 3000)
    os.setxattr("attrs", "user.empty", b"")
    expect("attributes", sorted(os.listxattr("attrs")), ["trusted.t", "user.a", "user.empty"])
    expect("replaced", os.getxattr("attrs", "user.a"), b"two")
    expect("empty", os.getxattr("attrs", "user.empty"), b"")
    os.removexattr("attrs", "user.a")
    expect("removed", error_of(os.getxattr, "attrs", "user.a"), "ENODATA")
    os.utime("attrs", ns=(1_000_000_001, 2_000_000_002))
    found = os.stat("attrs")
    expect("times", (found.st_atime_ns, found.st_mtime_ns), (1_000_000_001, 2_000_000_002))
    os.chown("attrs", 1000, 1001)
    os.chmod("attrs", 0o4755)
    write("attrs", b"y", "ab")
    expect("owner", (os.stat("attrs").st_uid, os.stat("attrs").st_gid), (1000, 1001))
    os.mkdir("sgid")
    os.chown("sgid", 0, 77)
    os.chmod("sgid", 0o2755)
    os.mkdir("sgid/d")
    expect("group of a directory", (os.stat("sgid/d").st_gid, os.stat("sgid/d").st_mode & 0o2000), (77, 0o2000))

    def changes(what, call):
        os.utime("attrs", ns=(1_000_000_001, 2_000_000_002))
        before = os.stat("attrs").st_ctime_ns
        time.sleep(0.05)
        call()
        found = os.stat("attrs")
        expect(what, found.st_ctime_ns > before)
        return found.st_mtime_ns != 2_000_000_002

    size = os.stat("attrs").st_size
    expect("contents change", changes("cut off", lambda: os.truncate("attrs", size - 1)))
    expect("contents change", changes("grown", lambda: os.truncate("attrs", size)))
    entries = [(1, 6), (4, 4), (0x20, 0)]
    acl = struct.pack("I", 2) + b"".join(struct.pack("HHI", tag, may, 0xFFFFFFFF) for tag, may in entries)
    set_acl = lambda: os.setxattr("attrs", "system.posix_acl_access", acl)
    expect("contents stay", changes("an ACL that is a mode", set_acl), False)
    expect("mode", stat.S_IMODE(os.stat("attrs").st_mode), 0o4640)

    # A file that is read notes when, if the mount says so.
    os.utime("attrs", (1, 1))
    read("attrs")
    expect("read since", os.stat("attrs").st_atime > 1)

    write("overwritten", b"x" * 65536)
    os.sync()
    write("overwritten", b"y" * 65536, "r+b")
    expect("space for data in memory", os.stat("overwritten").st_blocks, 128)


def clock():
    for i in range(100):
        made = os.open(f"clock-{i}", os.O_CREAT | os.O_RDWR)
        before = os.fstat(made).st_ctime_ns
        os.write(made, b"x")
        after = os.fstat(made)
        os.close(made)
        if min(after.st_mtime_ns, after.st_ctime_ns) < before:
            expect("a file that is written to looks older than when it was made", i, None)
            break


def leases():
    write("leased", b"x")
    # Whoever holds a lease is told by a signal that somebody wants it back.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    fd = os.open("leased", os.O_RDONLY)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    expect("a lease", fcntl.fcntl(fd, fcntl.F_GETLEASE), fcntl.F_RDLCK)
    expect("a lease in the way", error_of(os.open, "leased", os.O_WRONLY | os.O_NONBLOCK), "EAGAIN")
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    os.close(fd)
    os.close(os.open("leased", os.O_WRONLY | os.O_NONBLOCK))


def handle_of(path):
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
    mount = ctypes.c_int()
    if libc.name_to_handle_at(-100, path.encode(), handle, ctypes.byref(mount), 0) != 0:
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    return handle


def handles():
    SUBVOL_CREATE = 0x5000940E
    mount = os.open(".", os.O_RDONLY)
    fcntl.ioctl(mount, SUBVOL_CREATE, bytearray(struct.pack("q4088s", 0, b"handles")))
    os.makedirs("handles/d1/d2")
    paths = ["handles", "handles/d1", "handles/d1/d2"]
    known = [(path, os.stat(path), handle_of(path)) for path in paths]
    os.sync()
    # What the dcache does not hold is found from the inode upwards.
    write("/proc/sys/vm/drop_caches", b"2")
    for path, wanted, handle in reversed(known):
        fd = libc.open_by_handle_at(mount, handle, os.O_RDONLY | os.O_DIRECTORY)
        if fd < 0:
            expect(f"handle of {path}", errno.errorcode[ctypes.get_errno()], "a file")
            continue
        expect(f"handle of {path}", os.path.samestat(os.fstat(fd), wanted))
        expect(f"path of {path}", os.readlink(f"/proc/self/fd/{fd}"), os.path.realpath(path))
        os.close(fd)
    os.close(mount)


os.chdir(sys.argv[1])
for part in (names, data, ends, parts_synced, clones, shared_in_a_snapshot, attributes, clock, leases, handles):
    try:
        part()
    except OSError as e:
        failed = 1
        print(f"{part.__name__}: line {e.__traceback__.tb_lineno}: {e}")
sys.exit(failed)
