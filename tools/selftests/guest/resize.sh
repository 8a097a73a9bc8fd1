#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Resizing as btrfs-progs ask for it, the answers to bad sizes, and growing with a loop device. The
# C driver has to pass the same tests.
. "$(dirname "$0")/lib.sh"

size() { btrfs filesystem show --raw "$MNT" | awk '$1 == "devid" { print $4 }'; }
resize() { btrfs filesystem resize "$1" "$MNT"; }

# The exit status, and the reason.
status() { resize "$1" 2>&1 >/dev/null | sed -E "s/.*: //; s/'.*//"; }

sizes() {
	local driver=$1 text
	mkfs.btrfs -q -f -b 1G "$DISK1" && mount -t btrfs "$DISK1" "$MNT" || bail "no volume"
	head -c 100M /dev/urandom >"$MNT/file" && sync
	for text in 0 255m -1t 9g +8g 2:max 0:max 1m; do
		echo "$text: $(status "$text")"
	done >"/tmp/$driver.answers"
	check "$driver: bad sizes change nothing" test "$(size)" = 1073741824
	check "$driver: it grows" resize +512m
	check_equal "$driver: by that much" 1610612736 "$(size)"
	check "$driver: to all of the device" resize max
	check_equal "$driver: which is that much" "$(blockdev --getsize64 "$DISK1")" "$(size)"
	# Each of these makes chunks further behind.
	for n in 1 2 3 4; do head -c 150M /dev/urandom >"$MNT/$n"; done
	sync && rm "$MNT/1" "$MNT/2" "$MNT/3" && sync
	tree_digest "$MNT" >/tmp/kept.digest
	check "$driver: it shrinks" resize 1:-1g
	check_equal "$driver: by that much" $(($(blockdev --getsize64 "$DISK1") - 1073741824)) "$(size)"
	check_equal "$driver: nothing goes on any more" none "$(cat /sys/fs/btrfs/*/exclusive_operation)"
	check "$driver: and fits" test "$(btrfs inspect-internal min-dev-size "$MNT" | awk '{ print $1 }')" -le "$(size)"
	check "$driver: all of it is there" same_digest
	check_fails "$driver: what does not fit stays" "No space left" resize 300m
	check "$driver: there is none to cancel" test "$(status cancel)" = "$(cat /tmp/c.cancel 2>/dev/null || status cancel | tee /tmp/c.cancel)"
	umount "$MNT"
	check "$driver: btrfs check finds nothing" check_volume "$DISK1"
}

plan 34
load_btrfs
sizes c
unload_btrfs
load_rbtrfs
sizes rbtrfs
check "bad sizes are refused as by the C driver" diff /tmp/c.answers /tmp/rbtrfs.answers

# As growpart does it on a disk that became larger.
truncate -s 300M /tmp/disk && mkfs.btrfs -q /tmp/disk && loop=$(losetup -f --show /tmp/disk)
mount -t btrfs "$loop" "$MNT"
truncate -s 600M /tmp/disk && losetup -c "$loop"
check "a volume grows with its device" resize max
check_equal "to all of it" 629145600 "$(size)"
check "and is written to" eval "head -c 400M /dev/urandom >$MNT/file && sync -f $MNT"
umount "$MNT"
check "btrfs check finds nothing" check_volume "$loop"
losetup -d "$loop"

# Sends are in the way of what moves extents.
mkfs.btrfs -q -f -b 1G "$DISK2" && mount -t btrfs "$DISK2" "$MNT"
head -c 20M /dev/urandom >"$MNT/file" && btrfs subvolume snapshot -r "$MNT" "$MNT/snapshot" >/dev/null
mkfifo /tmp/pipe
btrfs send "$MNT/snapshot" >/tmp/pipe 2>/dev/null &
exec 9</tmp/pipe
until [ "$(cat /sys/fs/btrfs/*/send_in_progress)" = 1 ]; do sleep 0.1; done
check_fails "a send is in the way of shrinking" "temporarily unavailable" resize 512m
check "but not of growing" resize +100m
exec 9<&-
wait
check "after it the volume shrinks" resize 512m
umount "$MNT"
finish
