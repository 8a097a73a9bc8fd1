#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Devices: their errors are counted, kept on disk, and set to zero; tools ask about those that are
# not mounted.
. "$(dirname "$0")/lib.sh"

# physical DISK LOGICAL: where the first copy of an address is on the device.
physical() { btrfs-map-logical -l "$2" -b 4096 "$1" | awk '$1 == "mirror" && $2 == 1 { print $6; exit }'; }

counts() { btrfs device stats "$1" | awk '{ sub(/.*\./, "", $1); printf "%s=%s ", $1, $2 }'; }
zeros="write_io_errs=0 read_io_errs=0 flush_io_errs=0 corruption_errs=0 generation_errs=0 "

load_btrfs
mkfs.btrfs -q -f -d single "$DISK1" || bail "no volume"
mount -t btrfs "$DISK1" "$MNT" || bail "the volume does not mount"
head -c 1M /dev/urandom >"$MNT/file" && sync
logical=$(filefrag -v "$MNT/file" | awk '$1 == "0:" { sub(/\.\./, "", $4); print $4 * 4096; exit }')
umount "$MNT"
printf damage | dd of="$DISK1" bs=1 seek="$(physical "$DISK1" "$logical")" conv=notrunc,fsync status=none ||
	bail "nothing was damaged"
expect_damage "$DISK1"
dir=/sys/fs/btrfs/$(blkid -o value -s UUID "$DISK1")
unload_btrfs

plan 26
load_rbtrfs
mount -t btrfs "$DISK1" "$MNT" || bail "the volume does not mount"
check_equal "nothing is counted yet" "$zeros" "$(counts "$MNT")"
dd if="$MNT/file" of=/dev/null bs=4K count=1 status=none 2>/dev/null
found=$(btrfs device stats "$MNT" | awk '/corruption_errs/ { print $2 }')
check "bad data is counted" test "$found" -ge 1
check_equal "sysfs says the same" "$found" "$(awk '$1 == "corruption_errs" { print $2 }' "$dir/devinfo/1/error_stats")"
check "the log says it" bash -c "dmesg | grep -qE 'BTRFS error \(device ${DISK1##*/}\): bdev $DISK1 errs: wr 0, rd 0, flush 0, corrupt [0-9]+, gen 0'"
check "a commit stores the counts" btrfs filesystem label "$MNT" label
umount "$MNT"
mount -t btrfs -o ro "$DISK1" "$MNT" || bail "the volume does not mount again"
kept=$(counts "$MNT")
check_equal "they are there after a remount" "${zeros/corruption_errs=0/corruption_errs=$found}" "$kept"
umount "$MNT"

unload_rbtrfs
load_btrfs
mount -t btrfs -o ro "$DISK1" "$MNT" || bail "the C driver does not mount the volume"
check_equal "the C driver reads the same" "$kept" "$(counts "$MNT")"
umount "$MNT"
unload_btrfs
load_rbtrfs

mount -t btrfs -o ro "$DISK1" "$MNT" || bail "the volume does not mount again"
check_equal "a reset tells what was counted" "$kept" "$(btrfs device stats -z "$MNT" | awk '{ sub(/.*\./, "", $1); printf "%s=%s ", $1, $2 }')"
check_equal "after it there is nothing" "$zeros" "$(counts "$MNT")"
check "the log says who did it" bash -c 'dmesg | grep -qE "device stats zeroed by btrfs \([0-9]+\)"'
umount "$MNT"
mount -t btrfs "$DISK1" "$MNT" || bail "the volume does not mount again"
check_equal "on a read-only mount it was for that mount" "$kept" "$(counts "$MNT")"
check "a reset on a writable one" btrfs device stats -z "$MNT"
umount "$MNT"
mount -t btrfs -o ro "$DISK1" "$MNT" || bail "the volume does not mount again"
check_equal "is stored" "$zeros" "$(counts "$MNT")"
check_fails "only root resets" "Operation not permitted" setpriv --reuid 65534 --clear-groups btrfs device stats -z "$MNT"

check "a mounted device is scanned" btrfs device scan "$DISK1"
check "it is ready" btrfs device ready "$DISK1"
check "all devices are scanned" btrfs device scan
check "all are forgotten" btrfs device scan --forget
check_fails "but not one that is mounted" "Device or resource busy" btrfs device scan --forget "$DISK1"
umount "$MNT"
check_fails "of others there is nothing to forget" "No such file or directory" btrfs device scan --forget "$DISK1"
check_fails "a disk without a volume" "Invalid argument" btrfs device ready "$DISK2"
check_fails "no disk" "not a block device|No such file" btrfs device ready /dev/zero
mkfs.btrfs -q -f -d raid1 -m raid1 "$DISK2" "$DISK3" || bail "no volume of two devices"
check "one of two devices is scanned" btrfs device scan "$DISK2"
check_equal "it is not ready" 1 "$(btrfs device ready "$DISK2"; echo $?)"
wipefs -q -a "$DISK2" "$DISK3"
unload_rbtrfs
load_rbtrfs fstype=rbtrfs
check "under another name there is no control device" test ! -e /sys/class/misc/btrfs-control
unload_rbtrfs
load_btrfs
check "the C driver can have it again" test -e /sys/class/misc/btrfs-control
finish
