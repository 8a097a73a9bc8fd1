#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What is known in memory by a number that could come again: the newest of all is deleted as the
# first thing after a mount, and the next one is made. And what a mount does for files that an
# earlier one left without names, whenever it comes to it.
. "$(dirname "$0")/lib.sh"

handle() { "$GUEST_TESTS/handle.py" "$@"; }
again() { umount "$MNT" && mount "$DISK1" "$MNT"; }
newest() { btrfs subvolume list --sort=-rootid "$MNT" | awk 'NR == 1 { print $2, $NF }'; }

# makes NAME COMMAND...: a subvolume that COMMAND makes is whole, and has a number above $last.
makes() {
	local name=$MNT/made/$1 id
	shift
	btrfs -q subvolume "$@" "$name" || return
	id=$(btrfs inspect-internal rootid "$name") && [ "$id" -gt "$last" ] && ls "$name" || return
	[ "$1" = create ] || cmp "$MNT/one/file" "$name/file" || return
	[ "${2:-}" = -r ] || { echo new >"$name/new" && [ "$(cat "$name/new")" = new ]; }
}
# after_deleting COMMAND...: COMMAND deletes the newest subvolume as the first thing after a mount.
after_deleting() {
	local way=$* path last
	again && read -r last path < <(newest) && "$@" "$MNT/$path" && timeout 60 btrfs subvolume sync "$MNT" >/dev/null || return
	way=${way##* }
	makes "$way-empty" create && makes "$way-writable" snapshot "$MNT/one" && makes "$way-read-only" snapshot -r "$MNT/one" || return
	# The next one is empty, so that rmdir can delete it.
	btrfs -q subvolume create "$MNT/$way-newest"
}
receive_again() {
	btrfs -q send -f /tmp/reuse.stream "$MNT/sent" && btrfs -q receive -f /tmp/reuse.stream "$MNT/made" && again &&
		btrfs -q subvolume delete "$MNT/made/sent" && btrfs -q receive -f /tmp/reuse.stream "$MNT/made" &&
		cmp "$MNT/sent/file" "$MNT/made/sent/file"
}
roll_back() {
	btrfs -q subvolume snapshot -r "$MNT/one" "$MNT/good" && btrfs -q subvolume snapshot "$MNT/one" "$MNT/root" && again &&
		btrfs -q subvolume delete -c "$MNT/root" && btrfs -q subvolume snapshot "$MNT/good" "$MNT/root" &&
		cmp "$MNT/one/file" "$MNT/root/file" && echo more >>"$MNT/root/file"
}

# The newest file goes, and the next one is not taken for it.
newest_file() {
	local last old
	echo old >"$MNT/newest" && old=$(handle make "$MNT/newest") && last=$(stat -c %i "$MNT/newest") && again &&
		[ "$(handle open "$MNT" "$old")" = old ] && rm "$MNT/newest" && sync -f "$MNT" && echo new >"$MNT/next" || return
	[ "$(stat -c %i "$MNT/next")" -gt "$last" ] || { echo "$last was given again" && return 1; }
	! handle open "$MNT" "$old" 2>/tmp/reuse.error && grep -q Stale /tmp/reuse.error
}

# used DIR: a file in DIR is removed while it is open, and another one is looked at for the first
# time.
used() {
	exec 7<"$1/file" && rm "$1/file" && cat "$1/other" >/dev/null && sync -f "$MNT" && echo 3 >/proc/sys/vm/drop_caches || return
	cmp "$MNT/one/file" /proc/self/fd/7
	local status=$?
	exec 7<&-
	return "$status"
}
was_read_only() {
	btrfs -q subvolume snapshot -r "$MNT/one" "$MNT/flagged" && again && exec 8<"$MNT/flagged/file" &&
		btrfs property set "$MNT/flagged" ro false && used "$MNT/flagged"
	local status=$?
	exec 8<&-
	return "$status"
}
was_frozen() {
	btrfs -q subvolume snapshot "$MNT/one" "$MNT/frozen" && again && fsfreeze -f "$MNT" || return
	exec 8<"$MNT/frozen/file"
	fsfreeze -u "$MNT" && used "$MNT/frozen"
	local status=$?
	exec 8<&-
	return "$status"
}
volume_was_read_only() {
	btrfs -q subvolume snapshot "$MNT/one" "$MNT/remounted" && umount "$MNT" && mount -o ro "$DISK1" "$MNT" || return
	exec 8<"$MNT/remounted/file"
	mount -o remount,rw "$MNT" && used "$MNT/remounted"
	local status=$?
	exec 8<&-
	return "$status"
}

shut_down() { python3 -c 'import fcntl, os, sys; fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, b"\2\0\0\0")' "$MNT"; }
# left SUBVOLUME: leaves a file without names there, as a power cut does; $orphan is its handle.
left() {
	btrfs -q subvolume snapshot "$MNT/one" "$1" && orphan=$(handle make "$1/file") && exec 7<"$1/file" && rm "$1/file" && sync -f "$MNT" &&
		shut_down && exec 7<&-
}
is_stale() { ! handle open "$MNT" "$orphan" 2>/tmp/reuse.error && grep -q Stale /tmp/reuse.error; }
has_no_orphans() {
	umount "$MNT" && btrfs inspect-internal dump-tree "$DISK1" >/tmp/reuse.tree && mount "$DISK1" "$MNT" && ! grep ORPHAN_ITEM /tmp/reuse.tree
}
orphan_goes() { left "$MNT/left" && again && is_stale && ls "$MNT/left" && sync -f "$MNT" && has_no_orphans; }
orphan_of_a_reader() {
	left "$MNT/read" && umount "$MNT" && mount -o ro "$DISK1" "$MNT" && is_stale && ls "$MNT/read" && mount -o remount,rw "$MNT" &&
		sync -f "$MNT" && has_no_orphans
}

# Who has a file of a deleted subvolume open goes on using it. Nobody else gets to it.
deleted_handle() {
	local dir file
	btrfs -q subvolume snapshot "$MNT/one" "$MNT/gone" && file=$(handle make "$MNT/gone/file") && dir=$(handle make "$MNT/gone") &&
		[ "$(handle open "$MNT" "$dir")" = open ] && exec 7<"$MNT/gone/file" && btrfs -q subvolume delete "$MNT/gone" || return
	for orphan in "$file" "$dir"; do is_stale || return; done
	cmp "$MNT/one/file" /proc/self/fd/7
	local status=$?
	exec 7<&-
	for orphan in "$file" "$dir"; do is_stale || return; done
	return "$status"
}

plan 12
load_rbtrfs
mkfs.btrfs -q -f -b 600M "$DISK1" && mount "$DISK1" "$MNT" || bail "no volume"
mkdir "$MNT/made" && btrfs -q subvolume create "$MNT/one" && seq 20000 >"$MNT/one/file" && echo other >"$MNT/one/other" &&
	btrfs -q subvolume snapshot -r "$MNT/one" "$MNT/sent" && btrfs -q subvolume snapshot "$MNT/one" "$MNT/newest" || bail "no subvolumes"
check "the newest subvolume is deleted" after_deleting btrfs -q subvolume delete
check "it is deleted with a commit" after_deleting btrfs -q subvolume delete -c
check "it goes like a folder" after_deleting rmdir
check "a stream is received again" receive_again
check "a rollback" roll_back
check "the newest file is removed" newest_file
check "a removed file in a subvolume that was read-only is in use" was_read_only
check "one that was first looked at while the volume was frozen" was_frozen
check "one of a volume that was read-only" volume_was_read_only
check "a file that a power cut left goes" orphan_goes
check "one that was looked for on a read-only mount" orphan_of_a_reader
check "handles into a deleted subvolume" deleted_handle
umount "$MNT"
finish
