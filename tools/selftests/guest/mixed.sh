#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Several programs change files at random, each of which knows what is to be in them, while the
# volume is balanced, snapshots of it come, are sent, and go.
# Guest: debug: programs, balance, snapshots and sends race on two processors.
. "$(dirname "$0")/lib.sh"

OPERATIONS=300
pids=()

# start SEED: one program more, in a directory of its own.
start() {
	mkdir -p "$MNT/work/$1"
	"$GUEST_TESTS/mixed.py" "$MNT/work/$1" "$1" "$OPERATIONS" >"/tmp/mixed.$1" 2>&1 &
	pids+=($!)
}
running() { kill -0 "${pids[@]}" 2>/dev/null; }

# Balances one kind of block groups after the other. That a send is in its way is no failure. On a
# slow machine it goes on after the programs until one was balanced, for which there comes a time:
# sends end with the programs too.
balance_all() {
	local kind=d out
	while running || [ ! -s /tmp/balanced ]; do
		out=$(btrfs balance start -f -"$kind" "$MNT" 2>&1) && echo "$kind" >>/tmp/balanced ||
			grep -q 'temporarily unavailable' <<<"$out" || { echo "balance -$kind: $out" && return 1; }
		kind=$(tr dms msd <<<"$kind")
		sleep 0.5
	done
}

# send SNAPSHOT: as soon as no balance is in the way, which is so at the latest when the programs
# have ended.
send() {
	local out
	until out=$(btrfs send -q -f /dev/null "$1" 2>&1); do
		grep -q 'temporarily unavailable' <<<"$out" || { echo "send: $out" && return 1; }
		echo "$1" >>/tmp/refused
		sleep 0.1
	done
	echo "$1" >>/tmp/sent
}

# Snapshots, at least one, all of which are sent, and every other one kept; what is in those does
# not change.
snapshots() {
	local n=0
	while running || [ ! -s /tmp/sent ]; do
		n=$((n + 1))
		btrfs subvolume snapshot -r "$MNT/work" "$MNT/snap$n" >/dev/null && tree_digest "$MNT/snap$n" >"/tmp/snap$n.digest" || return
		send "$MNT/snap$n" || return
		if [ $((n % 2)) = 0 ]; then
			rm "/tmp/snap$n.digest" && btrfs subvolume delete "$MNT/snap$n" >/dev/null || return
		fi
		sleep 1
	done
}
snapshots_are_same() {
	local digest
	for digest in /tmp/snap*.digest; do
		tree_digest "$MNT/$(basename "$digest" .digest)" | cmp - "$digest" || return
	done
}

plan 12
load_rbtrfs
: >/tmp/balanced >/tmp/sent >/tmp/refused
mkfs.btrfs -q -f -b 2G "$DISK1" && mount -o commit=2 "$DISK1" "$MNT" && btrfs subvolume create "$MNT/work" >/dev/null || bail "no volume"
for seed in 1 2 3; do start "$seed"; done
balance_all >/tmp/balance.log 2>&1 &
balance=$!
snapshots >/tmp/snapshots.log 2>&1 &
snapshots=$!
for n in 0 1 2; do
	wait "${pids[n]}"
	check_equal "files of program $((n + 1))" "0 " "$? $(cat "/tmp/mixed.$((n + 1))")"
done
wait "$balance"
check_equal "balance all the while" "0 " "$? $(cat /tmp/balance.log)"
wait "$snapshots"
check_equal "snapshots all the while" "0 " "$? $(cat /tmp/snapshots.log)"
note "balances: $(wc -l </tmp/balanced), snapshots: $(ls /tmp/snap*.digest | wc -l) of them kept, sends: $(wc -l </tmp/sent), sends refused: $(wc -l </tmp/refused)"
check "snapshots do not change" snapshots_are_same
check "balance of all of it" btrfs balance start --full-balance "$MNT"
check_kept "$DISK1"
finish
