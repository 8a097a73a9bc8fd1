#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Volumes with each algorithm of checksums: written, read by the C driver and the other way round,
# sent, balanced, logged; and what is damaged is told and repaired.
. "$(dirname "$0")/lib.sh"

write_source() { mkdir "$MNT/$1" && source_tree | tar -C "$MNT/$1" -x && head -c 3M /dev/urandom >"$MNT/$1/noise"; }
same_files() { diff -r "$MNT/$1" "$MNT/$2"; }
digest_of() { (cd "$MNT/$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum); }
# Where the first copy of a file's data begins on the disk, in bytes.
physical() {
	local logical
	logical=$(filefrag -v -b1 "$1" | awk '$1 == "0:" { sub(/\.\..*/, "", $4); print $4 }')
	btrfs-map-logical -l "$logical" "$2" | sed -n 's/^mirror 1 logical .* physical \([0-9]*\) .*/\1/p'
}

types="crc32c xxhash sha256 blake2"
plan $((4 * 13 + 1))
declare -A names=([crc32c]=crc32c [xxhash]=xxhash64 [sha256]=sha256 [blake2]=blake2b)

for type in $types; do
	load_btrfs
	mkfs.btrfs -q -f --csum "$type" -d dup "$DISK1" && mount "$DISK1" "$MNT" && write_source theirs && umount "$MNT" || bail "$type: no volume"
	unload_btrfs
	load_rbtrfs
	mount -t btrfs "$DISK1" "$MNT" || bail "$type: does not mount"
	name=${names[$type]}
	check_equal "$type: sysfs has the name" "$name ($name-lib)" "$(cat /sys/fs/btrfs/*-*/checksum)"
	check "$type: inspection has it" eval "btrfs filesystem usage '$MNT' >/dev/null && btrfs inspect-internal dump-super '$DISK1' | grep -q 'csum_type.*($name)'"
	check "$type: files are written" write_source ours
	cp -r "$MNT/theirs" "$MNT/copy"
	check "$type: what C wrote is read" same_files theirs copy
	digest_of ours >/tmp/ours
	echo synced >"$MNT/synced" && sync "$MNT/synced"
	btrfs -q subvolume snapshot -r "$MNT" "$MNT/snap"
	check "$type: a balance moves all" btrfs -q balance start --full-balance "$MNT"
	check "$type: a send" btrfs -q send -f /tmp/stream "$MNT/snap"
	mkdir "$MNT/received"
	check "$type: is received" btrfs -q receive -f /tmp/stream "$MNT/received"
	sync -f "$MNT" && echo "$type" >"$MNT/logged" && sync "$MNT/logged"
	python3 "$CHECKOUT/tools/selftests/guest/fsync_program.py" "$MNT" cut
	umount "$MNT"
	mount -t btrfs "$DISK1" "$MNT"
	check_equal "$type: a log is replayed" "$type" "$(cat "$MNT/logged")"
	check "$type: all is there" eval 'digest_of ours | diff - /tmp/ours && digest_of received/snap/ours | diff - /tmp/ours'
	at=$(physical "$MNT/ours/noise" "$DISK1")
	umount "$MNT"
	check "$type: btrfs check finds nothing" check_volume "$DISK1"
	dd if=/dev/zero of="$DISK1" bs=4096 seek=$((at / 4096)) count=1 oflag=direct conv=notrunc status=none
	mount -t btrfs "$DISK1" "$MNT"
	expect_log 'csum failed root' 'BTRFS info .* read error corrected'
	check "$type: a bad copy is told by its checksum" eval "cat '$MNT/ours/noise' >/dev/null && dmesg | grep 'csum failed root' | tail -n 1 | grep -qE 'csum 0x[0-9a-f]{$((2 * $(btrfs inspect-internal dump-super "$DISK1" | sed -n 's/^csum_size[^0-9]*//p')))} expected'"
	check "$type: and written anew" btrfs scrub start -B "$MNT"
	umount "$MNT"
	unload_rbtrfs
	load_btrfs
	mount "$DISK1" "$MNT"
	check "$type: the C driver reads it" eval 'digest_of ours | diff - /tmp/ours && digest_of received/snap/ours | diff - /tmp/ours'
	umount "$MNT"
	unload_btrfs
done
check_equal "and all are offered" "crc32c xxhash64 sha256 blake2b" "$(load_rbtrfs && cat /sys/fs/btrfs/features/supported_checksums)"
unload_rbtrfs
finish
