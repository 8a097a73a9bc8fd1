#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# make.sh [FOLDER]: makes the volumes in rust/tests/images anew, with the kernel's own btrfs. Needs
# root, losetup, btrfs-progs, python3 and xz. See the README there for what they hold.
set -euo pipefail
out=$(realpath "${1:-$(dirname "$0")/../../rust/tests/images}")
work=$(mktemp -d)
mnt=$work/mnt
mkdir "$mnt"
cleanup() {
	mountpoint -q "$mnt" && umount "$mnt"
	rm -rf "$work"
}
trap cleanup EXIT

begin() { # SIZE MKFS-OPTIONS...
	rm -f "$work/image"
	truncate -s "$1" "$work/image"
	mkfs.btrfs -q "${@:2}" "$work/image"
	mount -o loop,noatime,max_inline=2000 "$work/image" "$mnt"
}

finish() { # NAME
	mountpoint -q "$mnt" && umount "$mnt"
	btrfs check --check-data-csum "$work/image" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
	xz -9e --lzma2=dict=256MiB -T1 -c "$work/image" >"$out/$1.img.xz"
	ls -l "$out/$1.img.xz"
}

text() { # BYTES WORD
	yes "$2" | head -c "$1" || true
}

files() { # FOLDER COUNT
	local i
	mkdir -p "$1"
	for ((i = 0; i < $2; i++)); do
		case $((i % 5)) in
		0) text $((50 + i)) "inline $i" >"$1/file-$i" ;;
		1) text 5000 "extent $i" >"$1/file-$i" ;;
		2) : >"$1/file-$i" ;;
		*) text 90 "small $i" >"$1/file-$i" ;;
		esac
	done
}

# Snapshots by the dozen: shared leaves and nodes, full back references, writable snapshots of
# snapshots.
snapshots() {
	local i
	begin 128M -n 4096 -m single -d single
	btrfs -q subvolume create "$mnt/a"
	files "$mnt/a/one" 150
	files "$mnt/a/two" 150
	ln "$mnt/a/one/file-1" "$mnt/a/two/hard-link"
	for ((i = 0; i < 44; i++)); do
		btrfs -q subvolume snapshot -r "$mnt/a" "$mnt/ro-$i"
		text 100 "changed $i" >"$mnt/a/one/file-$((i * 3))"
	done
	btrfs -q subvolume snapshot "$mnt/ro-5" "$mnt/w1"
	text 6000 "w1" >"$mnt/w1/one/file-7"
	btrfs -q subvolume snapshot "$mnt/w1" "$mnt/w2"
	rm "$mnt"/w2/two/file-1?
	btrfs -q subvolume snapshot "$mnt/w2" "$mnt/w3"
	text 5000 "w1 again" >"$mnt/w1/two/file-100"
	text 5000 "w3" >"$mnt/w3/two/file-100"
	btrfs -q filesystem sync "$mnt"
	btrfs -q subvolume delete -C "$mnt/w2" "$mnt/ro-11" "$mnt/ro-30" "$mnt/ro-31" >/dev/null
	btrfs -q subvolume sync "$mnt"
	finish snapshots
}

# Extents of every sort, shared in every way.
extents() {
	local how
	begin 192M -n 16384 -m dup -d single
	btrfs -q subvolume create "$mnt/a"
	files "$mnt/a/files" 60
	text 262144 "source" >"$mnt/a/source"
	fallocate -l 300K "$mnt/a/prealloc"
	printf 'written into the middle' | dd of="$mnt/a/prealloc" bs=4096 seek=20 conv=notrunc status=none
	touch "$mnt/a/nodatasum"
	chattr +C "$mnt/a/nodatasum"
	text 150000 "no checksums" >"$mnt/a/nodatasum"
	for how in zlib lzo zstd; do
		touch "$mnt/a/$how"
		btrfs property set "$mnt/a/$how" compression $how
		text 400000 "compressed by $how" >"$mnt/a/$how"
	done
	truncate -s 1M "$mnt/a/sparse"
	text 8192 "after a hole" | dd of="$mnt/a/sparse" bs=4096 seek=200 conv=notrunc status=none
	sync -f "$mnt"
	btrfs -q subvolume snapshot "$mnt/a" "$mnt/b"
	python3 - "$mnt" <<-'PY'
	import fcntl, os, struct, sys
	def clone(source, start, length, target, at):
	    s, t = (os.open(p, os.O_RDWR | os.O_CREAT) for p in (source, target))
	    fcntl.ioctl(t, 0x4020940D, struct.pack("qQQQ", s, start, length, at))
	    os.close(s)
	    os.close(t)
	m = sys.argv[1]
	for n in range(40):
	    # The extent starts before the file does, behind its start, and more than once in it.
	    clone(f"{m}/a/source", 4096 * (n + 3), 8192, f"{m}/a/clone-{n % 7}", 16384 * n)
	    clone(f"{m}/a/zstd", 131072 + 4096 * n, 4096, f"{m}/b/clone-{n % 3}", 4096 * n)
	clone(f"{m}/b/nodatasum", 81920, 40960, f"{m}/b/nodatasum", 0)
	PY
	text 9000 "overwritten" | dd of="$mnt/a/source" bs=4096 seek=31 conv=notrunc status=none
	btrfs -q subvolume snapshot "$mnt/a" "$mnt/c"
	btrfs -q subvolume snapshot -r "$mnt/b" "$mnt/d"
	text 70000 "b" >"$mnt/b/files/file-8"
	rm "$mnt/a/clone-3" "$mnt/c/clone-4"
	text 5000 "zlib" | dd of="$mnt/a/zlib" bs=4096 seek=9 conv=notrunc status=none
	sync -f "$mnt"
	btrfs -q subvolume delete -C "$mnt/c" >/dev/null
	btrfs -q subvolume sync "$mnt"
	finish extents
}

# A little of everything, for tests that walk through every place where something can fail.
tiny() {
	local i
	begin 128M -n 4096 -m dup -d single
	btrfs -q subvolume create "$mnt/a"
	mkdir "$mnt/a/folder"
	for ((i = 0; i < 16; i++)); do
		text 200 "$i" >"$mnt/a/folder/file-$i"
	done
	text 60 "inline" >"$mnt/a/folder/inline"
	text 9000 "two extents" >"$mnt/a/folder/shared"
	text 5000 "deleted" >"$mnt/a/folder/later"
	ln "$mnt/a/folder/inline" "$mnt/a/link"
	ln -s folder/inline "$mnt/a/symlink"
	touch "$mnt/a/zlib"
	btrfs property set "$mnt/a/zlib" compression zlib
	text 20000 "compressed" >"$mnt/a/zlib"
	fallocate -l 12K "$mnt/a/prealloc"
	sync -f "$mnt"
	# Twice the same extent, and a part of it.
	cp --reflink=always "$mnt/a/folder/shared" "$mnt/a/clone"
	text 4096 "overwritten" | dd of="$mnt/a/clone" conv=notrunc status=none
	btrfs -q subvolume snapshot "$mnt/a" "$mnt/b"
	btrfs -q subvolume snapshot -r "$mnt/a" "$mnt/c"
	text 70 "changed" >"$mnt/a/folder/inline"
	cp --reflink=always "$mnt/c/folder/shared" "$mnt/b/clone"
	rm "$mnt/b/folder/later"
	btrfs -q subvolume snapshot -r "$mnt/b" "$mnt/d"
	finish tiny
}

for name in ${IMAGES:-snapshots extents tiny}; do
	$name
done
