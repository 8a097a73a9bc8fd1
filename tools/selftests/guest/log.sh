#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What the C driver synced before the power went is there once rbtrfs has mounted the volume: its
# log is replayed, with the same outcome as by the C driver. The options that leave a log alone do
# so.
. "$(dirname "$0")/lib.sh"

# Everything but times, which a replay by the C driver sets anew in part.
digest() {
	(cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum
	find . -printf '%p %y %m %U %G %s %n %l\n' | LC_ALL=C sort
	getfattr -R -h -d -m - . 2>/dev/null)
}

copy() { dd if="$1" of="$2" bs=1M count=256 iflag=direct oflag=direct status=none; }
wipe() { wipefs -q -a "$1" && btrfs device scan --forget "$1"; }
has_log() { btrfs inspect-internal dump-super "$1" | awk '$1 == "log_root" { exit $2 == 0 }'; }

# Changes what was committed in ways that logs tell, each of them synced.
change() {
	python3 - "$MNT" <<-'P'
		import ctypes, os, sys
		os.chdir(sys.argv[1])
		fallocate = ctypes.CDLL(None).fallocate
		fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
		def sync(path):
		    fd = os.open(path, os.O_RDONLY)
		    os.fsync(fd)
		    os.close(fd)
		os.mkdir("new")
		# These may make the driver commit instead.
		os.rename("moved", "new/moved")
		sync("new/moved/inside")
		os.unlink("old/replaced")
		with open("old/replaced", "wb") as file:
		    file.write(b"r" * 10)
		sync("old/replaced")
		with open("new/file", "wb") as file:
		    file.write(b"n" * 100000)
		sync("new/file")
		os.link("new/file", "old/second")
		os.setxattr("new/file", "user.added", b"value")
		sync("new/file")
		fd = os.open("old/data", os.O_RDWR)
		os.pwrite(fd, b"p" * 8192, 65536)
		fallocate(fd, 3, 16384, 16384)
		fallocate(fd, 1, 1 << 20, 65536)
		os.removexattr("old/data", "user.gone")
		os.fsync(fd)
		os.truncate("old/short", 5000)
		sync("old/short")
		os.unlink("old/removed")
		os.rename("old/from", "old/to")
		os.symlink("target", "old/link")
		sync("old")
	P
}

load_btrfs
mkfs.btrfs -q -f -b 256M "$DISK1" && mount -o commit=600 "$DISK1" "$MNT" || bail "no volume"
mkdir "$MNT/old" "$MNT/moved"
head -c 300000 /dev/urandom | tee "$MNT/old/data" >"$MNT/old/short"
setfattr -n user.gone -v 1 "$MNT/old/data"
for name in old/removed old/from old/replaced moved/inside; do echo "$name" >"$MNT/$name"; done
sync
change || bail "no changes"
copy "$DISK1" "$DISK2" && copy "$DISK1" "$DISK3"
umount "$MNT"
wipe "$DISK1"
differs() { ! digest "$MNT" | cmp -s - /tmp/log.c; }
wipe_second() { umount "$MNT" && wipe "$DISK2"; }

plan 15
check "there is a log" has_log "$DISK2"
btrfs device scan --forget "$DISK3"
check "the C driver replays it" mount "$DISK2" "$MNT"
digest "$MNT" >/tmp/log.c
check "and goes" wipe_second
unload_btrfs
load_rbtrfs
check_fails "to leave it alone takes a read-only mount" 'nologreplay must be used with ro mount option' \
	mount -o rescue=nologreplay "$DISK3" "$MNT"
check "a mount can leave it alone" mount -o ro,norecovery "$DISK3" "$MNT"
check "then what was synced is missing" differs
check_fails "and the mount cannot be made writable" . mount -o remount,rw "$MNT"
check "it goes" umount "$MNT"
check "the log is there still" has_log "$DISK3"
check "a read-only mount replays it" mount -o ro "$DISK3" "$MNT"
digest "$MNT" >/tmp/log.rust
check "with the outcome of the C driver" diff /tmp/log.c /tmp/log.rust
check_fails "there is no log any more" '^$' has_log "$DISK3"
check "the mount can be made writable" mount -o remount,rw "$MNT"
check "and written to" cp -r "$MNT/old" "$MNT/copy"
umount "$MNT"
check "btrfs check finds nothing" check_volume "$DISK3"
finish
