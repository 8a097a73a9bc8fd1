#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The cache of tree nodes gives memory back when the kernel asks, also to those who read at that
# time; and once only nodes are left that wait for a commit, there is one.
# Guest: debug: reclaim races with readers.
. "$(dirname "$0")/lib.sh"

FILES=2000

fill() {
	local n
	mkfs.btrfs -q -f "$DISK1" && mount -t btrfs "$DISK1" "$MNT" && mkdir "$MNT/files" || return
	(cd "$MNT/files" && for n in $(seq "$FILES"); do echo "$n" >"file-with-a-name-that-takes-some-room-$n"; done)
	umount "$MNT"
}

# The shrinker's folder, and how many nodes it could give back.
shrinker() { echo /sys/kernel/debug/shrinker/rbtrfs-nodes-*; }
nodes() { awk '{ n += $2 } END { print n + 0 }' "$(shrinker)/count"; }
list() { ls -l "$MNT/files" | md5sum; }
shrink() {
	local n
	for n in $(seq 100); do
		echo "0 0 100000" >"$(shrinker)/scan" || return
		[ "$(nodes)" -gt 8 ] || return 0
	done
	echo "$(nodes) nodes are left" && return 1
}

commits() { awk '$1 == "commits" { print $2 }' /sys/fs/btrfs/*-*/commit_stats; }
# committed_since N: whether there is a commit within a quarter of a minute.
committed_since() {
	local n
	for n in $(seq 150); do
		[ "$(commits)" -gt "$1" ] && return
		sleep 0.1
	done
	cat /sys/fs/btrfs/*-*/commit_stats && return 1
}

plan 9
[ -d /sys/kernel/debug/shrinker ] || {
	for n in $(seq 9); do skip "not in this kernel" "shrinker, $n"; done
	finish
}
load_btrfs
fill || bail "no volume"
unload_btrfs
load_rbtrfs
mount "$DISK1" "$MNT" || bail "the volume does not mount"
wanted=$(list)
before=$(nodes)
note "$before nodes are cached"
check "reading fills the cache" test "$before" -gt 30
check "the shrinker empties it" shrink
echo 2 >/proc/sys/vm/drop_caches
check_equal "what was dropped is read again" "$wanted" "$(list)"
check "and cached again" test "$(nodes)" -gt 30
(while :; do shrink >/dev/null 2>&1; echo 2 >/proc/sys/vm/drop_caches; done) &
shrinking=$!
same=yes
for n in 1 2 3 4 5; do [ "$(list)" = "$wanted" ] || same="not in round $n"; done
kill "$shrinking"
wait "$shrinking" 2>/dev/null
check_equal "readers do not notice" yes "$same"
umount "$MNT"

mount -o commit=300 "$DISK1" "$MNT" || bail "the volume does not mount again"
(cd "$MNT/files" && for n in $(seq 500); do echo "$n" >"$n"; done)
before=$(commits)
dirty=$(nodes)
note "$dirty nodes are cached or dirty"
echo "0 0 1" >"$(shrinker)/scan"
sleep 6
check_equal "who asks for little causes no commit" "$before" "$(commits)"
echo "0 0 100000" >"$(shrinker)/scan"
check "who asks for all that is there causes one" committed_since "$before"
check "whose nodes can be had then" shrink
umount "$MNT"
check "no shrinker is left" sh -c '! ls -d /sys/kernel/debug/shrinker/rbtrfs-nodes-* 2>/dev/null'
finish
