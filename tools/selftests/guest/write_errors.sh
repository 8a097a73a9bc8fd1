#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Of the blocks that go to the device together, a file loses those that the device does not take,
# and no others.
. "$(dirname "$0")/lib.sh"

sectors=$(blockdev --getsz "$DISK1")
device=/dev/mapper/faulty

# use TABLE: from here on the device is made of this.
use() { dmsetup suspend --nolockfs faulty && dmsetup load faulty --table "$1" && dmsetup resume faulty; }

# blocks LETTER FIRST: writes every other block of the file, beginning with that one.
blocks() {
	python3 - "$MNT/file" "$1" "$2" <<-'P'
		import errno, os, sys
		file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
		for n in range(int(sys.argv[2]), 2048, 2):
		    os.pwrite(file, sys.argv[3].encode() * 4096, n * 4096)
		try:
		    os.fsync(file)
		except OSError as e:
		    sys.exit(errno.errorcode[e.errno])
	P
}

# How many blocks of each letter the file has on the device.
count() {
	echo 3 >/proc/sys/vm/drop_caches
	python3 - "$MNT/file" <<-'P'
		import sys
		data = open(sys.argv[1], "rb").read()
		blocks = [data[at:at + 4096] for at in range(0, len(data), 4096)]
		print(*(sum(block == letter * 4096 for block in blocks) for letter in (b"a", b"b", b"c", b"d")))
	P
}

plan 10
load_rbtrfs
mkfs.btrfs -q -f -d single "$DISK1" || bail "no volume"
dmsetup create faulty --table "0 $sectors linear $DISK1 0" && mount -t btrfs "$device" "$MNT" || bail "no device"
# More than the first chunk has room for.
head -c 16M /dev/urandom >"$MNT/large" && sync -f "$MNT"
check "every other block" blocks 0 a
check "and those between" blocks 1 b
check_equal "all are there" "1024 1024 0 0" "$(count)"
# What is written next goes behind the last of it: 4 MiB, of which the device takes all but the
# second one.
last=$(filefrag -v "$MNT/file" | awk '$1 ~ /^[0-9]+:$/ && $5 + 0 > last { last = $5 + 0 } END { print last * 4096 }')
physical=$(btrfs-map-logical -l "$last" -b 4096 "$DISK1" | awk '$1 == "mirror" && $2 == 1 { print $6; exit }')
bad=$((physical / 512 + 8 + 2048)) good=$((physical / 512 + 8 + 4096))
use "0 $bad linear $DISK1 0
$bad 2048 error
$good $((sectors - good)) linear $DISK1 $good" || bail "the device does not fail"
check_fails "a device that fails is told of" EIO blocks 0 c
check_equal "but for 1 MiB all is there" "256 1024 768 0" "$(count)"
check_fails "whoever syncs the volume is told once" "Input/output error" sync -f "$MNT"
check "the volume is still written to" sh -c "touch $MNT/other && sync -f $MNT"
check "blocks in other places" blocks 1 d
check_equal "are there" "256 0 768 1024" "$(count)"
use "0 $sectors linear $DISK1 0" || bail "the device fails for ever"
umount "$MNT" && mount -t btrfs "$device" "$MNT" || bail "the volume does not mount again"
check_equal "and after a remount" "256 0 768 1024" "$(count)"
umount "$MNT"
unload_rbtrfs
dmsetup remove faulty
finish
