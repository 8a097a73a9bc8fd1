#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What administrators and tools meet: commands about features that are not there, and times,
# versions, attributes and properties of files. The C driver has to pass the same tests.
. "$(dirname "$0")/lib.sh"
plan 17

mkfs.btrfs -q "$DISK1" && mkfs.btrfs -q "$DISK2" || bail "mkfs.btrfs fails"
load_btrfs
mount -t btrfs "$DISK2" "$MNT" && mkdir "$MNT/d"
check "the C driver answers as the table says" python3 "$GUEST_TESTS/refused_calls.py" c "$MNT"
check "files are with the C driver as the test has it" python3 "$GUEST_TESTS/file_calls.py" "$MNT/d"
umount "$MNT"
unload_btrfs
load_rbtrfs
mount -t btrfs "$DISK1" "$MNT" && mkdir "$MNT/d"
check "this driver answers as the table says" python3 "$GUEST_TESTS/refused_calls.py" rbtrfs "$MNT"
check "files are as with the C driver" python3 "$GUEST_TESTS/file_calls.py" "$MNT/d"

# The commands themselves.
status() { "$@" >/tmp/out 2>&1; echo $?; }
check_equal "quota disable" 0 "$(status btrfs quota disable "$MNT")"
check_equal "quota rescan -s" 0 "$(status btrfs quota rescan -s "$MNT")"
check_equal "subvolume create -i" 0 "$(status btrfs subvolume create -i 1/5 "$MNT/in-a-group")"
check_equal "subvolume snapshot -i" 0 "$(status btrfs subvolume snapshot -i 1/5 "$MNT/in-a-group" "$MNT/snapshot")"
# What systemd does at boot on a root of btrfs.
printf 'Q %s/boot 0755 - - -\nq %s/boot/below 0755 - - -\n' "$MNT" "$MNT" >/tmp/tmpfiles.conf
if command -v systemd-tmpfiles >/dev/null; then
	check "systemd-tmpfiles makes subvolumes" systemd-tmpfiles --create /tmp/tmpfiles.conf
else
	skip "no systemd-tmpfiles" "systemd-tmpfiles makes subvolumes"
fi
check_equal "replace status" 0 "$(status btrfs replace status -1 "$MNT")"
check "replace was never started" grep -q 'Never started' /tmp/out
check_equal "replace cancel" 2 "$(status btrfs replace cancel "$MNT")"
limit=$(echo /sys/fs/btrfs/*/devinfo/1/scrub_speed_max)
check "scrub_speed_max can be set" eval "echo 100m >$limit"
check_equal "and shows it" 104857600 "$(cat "$limit")"
check_fails "to a number" "Invalid argument" bash -c "echo fast >$limit"
check "properties stay" eval "umount $MNT && mount -t btrfs $DISK1 $MNT && getfattr -n btrfs.compression $MNT/d/c/dir"
umount "$MNT"
check "the volume is right" check_volume "$DISK1"
finish
