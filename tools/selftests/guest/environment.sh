#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The guest itself: what all other tests take for granted.
# Guest: debug, uml: both must be what the tests take them for.
. "$(dirname "$0")/lib.sh"
plan 8

config() { [ -e "$1" ] || { echo "no $1" && return 1; }; }
write_and_check() {
	mkfs.btrfs -q -f "$DISK1" && mount -t btrfs "$DISK1" "$MNT" && dd if=/dev/urandom of="$MNT/file" bs=1M count=8 &&
		umount "$MNT" && check_volume "$DISK1"
}
flaky_disk() {
	dmsetup create flaky --table "0 $(blockdev --getsz "$DISK2") flakey $DISK2 0 60 0" &&
		mkfs.btrfs -q -f /dev/mapper/flaky && dmsetup remove flaky
}
# The checkers must be there and must be heard: a test that cannot fail tells nothing.
complaint_is_found() {
	printf '[    1.0] WARNING: CPU: 0 PID: 1 at fs/x.c:1 x+0x1/0x2\n' >/tmp/log
	[ -n "$(complaints /tmp/log)" ] || return
	printf '[    1.0] BTRFS info (device vda): first mount of filesystem\n' >/tmp/log
	[ -z "$(complaints /tmp/log)" ]
}

# check_on KERNELS NAME COMMAND...: a check of what only these kernels have.
check_on() {
	if [[ " $1 " = *" $RBTRFS_KERNEL "* ]]; then check "${@:2}"; else skip "not in this kernel" "$2"; fi
}

load_btrfs
check "the C driver makes a volume that btrfs check accepts" write_and_check
check "device-mapper works without udev" flaky_disk
check_on debug "lockdep is on" grep -q '^ debug_locks: *1' /proc/lockdep_stats
check_on "debug uml" "allocations can be made to fail" config /sys/kernel/debug/failslab
check_on "debug uml" "requests can be made to fail" config /sys/kernel/debug/fail_make_request
check_on debug "KASAN is on" grep -q ' kasan_report$' /proc/kallsyms
check "a complaint of the kernel is found" complaint_is_found
check "the checkout is writable" test -w "$CHECKOUT"
finish
