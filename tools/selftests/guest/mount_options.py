#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Mount options, by fsopen and fsconfig: what each driver answers, and what stands in the context's log.

Usage: mount_options.py c|rbtrfs DEVICE PLAIN, where DEVICE has a free space tree and PLAIN has none. Prints a line for each
answer that is not the one in the table, and exits with 1 then.
"""

import ctypes
import errno
import os
import sys

FSOPEN, FSCONFIG, FSMOUNT, FSPICK = 430, 431, 432, 433
SET_FLAG, SET_STRING, CREATE, RECONFIGURE = 0, 1, 6, 7
LIBC = ctypes.CDLL(None, use_errno=True)

# Options, what the C driver answers, and what this one does where that is another answer: an
# error's name, "ok", or an error's name and the message in the context's log. Where the C driver's
# message is in the kernel's log alone, this driver's is in both.
BAD = "EINVAL btrfs: Bad value for '%s'"
CASES = [
    ("", "ok", None),
    # Options that are unknown.
    ("foo", "EINVAL btrfs: Unknown parameter 'foo'", None),
    ("foo=1", "EINVAL btrfs: Unknown parameter 'foo'", None),
    ("nologreplay", "EINVAL btrfs: Unknown parameter 'nologreplay'", None),
    ("nodegraded", "EINVAL btrfs: Unknown parameter 'nodegraded'", None),
    ("noacl=1", "EINVAL btrfs: Unknown parameter 'noacl'", None),
    # Values that make no sense.
    ("acl=1", "EINVAL btrfs: Unexpected value for 'acl'", None),
    ("commit=x", BAD % "commit", None),
    ("commit=4294967296", BAD % "commit", None),
    ("subvol=", BAD % "subvol", None),
    ("subvolid=x", BAD % "subvolid", None),
    ("discard=often", BAD % "discard", None),
    ("space_cache=v3", BAD % "space_cache", None),
    ("fatal_errors=none", BAD % "fatal_errors", None),
    ("rescue=most", BAD % "rescue", None),
    ("rescue=usebackuproot:nologreplay", BAD % "rescue", None),
    ("compress=foo", "EINVAL", "EINVAL btrfs: failed to parse compression option 'foo'"),
    ("compress=zstd:x", "EINVAL", "EINVAL btrfs: failed to parse compression option 'zstd:x'"),
    ("thread_pool=0", "EINVAL", "EINVAL btrfs: invalid value 0 for thread_pool"),
    ("device=/dev/null", "ENOTBLK", "ENOTBLK btrfs: device '/dev/null' cannot be scanned: error -15"),
    ("device=/no/such", "ENOENT", "ENOENT btrfs: device '/no/such' cannot be scanned: error -2"),
    # What forbids writing.
    ("norecovery", "EINVAL", "EINVAL btrfs: nologreplay must be used with ro mount option"),
    ("rescue=usebackuproot", "EINVAL", "EINVAL btrfs: usebackuproot must be used with ro mount option"),
    ("rescue=ignorebadroots", "EINVAL", "EINVAL btrfs: ignorebadroots must be used with ro mount option"),
    ("rescue=idatacsums", "EINVAL", "EINVAL btrfs: ignoredatacsums must be used with ro mount option"),
    ("rescue=imetacsums", "EINVAL", "EINVAL btrfs: ignoremetacsums must be used with ro mount option"),
    ("rescue=isuperflags", "EINVAL", "EINVAL btrfs: ignoresuperflags must be used with ro mount option"),
    ("ro,norecovery", "ok", None),
    ("ro,rescue=all", "ok", None),
    ("ro,rescue=usebackuproot,rescue=nologreplay", "ok", None),
    # The free space tree.
    ("space_cache=v1", "EINVAL", "EINVAL btrfs: cannot disable free-space-tree"),
    ("nospace_cache", "EINVAL", "EINVAL btrfs: cannot disable free-space-tree"),
    ("space_cache=v2", "ok", None),
    ("clear_cache", "ok", None),
    # What stands in people's fstab.
    ("degraded,device=DEVICE,noacl,nobarrier,rescan_uuid_tree,fatal_errors=bug", "ok", None),
    ("compress=zstd:3,ssd,discard=async,noatime,autodefrag,commit=120,thread_pool=4", "ok", None),
    ("compress-force=zlib,nodatacow,nodatasum,nossd,nodiscard,notreelog,max_inline=0", "ok", None),
    ("compress=lzo,ssd_spread,metadata_ratio=2,enospc_debug,user_subvol_rm_allowed,skip_balance", "ok", None),
    ("flushoncommit", "ok", None),
    ("fatal_errors=panic,subvolid=0,subvol=/,acl,barrier,datacow,datasum,noflushoncommit", "ok", None),
]

# On a mounted volume: the same options, and what /proc/mounts has of them then.
REMOUNTS = [
    ("commit=2", "ok", None, ["commit=2"]),
    ("user_subvol_rm_allowed", "ok", None, ["commit=2", "user_subvol_rm_allowed"]),
    ("noacl,nobarrier", "ok", None, ["commit=2", "user_subvol_rm_allowed", "noacl", "nobarrier"]),
    ("barrier,acl,commit=0", "ok", None, ["user_subvol_rm_allowed"]),
    ("flushoncommit", "ok", None, ["user_subvol_rm_allowed", "flushoncommit"]),
    ("noflushoncommit", "ok", None, ["user_subvol_rm_allowed"]),
    ("notreelog", "ok", None, ["user_subvol_rm_allowed", "notreelog"]),
    ("treelog", "ok", None, ["user_subvol_rm_allowed"]),
    ("skip_balance", "ok", None, ["user_subvol_rm_allowed", "skip_balance"]),
    ("compress=foo", "EINVAL", "EINVAL btrfs: failed to parse compression option 'foo'", ["user_subvol_rm_allowed"]),
    ("foo", "EINVAL btrfs: Unknown parameter 'foo'", None, ["user_subvol_rm_allowed"]),
    ("nospace_cache", "EINVAL", "EINVAL btrfs: cannot disable free-space-tree", ["space_cache=v2"]),
    (
        "rescue=ignoredatacsums",
        "EINVAL",
        "EINVAL btrfs: ignoredatacsums must be used with ro mount option",
        ["user_subvol_rm_allowed"],
    ),
    ("ro,rescue=ignoredatacsums", "ok", None, ["ro", "rescue=ignoredatacsums"]),
    (
        "rw",
        "EINVAL",
        "EINVAL btrfs: ignoredatacsums must be used with ro mount option",
        ["ro", "rescue=ignoredatacsums"],
    ),
]


def call(number, *arguments):
    result = LIBC.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def messages(fd):
    """What the context's log has, without the letters for the level."""
    found = []
    while True:
        try:
            found.append(os.read(fd, 4096).decode().strip()[2:])
        except OSError:
            return found


def configure(fd, options):
    for option in filter(None, options.split(",")):
        key, equals, value = option.partition("=")
        if equals:
            call(FSCONFIG, fd, SET_STRING, key.encode(), value.encode(), 0)
        else:
            call(FSCONFIG, fd, SET_FLAG, key.encode(), None, 0)


def attempt(fd, options, command):
    """The answer, as it stands in the tables."""
    try:
        configure(fd, options)
        call(FSCONFIG, fd, command, None, None, 0)
    except OSError as error:
        log = [line for line in messages(fd) if "deprecated" not in line]
        return " ".join([errno.errorcode[error.errno]] + log[:1])
    return "ok"


def mount(device, options):
    fd = call(FSOPEN, b"btrfs", 0)
    try:
        call(FSCONFIG, fd, SET_STRING, b"source", device.encode(), 0)
        # noatime is of the mount, not of the filesystem.
        kept = ",".join(option for option in options.split(",") if option != "noatime")
        answer = attempt(fd, kept.replace("DEVICE", device), CREATE)
        return answer, call(FSMOUNT, fd, 0, 0) if answer == "ok" else None
    finally:
        os.close(fd)


def shown(path):
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        for line in mounts:
            fields = line.split()
            if fields[4] == path:
                return fields[-1].split(",")
    return []


def main():
    column, device, plain = sys.argv[1], sys.argv[2], sys.argv[3]
    failed = False

    def judge(what, expected, ours, found):
        nonlocal failed
        if column == "rbtrfs" and ours is not None:
            expected = ours
        if found != expected:
            print(f"{what}: expected {expected!r}, found {found!r}")
            failed = True

    for options, expected, ours in CASES:
        found, fd = mount(device, options)
        judge(f"mount -o {options}", expected, ours, found)
        if fd is not None:
            os.close(fd)
    # Without a free space tree, there shall be none; and with v2 there is one.
    found, fd = mount(plain, "nospace_cache")
    judge("nospace_cache without a tree", "ok", None, found)
    os.close(fd)

    path = os.environ["MNT"]
    os.system(f"mount -t btrfs {device} {path}")
    for options, expected, ours, wanted in REMOUNTS:
        fd = call(FSPICK, -100, path.encode(), 0)
        found = attempt(fd, options, RECONFIGURE)
        os.close(fd)
        judge(f"remount,{options}", expected, ours, found)
        has = shown(path)
        missing = [option for option in wanted if option not in has]
        judge(f"remount,{options} shows {missing} in {has}", [], None, missing)
    os.system(f"umount {path}")
    return failed


sys.exit(main())
