#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Scrub as btrfs-progs call it: what it counts and repairs is what the C driver counts and repairs
# on a copy of the same volume.
. "$(dirname "$0")/lib.sh"

# Where a copy of an address is on the device.
physical() { btrfs-map-logical -l "$1" -b 4096 "$DISK1" | awk -v copy="$2" '$1 == "mirror" && $2 == copy { print $6; exit }'; }

spoil() { printf damage | dd of="$DISK1" bs=1 seek=$(($1 + 512)) conv=notrunc,fsync status=none; }

counters() { grep -E '^[[:space:]]+[a-z_]+: [0-9]+$' "$1"; }

# scrub NAME OPTION...: the status and the counters are in /tmp/NAME.
scrub() {
	local name=$1
	shift
	btrfs scrub start -BR "$@" "$MNT" >/tmp/scrub.out 2>&1
	echo "exit $?" >"/tmp/$name"
	counters /tmp/scrub.out >>"/tmp/$name"
}

# What each driver is asked, on a volume that is mounted at $MNT.
ask() {
	scrub "$1.first" -r
	dmesg --clear
	scrub "$1.repairing"
	# Within a block group the order of lines is each driver's own.
	dmesg | grep -oE 'scrub: checksum error at .*' | sort >"/tmp/$1.named"
	scrub "$1.after"
	# That driver makes chunks for what it cannot write to meanwhile, so that the end differs.
	sed -i /last_physical/d "/tmp/$1.after"
	btrfs scrub status -R "$MNT" >/tmp/scrub.out
	counters /tmp/scrub.out | sed /last_physical/d >"/tmp/$1.status"
	btrfs device stats "$MNT" | sed 's/.*\.//' >"/tmp/$1.stats"
}

load_btrfs
mkfs.btrfs -q -f -b 512M -m dup -d dup "$DISK1" && mount -t btrfs "$DISK1" "$MNT" || bail "no volume"
head -c 24M /dev/urandom >"$MNT/file"
mkdir "$MNT/directory" && head -c 1M /dev/urandom >"$MNT/directory/lost"
echo small >"$MNT/small" && touch "$MNT/unsummed" && chattr +C "$MNT/unsummed"
head -c 300K /dev/urandom >"$MNT/unsummed" && fallocate -l 1M "$MNT/preallocated"
for n in $(seq 500); do echo "$n" >"$MNT/directory/$n"; done
btrfs subvolume snapshot -r "$MNT" "$MNT/snapshot" >/dev/null
sync
address() { filefrag -v "$1" | awk '$1 == "0:" { sub(/\.\./, "", $4); print $4 * 4096; exit }'; }
data=$(address "$MNT/file")
lost=$(address "$MNT/directory/lost")
umount "$MNT"
leaf=$(btrfs inspect-internal dump-tree -t csum "$DISK1" | awk '$1 == "leaf" { print $2; exit }')
spoil "$(physical "$data" 1)"
spoil $(($(physical "$data" 2) + 65536))
spoil "$(physical "$leaf" 2)"
spoil "$(physical "$lost" 1)"
spoil "$(physical "$lost" 2)"
spoil 67108864
blockdev --flushbufs "$DISK1"
dd if="$DISK1" of="$DISK2" bs=1M count=512 conv=fsync status=none
expect_damage "$DISK1"
expect_damage "$DISK2"

plan 23
mount -t btrfs "$DISK1" "$MNT" && ask c
umount "$MNT"
unload_btrfs
load_rbtrfs
mount -t btrfs "$DISK2" "$MNT" && ask rust
check "a scrub that only reads counts as by the C driver" diff /tmp/c.first /tmp/rust.first
check "so does one that repairs" diff /tmp/c.repairing /tmp/rust.repairing
check "and one after it" diff /tmp/c.after /tmp/rust.after
check "and its status" diff /tmp/c.status /tmp/rust.status
check "and the device's statistics" diff /tmp/c.stats /tmp/rust.stats
check_equal "what could not be repaired are two sectors" 2 "$(awk '/uncorrectable_errors/ { print $2 }' /tmp/rust.repairing)"
plain() { sed -E 's,/dev/ubd[ab],DISK,; s,/dev/vd[ab],DISK,' "$1"; }
check "they are named by file" grep -q "path: directory/lost" /tmp/rust.named
check_equal "as by the C driver" "$(plain /tmp/c.named)" "$(plain /tmp/rust.named)"
check "the file that was repaired can be read" md5sum "$MNT/file"

# In the background, slowly: it does not come to its end by itself.
limit=$(echo /sys/fs/btrfs/*/devinfo/1/scrub_speed_max)
check "a limit can be set" btrfs scrub limit -d 1 -l 64k "$MNT"
check_equal "and is seen" 65536 "$(cat "$limit")"
rm "$MNT/directory/lost" && btrfs subvolume delete "$MNT/snapshot" >/dev/null && btrfs subvolume sync "$MNT" >/dev/null
# What stays behind must not hold the output open.
check "a scrub starts in the background" eval "btrfs scrub start $MNT >/dev/null 2>&1"
until btrfs scrub status "$MNT" | grep -q running; do sleep 0.1; done
check_fails "another one is refused" "already running" btrfs scrub start -B "$MNT"
check "others write" eval "head -c 8M /dev/urandom >$MNT/beside && sync -f $MNT"
check "and balance" btrfs balance start --full-balance "$MNT"
check "it can be cancelled" btrfs scrub cancel "$MNT"
check "that is its status" eval "btrfs scrub status $MNT | grep -q aborted"
check_fails "there is none to cancel then" "not running" btrfs scrub cancel "$MNT"
btrfs scrub limit -d 1 -l 0 "$MNT" >/dev/null
check "it is resumed" btrfs scrub resume -B "$MNT"
check "and finds nothing" eval "btrfs scrub status $MNT | grep -qE 'Error summary: +no errors found'"
umount "$MNT"
mount -t btrfs -o ro "$DISK2" "$MNT"
check "what is mounted read-only can be read through" btrfs scrub start -B -r "$MNT"
check_fails "but not repaired" "Read-only file system" btrfs scrub start -B "$MNT"
umount "$MNT"
check "btrfs check finds nothing" check_volume "$DISK2"
finish
