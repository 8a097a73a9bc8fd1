#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Receive: what the C driver sends of the recorded volumes arrives as the same trees, whichever
# driver receives it.
. "$(dirname "$0")/lib.sh"

RECORDED=$CHECKOUT/rust/tests/send/streams
SOURCE=/mnt/source STREAMS=/tmp/streams
start=$(date +%s)

# tree DIRECTORY: what was received there. The directory itself has the time at which it was
# received, as has what a stream leaves behind under a temporary name.
tree() {
	(cd "$1" && find . -xdev -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum
	find . -mindepth 1 -xdev -printf '%T@ %p %y %m %U %G %s %n %l\n' |
		awk -v start="$start" '{ if ($1 >= start) $1 = "now"; print }' | LC_ALL=C sort
	getfattr -R -h -d -m - . 2>/dev/null)
}

# send_one FOLDER SNAPSHOT [PARENT]: into a file whose name sorts behind those before it.
streams=0
send_one() {
	local stream
	streams=$((streams + 1))
	stream=$STREAMS/$1/$((10000 + streams))-${2##*/}
	mkdir -p "$STREAMS/$1"
	btrfs send -q ${3:+-p "$SOURCE/$3"} -f "$stream" "$SOURCE/$2" 2>/tmp/send.error && return
	# The C driver cannot send a directory into one that comes later, and says so.
	rm "$stream" && [[ $2 = new_directory_waits* ]]
}

# send_seeds NAME STEP: every STEPth of the random volumes, one snapshot after the other.
send_seeds() {
	local dir n=0 number
	for dir in "$SOURCE"/*/; do
		n=$((n + 1)) dir=$(basename "$dir")
		[ $((n % $2)) = 0 ] || continue
		send_one "$1-$dir" "$dir/snap-0" || return
		for number in 1 2 3; do
			send_one "$1-$dir" "$dir/snap-$number" "$dir/snap-$((number - 1))" || return
		done
	done
}
send_all() {
	local name sent
	mkdir -p "$SOURCE"
	for name in cases mixed data; do
		blkdiscard -f "$DISK2" 2>/dev/null && python3 "$GUEST_TESTS/unpack_volume.py" "$RECORDED/$name.zst" "$DISK2" &&
			mount -o ro "$DISK2" "$SOURCE" || return
		case $name in
		cases)
			for sent in "$SOURCE"/*-sent; do
				sent=$(basename "$sent")
				send_one cases "${sent%-sent}-parent" && send_one cases "$sent" "${sent%-sent}-parent" || return
			done
			;;
		mixed) send_seeds mixed 12 || return ;;
		data) send_seeds data 20 || return ;;
		esac
		umount "$SOURCE"
	done
}

# receive_all TREES: receives every stream in the mounted volume, and notes what came of it.
receive_all() {
	local stream folder name
	for stream in "$STREAMS"/*/*; do
		folder=$(basename "$(dirname "$stream")") name=$(basename "$stream")
		mkdir -p "$MNT/$folder" "$1/$folder"
		btrfs receive -q -f "$stream" "$MNT/$folder" || { echo "$stream is not received" && return 1; }
		# What is only there to be changed shows in that.
		[[ $name = *-parent ]] || tree "$MNT/$folder/${name#*-}" >"$1/$folder/$name"
	done
}

plan 9
load_btrfs
check "the C driver sends" send_all
mkfs.btrfs -q -f "$DISK3" && mount "$DISK3" "$MNT" || bail "no volume"
check "the C driver receives" receive_all /tmp/c
umount "$MNT"
unload_btrfs
load_rbtrfs
mkfs.btrfs -q -f "$DISK1" && mount "$DISK1" "$MNT" || bail "the volume does not mount"
check "rbtrfs receives" receive_all /tmp/rust
note "$(find "$STREAMS" -type f | wc -l) streams"
check "the trees are the same" diff -r /tmp/c /tmp/rust
check_kept "$DISK1"
finish
