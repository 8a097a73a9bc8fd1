#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Space of data in memory: what is punched, zeroed or cut off before it was written gives it back at
# once, and what stays keeps it, on a full volume as well.
. "$(dirname "$0")/lib.sh"

blocks() { sync -f "$MNT" && stat -c %b "$1"; }
dirty() { head -c "$2" /dev/urandom >"$1"; }
punch() { fallocate -p -o "$2" -l "$3" "$1"; }

available() { df --output=avail "$MNT" | tail -n 1; }
given_back() {
	local before after
	before=$(available)
	"$@" || return
	after=$(available)
	[ $((before - after)) -lt 4096 ] || { echo "$((before - after)) KiB are gone" && return 1; }
}
truncated() { head -c 32M /dev/zero >"$MNT/e" && truncate -s 0 "$MNT/e"; }
# A write of 16 MiB from memory of which only the first page is there.
cut_short() {
	python3 - "$MNT/short" <<-'P'
		import ctypes, os, sys
		libc = ctypes.CDLL(None, use_errno=True)
		libc.mmap.restype = ctypes.c_void_p
		libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
		libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
		libc.write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
		size = 16 << 20
		at = libc.mmap(None, size, 3, 0x22, -1, 0)
		libc.munmap(at + 4096, size - 4096)
		fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
		for _ in range(8):
		    assert libc.write(fd, at, size) == 4096
		blocks = os.fstat(fd).st_blocks
		sys.exit(blocks != 64 and "%d blocks" % blocks)
	P
}

# Rewriting takes no more space, and writing into a hole does, before it is on disk as after.
counted_once() {
	local file=$MNT/sparse
	dirty "$file" 1M && truncate -s 10M "$file" && sync -f "$MNT" &&
		dd if=/dev/urandom of="$file" bs=64K count=4 conv=notrunc status=none && [ "$(stat -c %b "$file")" = 2048 ] &&
		dd if=/dev/urandom of="$file" bs=64K count=1 seek=32 conv=notrunc status=none && [ "$(stat -c %b "$file")" = 2176 ] &&
		[ "$(blocks "$file")" = 2176 ] || { stat "$file" && return 1; }
}
# Zeros within a hole need no blocks.
hole_stays() {
	local file=$MNT/hole
	truncate -s 1000001 "$file" && sync -f "$MNT" && punch "$file" 5000 100000 && punch "$file" 200001 17 &&
		truncate -s 3000001 "$file" && [ "$(stat -c %b "$file") $(blocks "$file")" = "0 0" ] || { stat "$file" && return 1; }
}

fill_up() { dd if=/dev/zero of="$1" bs=64K oflag=append conv=notrunc 2>&1 | grep 'No space left'; }

# The volume is full but for some space, which one file after the other takes and gives back; all
# stay open.
again_and_again() {
	fill_up "$MNT/full" && sync -f "$MNT" && truncate -s -24M "$MNT/full" && sync -f "$MNT" &&
		python3 - "$MNT" <<-'P'
			import os, subprocess, sys
			data = os.urandom(1 << 20)
			for n in range(24):
			    name = "%s/again%d" % (sys.argv[1], n)
			    fd = os.open(name, os.O_CREAT | os.O_RDWR)
			    for _ in range(8):
			        os.write(fd, data)
			    if n % 2:
			        os.ftruncate(fd, 4096)
			    else:
			        subprocess.check_call(["fallocate", "-p", "-o", "4096", "-l", "8M", name])
		P
}
# A file that is cut off within a large folio and grows again: nothing but what it has is written,
# however full it is.
cut_and_grown() {
	python3 - "$MNT" <<-'P'
		import os, sys
		where = sys.argv[1]
		fd = os.open(where + "/cut", os.O_CREAT | os.O_RDWR)
		data = os.urandom(1 << 20)
		os.write(fd, data)
		os.ftruncate(fd, 100001)
		other = os.open(where + "/other", os.O_CREAT | os.O_RDWR)
		taken = 0
		try:
		    while True:
		        taken += os.write(other, data[:65536])
		except OSError as e:
		    print(e)
		os.ftruncate(fd, 1 << 20)
		os.fsync(fd)
		os.fsync(other)
		for file in fd, other:
		    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
		assert os.pread(fd, 1 << 20, 0) == data[:100001] + bytes((1 << 20) - 100001)
		for at in range(0, taken, 65536):
		    assert os.pread(other, min(65536, taken - at), at) == data[: min(65536, taken - at)], at
		assert os.fstat(fd).st_blocks == 200, os.fstat(fd)
	P
}

plan 16
load_rbtrfs
mkfs.btrfs -q -f -b 300M "$DISK1" && mount "$DISK1" "$MNT" || bail "the volume does not mount"

f=$MNT/a
dirty "$f" 320K && punch "$f" 64K 128K
check_equal "a range that is punched" 384 "$(blocks "$f")"
f=$MNT/b
dirty "$f" 320K && fallocate -z -o 64K -l 128K "$f"
check "a range that is zeroed is not written" sh -c "filefrag -v '$f' | grep unwritten"
f=$MNT/c
dirty "$f" 4M
for i in $(seq 0 63); do punch "$f" $((i * 65536 + 4096)) 57344; done
check_equal "many ranges that are punched" 1024 "$(blocks "$f")"
f=$MNT/d
dirty "$f" 4M && truncate -s 100K "$f"
check_equal "a file that is cut off" 200 "$(blocks "$f")"
check "truncating gives space back" given_back truncated
check "a write that is cut short gives space back" given_back cut_short
check "what is rewritten counts once" counted_once
check "a hole that is punched stays one" hole_stays
check "a full volume: space that is given back can be used" again_and_again
check "a full volume: what was written is there" cut_and_grown
check "a full volume: after a remount, too" sh -c "umount '$MNT' && mount '$DISK1' '$MNT' && [ \$(stat -c %s '$MNT/cut') = 1048576 ]"
rm -f "$MNT/full" "$MNT/other"
check_kept "$DISK1"
finish
