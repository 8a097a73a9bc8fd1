#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# fstrim on a loop device, whose file shows what was discarded: as much as with the C driver, and
# nothing that is in use.
. "$(dirname "$0")/lib.sh"

# The bytes that fstrim says it trimmed.
trimmed() { fstrim -v "$@" "$MNT" | sed -E 's/.*\(([0-9]+) bytes\).*/\1/'; }

# The kilobytes that the file of the loop device takes.
taken() { du -k "$1" | cut -f 1; }

# What trimming beside writers must leave as it was; theirs change the directory.
contents() { sha256sum "$MNT/kept" "$MNT/more" "$MNT"/[0-9]*; }

mkdir -p /tmp/files && mount -t tmpfs -o size=2G tmpfs /tmp/files
load_btrfs
truncate -s 700M /tmp/files/c && mkfs.btrfs -q -K -m dup /tmp/files/c && loop=$(losetup -f --show /tmp/files/c)
mount -t btrfs "$loop" "$MNT" || bail "no volume"
head -c 100M /dev/urandom >"$MNT/kept" && head -c 300M /dev/urandom >"$MNT/gone"
for n in $(seq 2000); do echo "$n" >"$MNT/$n"; done
sync && rm "$MNT/gone" && sync
umount "$MNT" && losetup -d "$loop"
cp --sparse=always /tmp/files/c /tmp/files/rbtrfs
full=$(taken /tmp/files/c)

plan 12
loop=$(losetup -f --show /tmp/files/c) && mount -t btrfs "$loop" "$MNT"
by_c=$(trimmed)
umount "$MNT" && losetup -d "$loop"
unload_btrfs

load_rbtrfs
loop=$(losetup -f --show /tmp/files/rbtrfs) && mount -t btrfs "$loop" "$MNT" && sync
tree_digest "$MNT" >/tmp/kept.digest
ours=$(trimmed)
note "full: $full KiB; trimmed by the C driver: $by_c, by this one: $ours"
check "as much is trimmed as by the C driver" test "$ours" -ge $((by_c - 4194304)) -a "$ours" -le $((by_c + 4194304))
check "the file of the device is smaller" test "$(taken /tmp/files/rbtrfs)" -lt $((full - 290000))
check "but not by what is in use" test "$(taken /tmp/files/rbtrfs)" -gt 100000
umount "$MNT" && blockdev --flushbufs "$loop" && mount -t btrfs "$loop" "$MNT"
check "all of it is there" same_digest
check "and can be written to" eval "head -c 300M /dev/urandom >$MNT/more && sync -f $MNT"
contents >/tmp/kept.contents
check "others write meanwhile" eval "(for n in 1 2 3 4 5; do head -c 5M /dev/urandom >$MNT/\$n.new; sync -f $MNT; done) & fstrim $MNT; fstrim $MNT; wait; rm $MNT/?.new"
umount "$MNT" && blockdev --flushbufs "$loop" && mount -t btrfs "$loop" "$MNT"
check "all of that is there" eval "contents | cmp - /tmp/kept.contents"
check "short extents can be left alone" test "$(trimmed -m 64M)" -le "$(trimmed)"
check_fails "ranges below a sector are refused" "Invalid argument" fstrim -l 512 "$MNT"
mount -o remount,ro "$MNT"
check_fails "what is mounted read-only is not trimmed" "Read-only file system" fstrim "$MNT"
umount "$MNT"
check "btrfs check finds nothing" check_volume "$loop"
losetup -d "$loop"

mkfs.btrfs -q "$DISK1" && mount -t btrfs "$DISK1" "$MNT"
if [ "$(lsblk -nbdo DISC-MAX "$DISK1")" = 0 ]; then
	check_fails "a disk that cannot discard is left alone" "not supported" fstrim "$MNT"
else
	check "a disk that can discard is trimmed" fstrim "$MNT"
fi
umount "$MNT" && umount /tmp/files
finish
