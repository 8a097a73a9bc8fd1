#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Sends in nobody's way: what others free beside a send that is held can be used again, and in
# concurrent mode sends and balances run side by side.
. "$(dirname "$0")/lib.sh"

ROUNDS=${ROUNDS:-100}
# What one round frees, and a round before it that a send at work may still look at, with what a
# commit needs.
BOUND=$((700 << 20))

fill() {
	mkfs.btrfs -q -f -b 2G "$DISK1" && mount -t btrfs "$DISK1" "$MNT" && btrfs -q subvolume create "$MNT/w" || return
	head -c 24M /dev/urandom >"$MNT/w/a"
	mkdir "$MNT/w/dir"
	for i in {1..300}; do head -c $((i * 20)) /dev/urandom >"$MNT/w/dir/$i"; done
	btrfs -q subvolume snapshot -r "$MNT/w" "$MNT/one"
	head -c 2M /dev/urandom | dd of="$MNT/w/a" conv=notrunc bs=64K seek=9 status=none
	mv "$MNT/w/dir" "$MNT/w/moved"
	rm "$MNT"/w/moved/*7
	btrfs -q subvolume snapshot -r "$MNT/w" "$MNT/two"
	sync -f "$MNT"
}

# hold SUBVOLUME...: a send whose output stops after the first bytes, which are in /tmp/held.stream.
hold() {
	rm -f /tmp/held
	mkfifo /tmp/held
	btrfs -q send "$@" >/tmp/held 2>/tmp/held.log &
	sender=$!
	exec 3</tmp/held
	head -c 1000 <&3 >/tmp/held.stream
}

# Lets the held send come to its end; how it ended is in $ended. Not for check, which runs what it
# is given in a shell of its own: the send is a child of this one.
let_go() {
	cat <&3 >>/tmp/held.stream
	exec 3<&-
	wait "$sender"
	ended=$?
}

# Uses space and frees it, each in a commit of its own; the most that was pinned is in /tmp/pinned.
churn() {
	local i most=0 now
	for i in $(seq "$ROUNDS"); do
		fallocate -l 300M "$MNT/w/big" && sync -f "$MNT" && rm "$MNT/w/big" && sync -f "$MNT" || return
		now=$(cat "$sysfs/allocation/bytes_pinned")
		[ "$now" -le "$most" ] || most=$now
	done
	echo "$most" >/tmp/pinned
}

balance() { btrfs balance start --full-balance "$MNT"; }

same_stream() { cmp "/tmp/$1.stream" "/tmp/$2.stream"; }

plan 27
load_rbtrfs
check "a volume is made" fill || bail "no volume"
sysfs=/sys/fs/btrfs/$(blkid -o value -s UUID "$DISK1")
btrfs -q send -f /tmp/full.stream "$MNT/two"
btrfs -q send -f /tmp/changes.stream -p "$MNT/one" "$MNT/two"

for mode in exclusive concurrent; do
	check "the mode is set by a remount" mount -o "remount,send_balance=$mode" "$MNT"
	check_equal "it shows in sysfs" "$mode" "$(cat "$sysfs/send_balance")"
	hold "$MNT/two"
	check "what is freed beside a held send is used again" churn
	check "no more than a bound is pinned" [ "$(cat /tmp/pinned)" -le "$BOUND" ]
	let_go
	check_equal "the send comes to its end" 0 "$ended"
	check "with every byte" same_stream full held
done
check "the mode shows among the mount options" grep -q "send_balance=concurrent" /proc/mounts

for what in full changes; do
	[ "$what" = full ] && args=("$MNT/two") || args=(-p "$MNT/one" "$MNT/two")
	hold "${args[@]}"
	check "a balance runs beside a held send" balance
	check "and another" balance
	check "what was freed is used" churn
	let_go
	check_equal "the send comes to its end" 0 "$ended"
	check "with every byte" same_stream "$what" held
done

# Sends, some of which are killed, beside balances.
beside() {
	local i killed=0 pid
	while :; do balance >/dev/null || break; done &
	local balances=$!
	for i in {1..12}; do
		btrfs -q send -f /tmp/a.stream "$MNT/two" &
		pid=$!
		btrfs -q send -f /tmp/b.stream -p "$MNT/one" "$MNT/two" || return
		cmp /tmp/b.stream /tmp/changes.stream || return
		if [ $((i % 3)) = 0 ]; then
			kill -KILL "$pid" && killed=$((killed + 1))
			wait "$pid"
		else
			wait "$pid" && cmp /tmp/a.stream /tmp/full.stream || return
		fi
	done
	kill "$balances"
	btrfs balance cancel "$MNT" 2>/dev/null
	wait "$balances"
	echo "$killed killed"
	return 0
}
check "sends and balances run side by side" beside
check_equal "no send is left" 0 "$(cat "$sysfs/send_in_progress")"
check "back to exclusive" mount -o remount,send_balance=exclusive "$MNT"
finish
