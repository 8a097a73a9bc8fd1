#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Receive: what is sent of the recorded volumes, full and incremental, arrives as it was. Both ends are rbtrfs.
. "$(dirname "$0")/lib.sh"

RECORDED=$CHECKOUT/rust/tests/send/streams
SOURCE=/mnt/source

# A recorded volume on the second disk, mounted at $SOURCE.
unpack() {
	blkdiscard -f "$DISK2" && python3 "$GUEST_TESTS/unpack_volume.py" "$RECORDED/$1.zst" "$DISK2" && mount -o ro "$DISK2" "$SOURCE"
}

# send_one INTO SNAPSHOT [PARENT]: sends it there, and compares.
send_one() {
	local into=$1 snapshot=$2
	btrfs send -q ${3:+-p "$SOURCE/$3"} "$SOURCE/$snapshot" | btrfs receive -q "$into" && [ "${PIPESTATUS[*]}" = "0 0" ] || return
	tree_digest "$SOURCE/$snapshot" >/tmp/sent.digest
	tree_digest "$into/${snapshot##*/}" | cmp - /tmp/sent.digest || { echo "$snapshot${3:+ after $3} differs" && return 1; }
}

cases() {
	local sent name
	for sent in "$SOURCE"/*-sent; do
		name=${sent##*/} name=${name%-sent}
		send_one "$MNT" "$name-parent" && send_one "$MNT" "$name-sent" "$name-parent" || return
	done
	btrfs subvolume delete "$MNT"/*-sent >/dev/null
}

# Every STEPth of the random volumes, one snapshot after the other, and the first one again as a change of the last.
seeds() {
	local step=$1 dir n=0 into number
	for dir in "$SOURCE"/*/; do
		n=$((n + 1))
		[ $((n % step)) = 0 ] || continue
		dir=$(basename "$dir") into=$MNT/$2/$dir
		mkdir -p "$into/back" && send_one "$into" "$dir/snap-0" || return
		for number in 1 2 3; do
			send_one "$into" "$dir/snap-$number" "$dir/snap-$((number - 1))" || return
		done
		send_one "$into/back" "$dir/snap-0" "$dir/snap-3" || return
	done
}

# What is received is a source again.
sent_on() {
	local into=$MNT/again dir
	dir=$(find "$MNT/mixed" -mindepth 1 -maxdepth 1 | head -n 1)
	umount "$SOURCE" && mount --bind "$MNT" "$SOURCE" && mkdir "$into" && dir=${dir#"$MNT/"} &&
		send_one "$into" "$dir/snap-1" && send_one "$into" "$dir/snap-2" "$dir/snap-1"
	local status=$?
	umount "$SOURCE"
	return "$status"
}

plan 9
mkdir -p "$SOURCE"
load_rbtrfs
mkfs.btrfs -q -f "$DISK1" && mount "$DISK1" "$MNT" && unpack cases || bail "the volumes do not mount"
check "the named cases arrive" cases
umount "$SOURCE" && unpack mixed || bail "no volume"
check "random changes arrive" seeds 10 mixed
umount "$SOURCE" && unpack data || bail "no volume"
check "random changes of data arrive" seeds 15 data
check "what arrived is sent on" sent_on
check_kept "$DISK1"
finish
