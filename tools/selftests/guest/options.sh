#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Mount options: what is taken and refused is what the C driver takes and refuses, but for what the
# table in mount_options.py says; and what is taken does what it says.
. "$(dirname "$0")/lib.sh"
plan 34

options() { findmnt -n -o FS-OPTIONS "$1"; }
answers() { python3 "$GUEST_TESTS/mount_options.py" "$1" "$DISK1" "$DISK2"; }
# How often the cache of the disk at $1 was flushed.
flushes() { awk '{ print $16 }' "/sys/block/$(basename "$(readlink -f "$1")")/stat"; }
has_tree() { btrfs inspect-internal dump-super "$1" | grep -q 'FREE_SPACE_TREE_VALID'; }

mkfs.btrfs -q "$DISK1" && mkfs.btrfs -q -O ^free-space-tree "$DISK2" || bail "mkfs.btrfs fails"
load_btrfs
check "the C driver answers as the table says" answers c
unload_btrfs
load_rbtrfs
check "this driver answers as the table says" answers rbtrfs

# ACLs.
mount -t btrfs -o noacl "$DISK1" "$MNT"
check "noacl is shown" grep -q ',noacl' <(options "$MNT")
touch "$MNT/file"
check_fails "without ACLs none can be set" "not supported" setfacl -m u:7:r "$MNT/file"
check "a remount turns them on" mount -o remount,acl "$MNT"
check "so that one can be set" setfacl -m u:7:rw "$MNT/file"
setpriv --reuid=7 --clear-groups cat "$MNT/file" && chmod 600 "$MNT/file"
setfacl -m u:7:rw,m::rw "$MNT/file"
check "and counts" setpriv --reuid=7 --clear-groups sh -c "echo x >>$MNT/file"
mount -o remount,noacl "$MNT"
check_fails "until they are off again" "Operation not supported" setfacl -m u:8:r "$MNT/file"
check "a remount of something else leaves them so" mount -o remount,commit=9 "$MNT"
check "noacl and the interval are shown" grep -q ',noacl.*,commit=9' <(options "$MNT")

# Barriers.
before=$(flushes "$DISK1")
echo 1 >"$MNT/file" && sync -f "$MNT"
check "a commit flushes" [ "$(flushes "$DISK1")" -gt "$before" ]
check "a remount turns barriers off" mount -o remount,nobarrier "$MNT"
sync -f "$MNT"
before=$(flushes "$DISK1")
for n in 1 2 3; do
	echo $n >"$MNT/file$n"
	sync "$MNT/file$n"
done
sync -f "$MNT"
check_equal "then nothing is flushed" "$before" "$(flushes "$DISK1")"
umount "$MNT"

# The interval of commits takes effect at once.
mount -t btrfs -o commit=3000 "$DISK1" "$MNT"
generation() { cat "/sys/fs/btrfs/$(findmnt -n -o UUID "$MNT")/generation"; }
was=$(generation)
touch "$MNT/new"
mount -o remount,commit=1 "$MNT"
for n in $(seq 40); do
	[ "$(generation)" = "$was" ] || break
	sleep 1
done
check "a shorter interval commits" [ "$(generation)" != "$was" ]

# Users may delete their subvolumes.
btrfs subvolume create "$MNT/theirs" >/dev/null && chown 7 "$MNT/theirs" "$MNT"
theirs() { setpriv --reuid=7 --clear-groups btrfs subvolume delete "$MNT/theirs"; }
check_fails "users may not delete subvolumes" "Operation not permitted" theirs
check "a remount lets them" mount -o remount,user_subvol_rm_allowed "$MNT"
check "they may now" theirs

# The path of a subvolume.
btrfs subvolume create "$MNT/a" >/dev/null && btrfs subvolume create "$MNT/a/b" >/dev/null && mkdir "$MNT/dir"
ln -s a/b "$MNT/link" && ln -s /a "$MNT/absolute" && echo b >"$MNT/a/b/file"
second=/mnt/second
mkdir -p $second
for path in a/b ./a/b /a//b a/../a/./b dir/../a/b link absolute/b; do
	check "subvol=$path" eval "mount -t btrfs -o subvol=$path $DISK1 $second && cat $second/file; s=\$?; umount $second; exit \$s" &&
		continue
done
check_fails "a directory is no subvolume" "'dir' is not a valid subvolume" mount -t btrfs -o subvol=dir "$DISK1" $second
check_fails "one that is not there" "No such file or directory" mount -t btrfs -o subvol=none "$DISK1" $second
check_fails "path and number must agree" "subvol 'a' does not match subvolid 5" \
	mount -t btrfs -o subvol=a,subvolid=5 "$DISK1" $second
umount "$MNT"

# The free space tree.
check_fails "the second volume has no free space tree" "" has_tree "$DISK2"
mount -t btrfs -o ro,space_cache=v2 "$DISK2" "$MNT"
check "space_cache=v2 makes none while it is read-only" grep -q ',nospace_cache' <(options "$MNT")
# mount(8) adds what stands in mountinfo, so that it has to be said again.
check "but when it becomes writable" mount -o remount,rw,space_cache=v2 "$MNT"
check "and that shows" grep -q ',space_cache=v2' <(options "$MNT")
head -c 20M /dev/urandom >"$MNT/data"
umount "$MNT"
check "it is on disk" has_tree "$DISK2"
rebuilt() { dmesg | grep -c 'rebuilding free space tree'; }
before=$(rebuilt)
mount -t btrfs -o clear_cache,rescan_uuid_tree "$DISK2" "$MNT"
check_equal "clear_cache makes it anew" $((before + 1)) "$(rebuilt)"
umount "$MNT"
check "the volume is right" check_volume "$DISK2"
finish
