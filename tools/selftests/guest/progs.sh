#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Unmodified btrfs-progs: what they print of a volume under rbtrfs is what they print under the C
# driver.
. "$(dirname "$0")/lib.sh"

fill() {
	mkfs.btrfs -q -f -L selftest "$DISK1" && mount -t btrfs "$DISK1" "$MNT" || return
	btrfs subvolume create "$MNT/a" >/dev/null && btrfs subvolume create "$MNT/a/nested" >/dev/null || return
	mkdir -p "$MNT/a/dir/deeper" "$MNT/b"
	echo text >"$MNT/a/dir/deeper/file"
	ln "$MNT/a/dir/deeper/file" "$MNT/a/second-name"
	head -c 3M /dev/urandom >"$MNT/a/data"
	btrfs subvolume snapshot -r "$MNT/a" "$MNT/b/snapshot" >/dev/null || return
	# What the snapshot does not share: a file of its own, two that share an extent, and space
	# behind the end of one.
	head -c 200K /dev/urandom >"$MNT/a/dir/own" && head -c 300K /dev/urandom >"$MNT/a/dir/original" || return
	sync
	cp --reflink=always "$MNT/a/dir/original" "$MNT/a/dir/copy" && fallocate -n -l 1M "$MNT/a/dir/own" || return
	# An extent with several places, whose order is that of its owners: in one file, in another,
	# and in the snapshot.
	cp --reflink=always "$MNT/a/data" "$MNT/a/again" || return
	python3 - "$MNT/a/again" <<-'E' || return
		import fcntl, struct, sys
		with open(sys.argv[1], "r+b") as file:
		    for size, to in ((1, 4), (2, 6)):
		        fcntl.ioctl(file, 0x4020940D, struct.pack("qQQQ", file.fileno(), 0, size << 20, to << 20))
	E
	btrfs subvolume snapshot "$MNT/a" "$MNT/b/later" >/dev/null || return
	dd if=/dev/urandom of="$MNT/a/data" bs=64K seek=3 count=2 conv=notrunc status=none || return
	btrfs subvolume set-default "$(btrfs inspect-internal rootid "$MNT/a")" "$MNT" || return
	sync
	ino=$(stat -c %i "$MNT/a/data")
	logical=$(filefrag -v "$MNT/a/data" 2>/dev/null | awk '$1 == "0:" { sub(/\.\./, "", $4); print $4 * 4096; exit }')
	umount "$MNT"
}

# One command a line; $MNT, $ino and $logical are filled in.
commands() {
	cat <<-E
		btrfs subvolume list $MNT
		btrfs subvolume list -a -p -c -g -u -q -R $MNT
		btrfs subvolume list -r $MNT
		btrfs subvolume list -t --sort=rootid $MNT
		btrfs subvolume show $MNT/a
		btrfs subvolume show $MNT/b/snapshot
		btrfs subvolume get-default $MNT
		btrfs filesystem df -b $MNT
		btrfs filesystem df $MNT
		btrfs filesystem usage -b $MNT
		btrfs filesystem usage -T $MNT
		btrfs filesystem show $MNT
		btrfs filesystem label $MNT
		btrfs filesystem sync $MNT
		btrfs filesystem du --raw $MNT/a $MNT/b
		filefrag -v $MNT/a/data $MNT/a/dir/own $MNT/a/dir/original $MNT/a/dir/copy $MNT/a/dir/deeper/file
		filefrag -v $MNT/b/snapshot/data
		btrfs device stats $MNT
		btrfs device usage -b $MNT
		btrfs property get $MNT/a
		btrfs property get $MNT/b/snapshot ro
		btrfs property get $MNT label
		btrfs inspect-internal rootid $MNT/a/dir
		btrfs inspect-internal inode-resolve $ino $MNT/a
		btrfs inspect-internal subvolid-resolve 256 $MNT
		btrfs inspect-internal logical-resolve $logical $MNT
		btrfs inspect-internal logical-resolve -P $((logical + 65536)) $MNT
		btrfs inspect-internal logical-resolve -P -o $logical $MNT
		btrfs balance status $MNT
		stat -f -c %t:%s:%S:%b:%l $MNT
	E
}

# The output of each, in a file of its own.
run_all() {
	local to=$1 n=0 line
	mkdir -p "$to"
	while read -r line; do
		n=$((n + 1))
		$line >"$to/$n" 2>&1
		echo "status $?" >>"$to/$n"
		# How much each driver keeps back for itself is its own affair.
		sed -i -E '/[Gg]lobal ?[Rr]eserve|Free \(statfs/d' "$to/$n"
	done < <(commands)
}

load_btrfs
fill || bail "the volume could not be filled"
plan $(($(commands | wc -l) + 9))
# Read-only, so that the C driver commits nothing of its own in between.
mount -t btrfs -o ro,subvolid=5 "$DISK1" "$MNT" && run_all /tmp/c && umount "$MNT"
unload_btrfs
load_rbtrfs
mount -t btrfs -o subvolid=5 "$DISK1" "$MNT" || bail "the volume does not mount"
run_all /tmp/rust
n=0
while read -r line; do
	n=$((n + 1))
	check "${line//$MNT/MNT}" diff /tmp/c/$n /tmp/rust/$n
done < <(commands)

# In bytes: what statfs counts as used is what is in use on the device, and what is kept for
# commits.
used=$(stat -f -c '%S %b %f' "$MNT" | awk '{ print $1 * ($2 - $3) }')
in_use=$(btrfs filesystem usage -b "$MNT" | awk '/^ *Used:/ { print $2; exit }')
reserve=$(btrfs filesystem df -b "$MNT" | sed -n 's/^GlobalReserve.*total=\([0-9]*\).*/\1/p')
check_equal "the global reserve counts as used" $((in_use + reserve)) "$used"
check "set the label" btrfs filesystem label "$MNT" other
check_equal "the label is set" other "$(btrfs filesystem label "$MNT")"
check "a subvolume is created" btrfs subvolume create "$MNT/new"
check "and deleted" btrfs subvolume delete "$MNT/new"
umount "$MNT"
check "the default subvolume mounts" mount -t btrfs "$DISK1" "$MNT"
check_equal "it is the one that was set" "$(printf 'again\ndata\ndir\nnested\nsecond-name')" "$(ls "$MNT")"
umount "$MNT"
check_equal "the label is on disk" other "$(btrfs filesystem label "$DISK1")"
check_fails "a volume that is mounted is not made anew" "mounted" bash -c "mount -t btrfs $DISK1 $MNT && mkfs.btrfs -f $DISK1; s=\$?; umount $MNT; exit \$s"
finish
