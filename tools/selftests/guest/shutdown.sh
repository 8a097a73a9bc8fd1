#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A volume that is shut down is like one whose power was cut: nothing more is read or written,
# whatever goes on, and afterwards it holds what was synced, undamaged.
. "$(dirname "$0")/lib.sh"

DEFAULT=0 NO_FLUSH=2 ROUNDS=6

# shut_down FLAGS [UID]
shut_down() {
	python3 - "$MNT" "$@" <<-'P'
		import fcntl, os, struct, sys
		fd = os.open(sys.argv[1], os.O_RDONLY)
		if len(sys.argv) > 3:
		    os.setuid(int(sys.argv[3]))
		fcntl.ioctl(fd, 0x8004587D, struct.pack("I", int(sys.argv[2])))
	P
}
again() { umount "$MNT" && check_volume "$DISK1" && mount "$DISK1" "$MNT"; }
clone() { python3 -c 'import fcntl, sys; source, target = open(sys.argv[1], "rb"), open(sys.argv[2], "r+b"); fcntl.ioctl(target, 0x40049409, source.fileno())' "$@"; }
write_and_sync() { echo "$1" >"$MNT/$1" && sync "$MNT/$1"; }

# What is not on the disk is missing from a file's end; it is never zeros, whatever told the tree of
# that end.
dirty() {
	python3 - "$MNT" <<-'P'
		import ctypes, os, sys
		fallocate = ctypes.CDLL(None, use_errno=True).fallocate
		fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
		def change(name, call):
		    fd = os.open(f"{sys.argv[1]}/dirty-{name}", os.O_CREAT | os.O_RDWR)
		    os.pwrite(fd, b"x" * 65536, 0)
		    assert call(fd) in (0, None)
		change("cut", lambda fd: os.ftruncate(fd, 32768))
		change("same", lambda fd: os.ftruncate(fd, 65536))
		change("grown", lambda fd: os.ftruncate(fd, 131072))
		change("punched", lambda fd: fallocate(fd, 3, 32768, 1 << 20))
		change("allocated", lambda fd: fallocate(fd, 0, 65536, 65536))
	P
	# This commits, and writes no data.
	btrfs subvolume create "$MNT/committed"
}
no_zeros() {
	local file
	[ "$(ls "$MNT"/dirty-* | wc -l)" = 5 ] || return
	for file in "$MNT"/dirty-*; do
		[ "$(head -c 32768 "$file" | tr -d x | wc -c)" = 0 ] || { echo "$file has zeros" && return 1; }
	done
}

# Calls for files that are open are refused, and what was refused is not seen.
refused() {
	python3 - "$MNT" <<-'P'
		import ctypes, errno, fcntl, mmap, os, struct, sys
		libc = ctypes.CDLL(None, use_errno=True)
		top = sys.argv[1]
		def syncfs(fd):
		    if libc.syncfs(fd) != 0:
		        raise OSError(ctypes.get_errno(), "syncfs")
		def fallocate(fd, mode, start, length):
		    if libc.fallocate(fd, mode, ctypes.c_long(start), ctypes.c_long(length)) != 0:
		        raise OSError(ctypes.get_errno(), "fallocate")
		def fails(number, call, *args):
		    before = os.fstat(fd)
		    try:
		        call(*args)
		    except OSError as e:
		        assert e.errno == number, (call, args, e)
		    else:
		        raise AssertionError((call, args))
		    after = os.fstat(fd)
		    seen = lambda s: (s.st_size, s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_mtime_ns, s.st_ctime_ns)
		    assert seen(before) == seen(after), (call, args, before, after)

		path = f"{top}/refused"
		fd = os.open(path, os.O_CREAT | os.O_RDWR)
		os.pwrite(fd, b"x" * 100000, 0)
		os.fsync(fd)
		memory = mmap.mmap(fd, 100000)
		folder = os.open(top, os.O_RDONLY)
		# Dirty data that nothing brings to the disk any more.
		os.pwrite(fd, b"y" * 1000, 150000)
		memory[0] = ord("y")
		fcntl.ioctl(folder, 0x8004587D, struct.pack("I", 2))
		for size in 10, 100000, 200000, 0:
		    fails(errno.EROFS, os.ftruncate, fd, size)
		fails(errno.EROFS, os.fchmod, fd, 0o600)
		fails(errno.EROFS, os.fchown, fd, 5, 5)
		fails(errno.EROFS, os.utime, fd, (5, 5))
		fails(errno.EROFS, os.setxattr, fd, "user.x", b"y")
		fails(errno.EROFS, fcntl.ioctl, fd, 0x40086602, struct.pack("Q", 0x80))
		fails(errno.EROFS, os.link, path, path + "-link")
		fails(errno.EROFS, os.rename, path, path + "-renamed")
		fails(errno.EROFS, os.unlink, path)
		for mode in 0, 1, 3, 16:
		    fails(errno.EIO, fallocate, fd, mode, 4096, 1 << 20)
		fails(errno.EIO, os.open, path, os.O_RDONLY)
		fails(errno.EIO, os.open, path, os.O_RDWR | os.O_TRUNC)
		fails(errno.EIO, memory.flush)
		fails(errno.EIO, os.fsync, fd)
		fails(errno.EIO, os.fdatasync, fd)
		fails(errno.EROFS, syncfs, folder)
	P
}

# synced NAME: makes files and syncs them until that fails; notes those that are certainly on the
# disk.
synced() {
	python3 - "$MNT/$1" 3>>/tmp/synced <<-'P'
		import hashlib, os, random, sys
		os.mkdir(sys.argv[1])
		numbers = random.Random(sys.argv[1])
		for n in range(10000):
		    data = numbers.randbytes(numbers.randrange(50000))
		    fd = os.open(f"{sys.argv[1]}/{n}", os.O_CREAT | os.O_WRONLY)
		    os.write(fd, data)
		    os.fsync(fd)
		    os.close(fd)
		    os.write(3, f"{hashlib.sha256(data).hexdigest()}  {sys.argv[1]}/{n}\n".encode())
	P
}
balances() { while btrfs balance start --full-balance "$MNT"; do :; done; }
snapshots() {
	local n=0
	while btrfs subvolume snapshot -r "$MNT" "$MNT/snap$n" && btrfs send -q -f /dev/null "$MNT/snap$n"; do
		btrfs subvolume delete "$MNT/snap$n"
		n=$((n + 1))
	done
}

# A volume in the midst of everything is shut down, as far on in time as the round says.
busy() {
	local pids=() name seed
	: >/tmp/synced
	mkfs.btrfs -q -f -b 2G "$DISK1" && mount -o commit=1 "$DISK1" "$MNT" && mkdir "$MNT/mixed" || return
	for name in one two; do synced "$name" & pids+=($!); done
	for seed in 1 2; do
		mkdir "$MNT/mixed/$seed"
		"$GUEST_TESTS/mixed.py" "$MNT/mixed/$seed" "$seed" 100000 & pids+=($!)
	done
	balances & pids+=($!)
	snapshots & pids+=($!)
	until [ "$(wc -l </tmp/synced)" -ge $(($1 * 7)) ]; do
		kill -0 "${pids[0]}" || return
		sleep 0.1
	done
	shut_down "$NO_FLUSH" || return
	wait "${pids[@]}"
	again && sha256sum --quiet -c /tmp/synced && umount "$MNT"
}

plan $((27 + ROUNDS))
load_rbtrfs
mkfs.btrfs -q -f "$DISK1" && mount "$DISK1" "$MNT" || bail "no volume"
check "a file that is synced" write_and_sync kept
echo lost >"$MNT/lost"
check_fails "not everybody may" "not permitted" shut_down "$NO_FLUSH" 1000
check_fails "nor in any way" "Invalid argument" shut_down 3
check "the volume is shut down" shut_down "$NO_FLUSH"
check "the log says so" grep -q "BTRFS critical (device .*): emergency shutdown" <(dmesg)
check_fails "nothing is read" "Input/output error" cat "$MNT/kept"
check_fails "nothing is shared" "Input/output error" clone "$MNT/kept" "$MNT/lost"
check_fails "nothing is written" "Input/output error" dd if=/dev/zero of="$MNT/lost" bs=1 count=1 conv=notrunc
check_fails "nothing is preallocated" "Input/output error" fallocate -l 1M "$MNT/lost"
check_fails "nothing is made" "Read-only file system" touch "$MNT/new"
check_fails "nothing is synced" "Read-only file system" btrfs filesystem sync "$MNT"
check "to shut it down again does nothing" shut_down "$DEFAULT"
check "it unmounts, is not damaged, and mounts again" again
check_equal "what was synced is there" kept "$(cat "$MNT/kept")"
check "what was not is lost" test ! -e "$MNT/lost"

echo flushed >"$MNT/flushed"
check "another one shuts down with all that is in memory" shut_down "$DEFAULT"
check_fails "nothing is read from that" "Input/output error" cat "$MNT/flushed"
check "it mounts again as well" again
check_equal "it lost nothing" flushed "$(cat "$MNT/flushed")"
check "and is written to" write_and_sync more
check "files are changed whose data is in memory" dirty
check "they are shut down" shut_down "$NO_FLUSH"
check "and mount again" again
check "none has zeros instead of data" no_zeros
check "open files are not changed by what is refused" refused
check "the volume can be made read-only" mount -o remount,ro "$MNT"
check "and mounts again once more" again
umount "$MNT"
for round in $(seq "$ROUNDS"); do
	check "shut down in the midst of everything, round $round" busy "$round"
done
finish
