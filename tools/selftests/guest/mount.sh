#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Mounting: a volume that the C driver filled looks the same through rbtrfs, file by file;
# subvolumes, options, read-only and back, and file systems' names.
. "$(dirname "$0")/lib.sh"
plan 39

describe() { python3 "$GUEST_TESTS/mount_describe.py" "$1"; }
extents() { (cd "$MNT" && filefrag -v random sparse inline preallocated large.* && lsattr -d . ./*); }
# The options of the mount at $1, as tools see them.
options() { findmnt -n -o FS-OPTIONS "$1"; }

mkfs.btrfs -q "$DISK1" || bail "mkfs.btrfs fails"
load_btrfs
mount "$DISK1" "$MNT" && bash "$GUEST_TESTS/mount_fill.sh" "$MNT" || bail "the volume cannot be filled"
umount "$MNT"
# Reading must not change what the other driver is going to see.
mount -o ro "$DISK1" "$MNT"
describe "$MNT" >/tmp/expected
extents >/tmp/expected.extents 2>&1
umount "$MNT"

check_fails "a name that is taken is refused" "Device or resource busy" insmod "$RBTRFS_KO"
unload_btrfs
expect_log 'a filesystem .btrfs. is registered already'
load_rbtrfs

mount -t btrfs -o commit=7,user_subvol_rm_allowed "$DISK1" "$MNT"
check "options are shown" grep -q ',user_subvol_rm_allowed,commit=7,' <(options "$MNT")
umount "$MNT"
# Reading must not change the times that are compared.
check "a volume of the C driver mounts" mount -t btrfs -o noatime "$DISK1" "$MNT"
describe "$MNT" >/tmp/found
check "it looks the same" diff /tmp/expected /tmp/found
echo 3 >/proc/sys/vm/drop_caches
describe "$MNT" >/tmp/found
check "it does so again, from disk" diff /tmp/expected /tmp/found
extents >/tmp/found.extents 2>&1
check "extents and file attributes are the same" diff /tmp/expected.extents /tmp/found.extents
check_equal "statfs names btrfs" 9123683e "$(stat -f -c %t "$MNT")"
check_equal "mountinfo shows the subvolume" "subvolid=5,subvol=/" \
	"$(options "$MNT" | grep -o 'subvolid=.*')"
check "a subvolume has a device number of its own" \
	[ "$(stat -c %d "$MNT")" != "$(stat -c %d "$MNT/sub")" ]
check_equal "its root has number 256" 256 "$(stat -c %i "$MNT/sub")"
check "birth times are shown" [ "$(stat -c %W "$MNT/inline")" -gt 0 ]
check "a mapped file can be read" python3 -c "
import mmap
file = open('$MNT/random', 'rb')
assert mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[:] == file.read()"
check "a direct read gives the same" \
	cmp "$MNT/random" <(dd if="$MNT/random" iflag=direct bs=1M status=none)

second=/mnt/second
mkdir -p $second
check_equal "mountinfo shows an anonymous device number" 0 "$(awk -v at="$MNT" '$5 == at { sub(/:.*/, "", $3); print $3 }' /proc/self/mountinfo)"
ln -s "$DISK1" /dev/shm/other-name
# By the system call, as mount(8) resolves the name.
python3 -c "
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
sys.exit(libc.mount(b'/dev/shm/other-name', b'$second', b'btrfs', 0, None) and ctypes.get_errno())" ||
	note "the second mount fails"
check_equal "a second mount shows the same name of the device" "$DISK1" "$(awk -v at=$second '$2 == at { print $1 }' /proc/mounts)"
umount $second
mount -t btrfs -o subvol=sub/nested "$DISK1" $second
check_equal "subvol= mounts a subvolume" n "$(cat $second/file)"
check "and shows it" grep -q 'subvol=/sub/nested' <(options $second)
umount $second
id=$(btrfs inspect-internal rootid "$MNT/sub")
mount -t btrfs -o subvolid="$id" "$DISK1" $second
check_equal "subvolid= mounts the same by its number" "subvolid=$id,subvol=/sub" \
	"$(options $second | grep -o 'subvolid=.*')"
umount $second
expect_log "subvol="
check_fails "subvol= must name something" "No such file" mount -t btrfs -o subvol=nothing "$DISK1" $second
check_fails "and that must be a subvolume" "mount" mount -t btrfs -o subvol=dir "$DISK1" $second
check_fails "an unknown option is refused" "mount" mount -t btrfs -o no_such_option "$DISK1" $second

check "it becomes read-only" mount -o remount,ro "$MNT"
for command in "touch $MNT/new" "rm -f $MNT/inline" "mkdir $MNT/new" "mv $MNT/inline $MNT/new" "chmod 600 $MNT/inline" \
	"truncate -s 0 $MNT/inline" "setfattr -n user.x -v 1 $MNT/inline" "ln $MNT/inline $MNT/new"; do
	check_fails "read-only, files are not written: ${command%% *}" "Read-only file system" $command
done
check "and writable again" mount -o remount,rw "$MNT"
umount "$MNT"

# What forbids writing is known when the mount is, and not after it.
expect_log "quotas are enabled"
mkfs.btrfs -q -f -O quota "$DISK2"
check "a volume with quotas mounts" mount -t btrfs "$DISK2" $second
check_equal "it is read-only, as mountinfo says" ro "$(findmnt -n -o FS-OPTIONS $second | cut -d, -f1)"
check "the log says why" bash -c "dmesg | grep -q 'quotas are enabled' && dmesg | grep -q '(device ${DISK2##*/}): mounting read-only'"
check_fails "it is not written to" "Read-only file system" touch $second/file
dmesg --clear
check_fails "nor is it remounted for that" "" mount -o remount,rw $second
check "in words" bash -c 'dmesg | grep -q "quotas are enabled"'
umount $second
check "the module unloads" unload_rbtrfs
insmod "$RBTRFS_KO" fstype=rbtrfs
load_btrfs
mount -t rbtrfs -o ro "$DISK1" "$MNT"
check "beside the C driver it has another name" findmnt -t rbtrfs "$MNT"
umount "$MNT"
finish
