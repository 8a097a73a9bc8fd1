#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A bad copy is written over with the good one, and the log says so, as the C driver does it.
. "$(dirname "$0")/lib.sh"

# Where the first copy of an address is on the device.
physical() { btrfs-map-logical -l "$1" -b 4096 "$DISK1" | awk '$1 == "mirror" && $2 == 1 { print $6; exit }'; }

bytes() { dd if="$DISK1" bs=4096 skip=$(($1 / 4096)) count=1 status=none | md5sum; }

damage() {
	local place
	for place in "$data" "$node"; do
		printf damage | dd of="$DISK1" bs=1 seek=$((place + 512)) conv=notrunc,fsync status=none || return
	done
	blockdev --flushbufs "$DISK1"
}

# What a file holds, and what the log says of repairs after it was read on a mount with these
# options.
read_it() {
	dmesg --clear
	damage && mount -t btrfs -o "$1" "$DISK1" "$MNT" && md5sum <"$MNT/file"
	dmesg | grep -oE 'BTRFS info .*: read error corrected.*' | sort
	umount "$MNT" && blockdev --flushbufs "$DISK1"
}

load_btrfs
mkfs.btrfs -q -f -m dup -d dup "$DISK1" && mount -t btrfs "$DISK1" "$MNT" || bail "no volume"
head -c 1M /dev/urandom >"$MNT/file" && sync
logical=$(filefrag -v "$MNT/file" | awk '$1 == "0:" { sub(/\.\./, "", $4); print $4 * 4096; exit }')
umount "$MNT"
data=$(($(physical "$logical") + 8192))
node=$(physical "$(btrfs inspect-internal dump-tree -t csum "$DISK1" | awk '$1 == "leaf" { print $2; exit }')")

plan 6
read_it rw,noatime >/tmp/repair.c
good="$(bytes "$data") $(bytes "$node")"
unload_btrfs
load_rbtrfs
read_it ro >/tmp/repair.rust.ro
check "what is mounted read-only stays as it is" test "$(bytes "$data") $(bytes "$node")" != "$good"
read_it rw,noatime >/tmp/repair.rust
check_equal "two copies were corrected" 2 "$(grep -c 'read error corrected' /tmp/repair.rust)"
check "as by the C driver" diff /tmp/repair.c /tmp/repair.rust
check_equal "they are good again" "$good" "$(bytes "$data") $(bytes "$node")"
check_equal "read-only, nothing is" 0 "$(grep -c 'read error corrected' /tmp/repair.rust.ro)"
check_equal "the file is read all the same" "$(head -n 1 /tmp/repair.rust)" "$(head -n 1 /tmp/repair.rust.ro)"
finish
