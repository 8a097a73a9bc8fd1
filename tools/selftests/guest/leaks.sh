#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# All that rbtrfs does, a few times over, for kmemleak to look at afterwards. It runs in a guest of
# its own: with kmemleak on everything takes twice the time, so the other tests run without.
# Guest: leaks: kmemleak is on there.
. "$(dirname "$0")/lib.sh"
plan 7

fill() {
	mkfs.btrfs -q -f "$DISK1" && mount -t btrfs -o compress=zstd "$DISK1" "$MNT" && btrfs subvolume create "$MNT/s" >/dev/null || return
	mkdir -p "$MNT/s/a/b"
	local i
	for i in $(seq 60); do
		seq "$i" "$((i * 40))" >"$MNT/s/a/$i" && setfattr -n user.number -v "$i" "$MNT/s/a/$i" || return
	done
	head -c 1M /dev/urandom >"$MNT/s/random" && ln "$MNT/s/random" "$MNT/s/a/b/link" && ln -s random "$MNT/s/symlink" || return
	btrfs subvolume snapshot -r "$MNT/s" "$MNT/snap" >/dev/null && umount "$MNT"
}

read_it() {
	mount -t btrfs "$DISK1" "$MNT" && cp -a "$MNT/snap" /tmp/copy && rm -r /tmp/copy && filefrag -v "$MNT/s/random" &&
		btrfs filesystem usage "$MNT" && btrfs subvolume list -pcu "$MNT" && btrfs subvolume show "$MNT/snap" &&
		btrfs filesystem label "$MNT" "label-$1"
}

send_it() {
	btrfs send -q --proto 2 --compressed-data -f /tmp/stream "$MNT/snap" && btrfs send -q --no-data -f /tmp/stream "$MNT/snap" || return
	# One that its reader leaves, and one that is refused.
	btrfs send -q "$MNT/snap" 2>/dev/null | head -c 1000 >/dev/null
	! btrfs send -q -f /tmp/stream "$MNT/s"
}

balance_it() {
	btrfs balance start --full-balance "$MNT" && btrfs balance start -f -mconvert=single "$MNT" || return
	# One that is cut short by a signal; if it is over before, so be it.
	timeout 1 btrfs balance start --full-balance "$MNT"
	mount -o remount,ro "$MNT" && mount -o remount,rw "$MNT"
	btrfs balance start -mconvert=dup "$MNT"
}

# Mounts that fail at one place or another.
fail_it() {
	! mount -t btrfs -o subvol=none "$DISK1" "$MNT" && ! mount -t btrfs -o none "$DISK1" "$MNT" && ! mount -t btrfs "$DISK2" "$MNT"
}

again() {
	local round
	for round in 1 2 3; do
		"$1" "$round" || return
		[ "$1" != read_it ] || [ "$round" = 3 ] || umount "$MNT" || return
	done
}

# Disabled, it takes no commands.
if [ "$RBTRFS_KERNEL" = debug ]; then
	check "kmemleak is on" sh -c 'echo clear >/sys/kernel/debug/kmemleak'
else
	skip "not in this kernel" "kmemleak is on"
fi
load_btrfs
check "a volume is made" fill || bail "no volume"
unload_btrfs
load_rbtrfs
check "reading" again read_it
check "sending" again send_it
check "balancing" again balance_it
umount "$MNT"
check "failing" again fail_it
check "the module unloads" unload_rbtrfs
finish
