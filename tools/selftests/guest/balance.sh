#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Balance: all kinds of block groups, filters, profiles, and start, pause, resume and cancel.
# Guest: debug: relocation goes on beside commits, writers and the cleaner on two processors.
. "$(dirname "$0")/lib.sh"

fill() {
	mkfs.btrfs -q -f -b 1200M "$DISK1" && mount -t btrfs "$DISK1" "$MNT" || return
	btrfs subvolume create "$MNT/s" >/dev/null && mkdir "$MNT/s/files" || return
	python3 - "$MNT/s/files" <<-'P' || return
		import os, sys
		for f in range(400):
		    with open(f"{sys.argv[1]}/{f}", "wb") as out:
		        out.write(os.urandom(3000 if f % 3 else 9000))
	P
	head -c 12M /dev/urandom >"$MNT/s/large"
	local i
	for i in $(seq 8); do
		echo "$i" >"$MNT/s/files/$i"
		cp --reflink=always "$MNT/s/large" "$MNT/s/reflink" 2>/dev/null
		printf x | dd of="$MNT/s/large" bs=1 seek=$((i * 1000000)) conv=notrunc status=none
		btrfs subvolume snapshot -r "$MNT/s" "$MNT/snap$i" >/dev/null || return
	done
	btrfs subvolume delete "$MNT/snap3" "$MNT/snap7" >/dev/null && btrfs subvolume sync "$MNT" >/dev/null
	digest >/tmp/expected
	umount "$MNT"
}

digest() { (cd "$MNT" && find . -type f -print0 | sort -z | xargs -0 sha256sum && find . -printf '%p %y %m %s %n\n' | sort); }
unchanged() { digest | cmp - /tmp/expected; }
profile_is() { btrfs filesystem df "$MNT" | grep -q "^$1, $2:" && ! btrfs filesystem df "$MNT" | grep "^$1, " | grep -vq "^$1, $2:"; }
balance() { btrfs balance "$@" "$MNT"; }
operation() { cat /sys/fs/btrfs/*-*/exclusive_operation; }
chunks() { sed -E 's/.*relocate ([0-9]+) out of.*/\1/' "$1"; }

# Waits until a balance runs, and until it is over.
start_in_background() {
	btrfs balance start --full-balance "$MNT" >/tmp/balance.log 2>&1 &
	balancer=$!
	for _ in $(seq 200); do
		[ "$(operation)" = balance ] && return
		kill -0 "$balancer" 2>/dev/null || return
		sleep 0.05
	done
	return 1
}

# The balance that a mount found has come to its end, by itself.
resumed() {
	local _
	for _ in $(seq 600); do
		! dmesg | grep -q 'balance: ended with status: 0' || break
		sleep 0.2
	done
	dmesg | grep 'balance: resume' && dmesg | grep 'balance: ended with status: 0'
}

plan 31
load_btrfs
fill || bail "the volume could not be filled"
unload_btrfs
load_rbtrfs
mount -t btrfs "$DISK1" "$MNT" || bail "the volume does not mount"

check "balance everything" balance start --full-balance
check "nothing changed" unchanged
check "balance again" balance start --full-balance
check "nothing changed by that either" unchanged

balance start -dusage=0 -musage=0 >/tmp/out 2>&1
check_equal "usage=0 takes no block group in use" 0 "$(chunks /tmp/out)"
balance start -dlimit=1 >/tmp/out 2>&1
check_equal "limit=1 takes one" 1 "$(chunks /tmp/out)"
balance start -ddevid=2 >/tmp/out 2>&1
check_equal "no device 2" 0 "$(chunks /tmp/out)"
check_fails "a profile of several devices is refused" "Invalid argument" balance start -dconvert=raid1
check_fails "fewer copies of metadata need force" "Invalid argument" balance start -mconvert=single
check "convert metadata to single" balance start -f -mconvert=single -sconvert=single
check "metadata is single" profile_is Metadata single
check "convert data to dup" balance start -dconvert=dup
check "data is dup" profile_is Data DUP
balance start -dconvert=dup,soft >/tmp/out 2>&1
check_equal "soft leaves what has the profile" 0 "$(chunks /tmp/out)"
check "convert all back" balance start -f -dconvert=single -mconvert=dup -sconvert=dup
check "nothing changed by conversions" unchanged

check "no balance, no status" grep "No balance found" <(balance status)
check_fails "nothing to pause" "Not running" balance pause
check_fails "nothing to cancel" "Not in progress" balance cancel

# Pause: the balance outlives an unmount, and waits.
start_in_background || bail "no balance was seen running"
balance pause >/tmp/out 2>&1
wait "$balancer"
if [ "$(operation)" = "balance paused" ]; then
	pass "a running balance pauses"
	umount "$MNT" && mount -t btrfs -o skip_balance "$DISK1" "$MNT"
	check_equal "it is still paused after a remount" "balance paused" "$(operation)"
	mkfifo /tmp/pipe
	btrfs send -q "$MNT/snap1" >/tmp/pipe 2>/tmp/send.log &
	exec 3</tmp/pipe
	head -c 17 <&3 >/dev/null
	check_fails "it does not resume under a send" "Resource temporarily unavailable" balance resume
	check_equal "and stays paused" "balance paused" "$(operation)"
	cat <&3 >/dev/null
	exec 3<&-
	wait
	check "it resumes" balance resume
	start_in_background || bail "no balance was seen running"
	balance pause >/tmp/out 2>&1
	wait "$balancer"
	check_equal "another one is paused" "balance paused" "$(operation)"
	dmesg --clear
	umount "$MNT" && mount -t btrfs "$DISK1" "$MNT"
	check "the next mount goes on with it" resumed
	check_equal "and it is over" none "$(operation)"
else
	note "the balance was over before it could be paused: $(cat /tmp/balance.log)"
	for name in "a running balance pauses" "it is still paused" "it does not resume under a send" "stays paused" "resumes" \
		"another one is paused" "the next mount goes on with it" "it is over"; do
		skip "too fast" "$name"
	done
fi

# A signal to the program that balances cancels. Not SIGINT, which a shell's background processes
# ignore.
dmesg --clear
start_in_background || bail "no balance was seen running"
kill -TERM "$balancer"
wait "$balancer"
check_equal "a signal ends the balance" 143 $?
check "which was cancelled" grep "balance: canceled" <(dmesg)
check_equal "and is gone" none "$(operation)"
check "nothing changed in the end" unchanged
umount "$MNT"
finish
