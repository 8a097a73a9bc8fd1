#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Send and balance exclude each other, and every ioctl answers bad arguments with an error.
# Guest: debug: what exclusion forbids is tried on two processors, and lockdep watches.
. "$(dirname "$0")/lib.sh"

# A volume with something to send, larger than any pipe, and with metadata to move.
fill() {
	mkfs.btrfs -q -f "$DISK1" && mount -t btrfs "$DISK1" "$MNT" && btrfs subvolume create "$MNT/source" >/dev/null || return
	local i
	for i in $(seq 40); do
		mkdir "$MNT/source/$i" && for n in $(seq 50); do echo "$i $n" >"$MNT/source/$i/$n"; done
		dd if=/dev/urandom of="$MNT/source/$i/data" bs=256k count=1 status=none || return
	done
	for i in 1 2 3; do
		btrfs subvolume snapshot -r "$MNT/source" "$MNT/snap$i" >/dev/null || return
		echo "$i" >"$MNT/source/1/1"
	done
	umount "$MNT"
}

# A program's results become this test's own.
run() {
	local line planned='' name
	name=$(basename "$1")
	while IFS= read -r line; do
		case $line in
		'ok '*) pass "$name: ${line#ok * }" ;;
		'not ok '*) fail "$name: ${line#not ok * }" ;;
		1..*) planned=1 ;;
		'status 0' | 'status 1') ;;
		'status '*) fail "$name: $line" ;;
		*) note "${line#\# }" ;;
		esac
	done < <("$@" 2>&1 && echo "status 0" || echo "status $?")
	# One that gave up has not said so itself.
	[ -n "$planned" ] || fail "$name comes to its end"
}

echo "TAP version 13"
load_btrfs
check "a volume is made" fill || bail "no volume"
uuid=$(blkid -o value -s UUID "$DISK1")
unload_btrfs
load_rbtrfs
check "it mounts" mount -t btrfs "$DISK1" "$MNT" || bail "no mount"
sysfs=/sys/fs/btrfs/$uuid

run "$SELFTEST_BIN/arguments" "$MNT/snap1" "$MNT"
run "$SELFTEST_BIN/exclusion" "$MNT" "$MNT/snap1" "$sysfs"
run "$SELFTEST_BIN/storm" "$MNT" "$sysfs" 20 "$MNT"/snap{1,2,3}

check "the kernel warned of sends refused" sh -c \
	"dmesg | grep -q 'BTRFS warning (device .*): cannot run send because a balance operation is in progress'"
check "the kernel warned of balances refused" sh -c \
	"dmesg | grep -Eq 'BTRFS warning .*: cannot run balance while send operations are in progress \([1-9][0-9]* in progress\)'"

# A send whose reader does not read, held for ever: commits go on, and so does whoever wants to
# leave.
btrfs send -q -f /tmp/stream "$MNT/snap1"
mkfifo /tmp/held
btrfs send -q "$MNT/snap1" >/tmp/held 2>/tmp/held.log &
sender=$!
exec 3</tmp/held
head -c 17 <&3 >/tmp/held.stream
check_equal "a send is held" 1 "$(cat "$sysfs/send_in_progress")"
before=$(cat "$sysfs/generation")
check "a commit does not wait for it" btrfs filesystem label "$MNT" committed
check "and is one" [ "$(cat "$sysfs/generation")" -gt "$before" ]
check "nor does a lazy unmount" umount -l "$MNT"
check "nor does another mount" mount -t btrfs "$DISK1" "$MNT"
check_equal "which sees the commit" committed "$(btrfs filesystem label "$MNT")"
check "it unmounts" umount "$MNT"
cat <&3 >>/tmp/held.stream
exec 3<&-
wait "$sender"
check_equal "the held send comes to its end" 0 $?
check "with every byte" cmp /tmp/stream /tmp/held.stream
echo "1..$ktap_number"
finish
