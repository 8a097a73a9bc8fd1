#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# btrfs filesystem defragment: pieces come together, data is compressed or decompressed, what
# snapshots share stays whole, and as many extents are left as with the C driver.
. "$(dirname "$0")/lib.sh"

# Extents of a file, by its items.
extents() { filefrag "$1" | sed -E 's/.*: ([0-9]+) extents?.*/\1/'; }

# Where the extents of a file are: in the file, on the volume, and how long.
places() { filefrag -v "$1" | awk -F : '/^ *[0-9]+:/ { print $2, $3, $4 }'; }

# Compressed extents of a file.
encoded() { filefrag -v "$1" | grep -c encoded; }

# Makes a volume with files in pieces. Written backwards with a sync each, so that no two lie
# together.
pieces() {
	for n in $(seq 31 -1 0); do
		for file in small large; do
			yes "$file $n" | head -c 65536 | dd of="$MNT/$file" bs=64K seek="$n" conv=notrunc status=none
		done
		sync -f "$MNT"
	done
	mkdir -p "$MNT/dir/sub" && cp --reflink=never "$MNT/small" "$MNT/dir/sub/file"
	for n in 3 9 15 27; do
		head -c 4096 /dev/urandom | dd of="$MNT/dir/sub/file" bs=4K seek=$n conv=notrunc status=none
		sync -f "$MNT"
	done
	truncate -s 8M "$MNT/holes"
	for n in 1 2 3 50; do
		head -c 8192 /dev/urandom | dd of="$MNT/holes" bs=8K seek=$((n * 3)) conv=notrunc status=none
		sync -f "$MNT"
	done
	fallocate -l 1M "$MNT/preallocated" && sync -f "$MNT"
}

# What defragmenting with the given options leaves of each file.
figures() {
	btrfs -q filesystem defragment "$@" -r -f "$MNT" >/dev/null && sync -f "$MNT"
	for file in small large dir/sub/file holes preallocated; do
		echo "$file $(extents "$MNT/$file")"
	done
}

# The ioctl itself: FILE START LEN FLAGS COMPRESSION.
defrag_range() {
	python3 - "$@" <<-'END'
		import fcntl, struct, sys
		start, length, flags, method = map(int, sys.argv[2:])
		with open(sys.argv[1]) as file:
		    args = struct.pack("QQQII4I", start, length, flags, 0, method, 0, 0, 0, 0)
		    try:
		        fcntl.ioctl(file, 0x40309410, args)
		    except OSError as error:
		        sys.exit(error.strerror)
	END
}

COMPRESS=1 COMPRESS_LEVEL=4 NOCOMPRESS=8 ALL=$((2 ** 63 - 1))

# What bad arguments give, and what is no file with data.
bad() {
	defrag_range "$MNT/small" 0 "$ALL" 16 0
	defrag_range "$MNT/small" 0 "$ALL" $((COMPRESS | NOCOMPRESS)) 0
	defrag_range "$MNT/small" 0 "$ALL" "$COMPRESS" 4
	defrag_range "$MNT/small" 0 "$ALL" $((COMPRESS | COMPRESS_LEVEL)) $((1 | 10 << 8))
	defrag_range "$MNT/small" 0 "$ALL" $((COMPRESS | COMPRESS_LEVEL)) $((3 | 200 << 8))
	defrag_range "$MNT/small" $((2 ** 40)) "$ALL" 0 0
	defrag_range "$MNT/empty" $((2 ** 40)) "$ALL" 0 0
	echo "$?"
} 2>&1

plan 32
load_btrfs
mkfs.btrfs -q -f "$DISK1" && mount "$DISK1" "$MNT" && pieces
umount "$MNT" && dd if="$DISK1" of="$DISK2" bs=1M status=none && mount "$DISK1" "$MNT"
touch "$MNT/empty" && bad >/tmp/bad_by_c
figures >/tmp/by_c && figures -t 16K >>/tmp/by_c
umount "$MNT"
unload_btrfs

load_rbtrfs
mount "$DISK2" "$MNT"
sha256sum "$MNT"/{small,large,holes,dir/sub/file} >/tmp/sums
intact() { sha256sum --quiet -c /tmp/sums; }
before=$(extents "$MNT/small")
note "small: $before extents before"
figures >/tmp/ours && figures -t 16K >>/tmp/ours
note "$(paste /tmp/by_c /tmp/ours)"
check "files were in pieces" test "$before" -ge 32
check "small is in one piece" test "$(extents "$MNT/small")" -le 2
check "extents as with the C driver" cmp /tmp/by_c /tmp/ours
check "the contents are the same" intact
check "preallocated space stays" test "$(stat -c %b "$MNT/preallocated")" -eq 2048
check "holes stay" test "$(stat -c %b "$MNT/holes")" -eq 64

before=$(stat -c '%Y %Z' "$MNT/large")
for method in zlib lzo zstd; do
	check "compressing with $method" btrfs -q filesystem defragment "-c$method" "$MNT/large"
	sync -f "$MNT"
	check "all of it is compressed" test "$(encoded "$MNT/large")" -eq 16
done
check "with a level" btrfs -q filesystem defragment -czstd --level 15 "$MNT/large"
check "decompressing" defrag_range "$MNT/large" 0 "$ALL" "$NOCOMPRESS" 0
sync -f "$MNT"
check "nothing is compressed" test "$(encoded "$MNT/large")" -eq 0
touch "$MNT/empty" && bad >/tmp/bad_ours
note "$(paste /tmp/bad_by_c /tmp/bad_ours)"
check "bad arguments are refused as by the C driver" cmp /tmp/bad_by_c /tmp/bad_ours
check "times are as before" test "$(stat -c '%Y %Z' "$MNT/large")" = "$before"
check "a range of it" btrfs -q filesystem defragment -czlib -s 256K -l 512K "$MNT/large"
check "is four extents" test "$(encoded "$MNT/large")" -eq 4
check "step by step" btrfs -q filesystem defragment -clzo --step 1M "$MNT/large"

btrfs -q subvolume snapshot -r "$MNT" "$MNT/snapshot" && sync -f "$MNT"
places "$MNT/snapshot/dir/sub/file" >/tmp/snapshot.before
check "what a snapshot shares" btrfs -q filesystem defragment -czstd -f "$MNT/dir/sub/file"
sync -f "$MNT"
places "$MNT/snapshot/dir/sub/file" >/tmp/snapshot.after
check "stays where it was" cmp /tmp/snapshot.before /tmp/snapshot.after
check "the file itself is compressed" test "$(encoded "$MNT/dir/sub/file")" -gt 0
check "and the snapshot is not" test "$(encoded "$MNT/snapshot/dir/sub/file")" -eq 0
check_fails "a read-only snapshot is refused" "Read-only file system" btrfs -q filesystem defragment "$MNT/snapshot/small"
chmod 644 "$MNT/small" && chmod 755 "$MNT"
check_fails "who may not write is refused" "Operation not permitted" setpriv --reuid 1000 --clear-groups btrfs -q filesystem defragment "$MNT/small"
check "the contents are still the same" intact
check_kept "$DISK2"
finish
