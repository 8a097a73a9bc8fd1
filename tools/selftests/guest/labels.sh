#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What a security module says of new files is stored with them. Smack labels them with the label of
# their maker.
# Guest: labels: there is a security module that gives labels.
. "$(dirname "$0")/lib.sh"

# in_label COMMAND: a shell command by a process with a label of its own.
in_label() { sh -c "echo Other >/proc/self/attr/current && $1"; }
make_all() {
	in_label "cd $MNT && echo x >file && mkdir dir && ln -s file link && mknod fifo p && echo y >dir/below" && echo z >"$MNT/plain"
}
label() { getfattr -h --only-values -n security.SMACK64 "$MNT/$1"; }
labels_are_there() {
	local name
	for name in file dir link fifo dir/below; do
		[ "$(label "$name")" = Other ] || { echo "$name: $(label "$name")" && return 1; }
	done
	[ "$(label plain)" = _ ]
}
on_disk() {
	[ "$(btrfs inspect-internal dump-tree "$DISK1" | grep -c 'name: security.SMACK64')" = 6 ]
}

plan 5
if [ "$(cat /proc/self/attr/current 2>/dev/null | tr -d '\0\n')" != _ ]; then
	for n in 1 2 3 4 5; do skip "no security module here gives labels" "labels, $n"; done
	finish
fi
load_rbtrfs
mkfs.btrfs -q -f "$DISK1" && mount "$DISK1" "$MNT" || bail "the volume does not mount"
check "files are made" make_all
check "they have labels" labels_are_there
umount "$MNT"
check "which are on the disk" on_disk
mount "$DISK1" "$MNT" || bail "the volume does not mount again"
check "and there after a remount" labels_are_there
umount "$MNT"
check "the module unloads" unload_rbtrfs
finish
