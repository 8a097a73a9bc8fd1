#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The three failures of the 2019 patch, on damaged volumes: each is a line in the log and an error,
# and the machine goes on.
. "$(dirname "$0")/lib.sh"

fill() {
	mkfs.btrfs -q -f -b 300M "$DISK1" && mount -t btrfs "$DISK1" "$MNT" || return
	btrfs subvolume create "$MNT/s" >/dev/null || return
	local i
	for i in $(seq 300); do echo "$i" >"$MNT/s/file-$i" || return; done
	btrfs subvolume snapshot -r "$MNT/s" "$MNT/snap" >/dev/null || return
	umount "$MNT"
}

damage() { python3 "$GUEST_TESTS/damage.py" "$DISK1" "$@"; }

# fresh WHAT WHERE: a volume damaged like this, mounted by rbtrfs, with an empty log.
fresh() {
	dd if=/tmp/volume of="$DISK1" bs=1M conv=fsync status=none
	damage "$@" || bail "the volume could not be damaged"
	dmesg --clear
	load_rbtrfs
	mount -t btrfs "$DISK1" "$MNT" || bail "the damaged volume does not mount"
}
done_with_it() { umount "$MNT" && unload_rbtrfs; }
log_says() { dmesg | grep -E "$1" || { dmesg | tail -n 5 && return 1; }; }

plan 14
expect_damage "$DISK1"
load_btrfs
fill || bail "the volume could not be filled"
snap=$(mount -t btrfs "$DISK1" "$MNT" && btrfs inspect-internal rootid "$MNT/snap" && umount "$MNT")
unload_btrfs
dd if="$DISK1" of=/tmp/volume bs=1M count=300 status=none
child=$(btrfs inspect-internal dump-tree -t "$snap" "$DISK1" | sed -n 's/^leaf \([0-9]*\) .*/\1/p' | head -n 1)

fresh child-generation "$snap"
check_fails "a stale child ends a send" "send ioctl failed with -5" btrfs send -q -f /dev/null "$MNT/snap"
check "and says so" log_says "BTRFS (error|warning) \(device $(basename "$DISK1")\): parent transid verify failed on logical [0-9]+ mirror [12] wanted [0-9]+ found [0-9]+"
check_fails "and a balance" "Input/output error|Structure needs cleaning" btrfs balance start -m "$MNT"
check "the volume stays in use" ls "$MNT/s"
done_with_it

fresh leaf-for-node "$snap"
check_fails "a leaf in the place of a node ends a send" "send ioctl failed with -(5|117)|unable to resolve" btrfs send -q -f /dev/null "$MNT/snap"
check "and says so" log_says "BTRFS (error|warning) \(device $(basename "$DISK1")\): .*level"
check_fails "and a look" "Structure needs cleaning|Input/output error" ls "$MNT/snap"
check_fails "and a balance" "Input/output error|Structure needs cleaning" btrfs balance start -m "$MNT"
check "the volume stays in use" ls "$MNT/s"
done_with_it

fresh backref "$child"
check_fails "a missing backref ends a balance" "Input/output error|Structure needs cleaning" btrfs balance start -m "$MNT"
check "and says so" log_says "BTRFS error \(device $(basename "$DISK1")\): .*(backref|ref)"
check "a send does not need it" btrfs send -q -f /dev/null "$MNT/snap"
check "the volume stays in use" ls "$MNT/s"
check "and writable" btrfs filesystem label "$MNT" still-writable
done_with_it
finish
