#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Sends in concurrent mode, held, slow, killed and several at once, while one balance of everything
# follows the other for STORM seconds: what is received are the snapshots.
# Guest: debug: sends and relocations race on two processors, and KASAN watches what is freed.
. "$(dirname "$0")/lib.sh"

STORM=${STORM:-60}
RECEIVED=/mnt/received
SNAPSHOTS=12

# A subvolume whose files share extents with each other, and snapshots of it.
fill() {
	local i
	mkfs.btrfs -q -f -b 2G "$DISK1" && mount -t btrfs -o send_balance=concurrent "$DISK1" "$MNT" || return
	btrfs -q subvolume create "$MNT/w" || return
	head -c 8M /dev/urandom >"$MNT/w/a"
	cp --reflink=always "$MNT/w/a" "$MNT/w/b"
	mkdir -p "$MNT/w/dir/below"
	for i in {1..200}; do head -c $((i * 30)) /dev/urandom >"$MNT/w/dir/below/$i"; done
	btrfs -q subvolume snapshot -r "$MNT/w" "$MNT/one"
	head -c 1M /dev/urandom | dd of="$MNT/w/a" conv=notrunc bs=64K seek=9 status=none
	cp --reflink=always "$MNT/w/a" "$MNT/w/c"
	mv "$MNT/w/dir/below" "$MNT/w/moved"
	mv "$MNT/w/dir" "$MNT/w/moved/dir"
	rm "$MNT"/w/moved/*7
	btrfs -q subvolume snapshot -r "$MNT/w" "$MNT/two"
	for i in $(seq "$SNAPSHOTS"); do
		echo "$i" >"$MNT/w/moved/$i"
		btrfs -q subvolume snapshot -r "$MNT/w" "$MNT/more-$i" || return
	done
	sync -f "$MNT"
}

listing() { (cd "$1" && find . -printf '%p %y %m %U %G %s %n %T@ %l\n' | sort); }

# is_received STREAM NAME: what the stream makes is the snapshot NAME.
is_received() {
	rm -f /tmp/difference
	mkdir -p "$RECEIVED/new" && btrfs -q receive -f "$1" "$RECEIVED/new" || return
	diff -r "$MNT/$2" "$RECEIVED/new/$2" && diff <(listing "$MNT/$2") <(listing "$RECEIVED/new/$2") || return
	btrfs -q subvolume delete "$RECEIVED/new/$2"
}

# One balance of everything after the other, until there is a file /tmp/enough; counts them in
# /tmp/balances.
balances() {
	local n=0
	until [ -e /tmp/enough ]; do
		btrfs balance start --full-balance "$MNT" >/dev/null || return
		n=$((n + 1))
		echo "$n" >/tmp/balances
	done
}

# A send whose reader takes little at a time.
slow() {
	btrfs -q send "$MNT/two" | while head -c 256K >/tmp/piece && [ -s /tmp/piece ]; do
		cat /tmp/piece
		sleep 0.05
	done >/tmp/slow.stream
	[ "${PIPESTATUS[0]}" = 0 ]
}

# Sends one after the other, each of which is killed at some moment.
killed() {
	local i pid
	for i in 1 2 3 4; do
		btrfs -q send -f /tmp/killed.stream "$MNT/more-$i" &
		pid=$!
		sleep "0.$((RANDOM % 50 + 10))"
		kill -KILL "$pid"
		wait "$pid"
	done 2>/dev/null
	return 0
}

round() {
	local pid pids=() more=more-$((RANDOM % SNAPSHOTS + 1))
	btrfs -q send -f /tmp/full.stream "$MNT/two" & pids+=($!)
	btrfs -q send -f /tmp/changes.stream -p "$MNT/one" "$MNT/two" & pids+=($!)
	btrfs -q send -f /tmp/clones.stream -c "$MNT/one" "$MNT/$more" & pids+=($!)
	btrfs -q send -f /tmp/version2.stream --proto 2 --compressed-data "$MNT/$more" & pids+=($!)
	btrfs -q send -f /tmp/nodata.stream --no-data -p "$MNT/one" "$MNT/two" & pids+=($!)
	slow & pids+=($!)
	killed & pids+=($!)
	for pid in "${pids[@]}"; do wait "$pid" || return; done
	is_received /tmp/full.stream two && is_received /tmp/changes.stream two &&
		is_received /tmp/clones.stream "$more" && is_received /tmp/version2.stream "$more" &&
		is_received /tmp/slow.stream two && cmp /tmp/nodata.stream /tmp/nodata.alone
}

storm() {
	local end=$((SECONDS + STORM)) rounds=0
	rm -f /tmp/enough /tmp/balances
	balances &
	local running=$!
	while [ $SECONDS -lt $end ]; do
		round || { touch /tmp/enough && return 1; }
		rounds=$((rounds + 1))
	done
	touch /tmp/enough
	wait "$running" || return
	echo "# $rounds rounds beside $(cat /tmp/balances) balances" >/tmp/storm.note
}

plan 9
load_rbtrfs
check "a volume is made" fill || bail "no volume"
sysfs=/sys/fs/btrfs/$(blkid -o value -s UUID "$DISK1")
mkdir -p "$RECEIVED"
mkfs.btrfs -q -f "$DISK2" && mount -t btrfs "$DISK2" "$RECEIVED" || bail "no volume to receive in"
btrfs -q send -f /tmp/one.stream "$MNT/one"
check "the parent is received" btrfs -q receive -f /tmp/one.stream "$RECEIVED"
btrfs -q send -f /tmp/nodata.alone --no-data -p "$MNT/one" "$MNT/two"

# Held from the first bytes to behind the storm.
mkfifo /tmp/held
btrfs -q send "$MNT/two" >/tmp/held 2>/tmp/held.log &
sender=$!
exec 3</tmp/held
head -c 1000 <&3 >/tmp/held.stream

check "all that is sent beside balances is received" storm
[ ! -e /tmp/storm.note ] || cat /tmp/storm.note
check "several balances ran" [ "$(cat /tmp/balances)" -ge 2 ]
check_equal "the held send is left" 1 "$(cat "$sysfs/send_in_progress")"
# What is running is built on a commit, which it holds.
sync -f "$MNT"
# Others may hold one for a moment.
nothing_held() {
	for _ in $(seq 200); do
		[ "$(cat "$sysfs/oldest_epoch_age_ms")" = 0 ] && return
	done
	return 1
}
check "nothing is held for it" nothing_held
cat <&3 >>/tmp/held.stream
exec 3<&-
wait "$sender"
check_equal "it comes to its end" 0 $?
check "what it sent is received" is_received /tmp/held.stream two
check_equal "no send is left" 0 "$(cat "$sysfs/send_in_progress")"
umount "$RECEIVED"
finish
