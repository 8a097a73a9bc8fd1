#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Compression on write: by mount options, properties and flags of files; it saves what the C driver
# saves, which reads it, too.
. "$(dirname "$0")/lib.sh"

# A text that a log could be, half a piece of noise, and small files.
DATA=/tmp/compress-data
mkdir -p "$DATA"
source_tree | tar -C "$DATA" -x
for n in $(seq 20000); do echo "Nov 30 22:$((n % 60)):07 host kernel: BTRFS info (device sda$((n % 7))): checksum $((n * 7919))"; done >"$DATA/log"
{ head -c 300000 "$DATA/log" && head -c 400000 /dev/urandom && head -c 300001 "$DATA/log"; } >"$DATA/mixed"
head -c 2M /dev/urandom >"$DATA/noise"
head -c 4096 "$DATA/log" >"$DATA/small"

# Bytes of data and of metadata that a volume uses.
used() { btrfs filesystem df -b "$1" | sed -n 's/^\(Data\|Metadata\),.*used=\([0-9]*\)$/\2/p' | paste -sd ' '; }
# fill TYPE DISK OPTIONS: prints what a volume uses with the data on it, and leaves it mounted.
fill() {
	mkfs.btrfs -q -f "$2" && mount -t "$1" -o "$3" "$2" "$MNT" && cp -r "$DATA" "$MNT/data" && sync -f "$MNT" && sync -f "$MNT" &&
		used "$MNT"
}
same() { diff -r "$DATA" "$MNT/data"; }
encoded() { filefrag -v "$1" | grep -q encoded; }
# As much as the C driver uses, or less by up to a tenth, and up to four per cent more; of metadata
# a few blocks, too.
alike() {
	local ours theirs
	read -r -a ours <<<"$1"
	read -r -a theirs <<<"$2"
	echo "ours: ${ours[*]}, the C driver's: ${theirs[*]}"
	[ "${ours[0]}" -le $((theirs[0] * 104 / 100)) ] && [ "${ours[0]}" -ge $((theirs[0] * 90 / 100)) ] &&
		[ "${ours[1]}" -le $((theirs[1] * 110 / 100 + 65536)) ]
}
# Writes a file of a log in the folder given, and prints whether its data is compressed.
written() {
	cp "$DATA/log" "$1" && sync -f "$MNT" && if encoded "$1"; then echo compressed; else echo plain; fi
}
features() { btrfs inspect-internal dump-super "$1" | grep -oE 'COMPRESS_[A-Z]+' | sort -u | paste -sd ' '; }
flags() { lsattr -d "$1" | cut -d ' ' -f 1 | tr -d -; }

METHODS="zlib lzo zstd:1 zstd:15 zstd:-5"
plan $((5 * 6 + 25))
load_btrfs
load_rbtrfs fstype=rbtrfs

for method in $METHODS; do
	theirs=$(fill btrfs "$DISK2" "compress=$method") || bail "the C driver does not write"
	umount "$MNT"
	ours=$(fill rbtrfs "$DISK1" "compress=$method")
	check "$method: as much is saved as by the C driver" alike "$ours" "$theirs"
	check "$method: what compresses is compressed" encoded "$MNT/data/log"
	umount "$MNT" && mount -t rbtrfs "$DISK1" "$MNT"
	check "$method: all of it is read back" same
	umount "$MNT"
	check "$method: btrfs check finds nothing" check_volume "$DISK1"
	check_equal "$method: the features of the volume" "$(features "$DISK2")" "$(features "$DISK1")"
	mount -t btrfs "$DISK1" "$MNT"
	check "$method: the C driver reads the same" same
	umount "$MNT"
done

# Properties and flags. $DISK1 is without the option.
mkfs.btrfs -q -f "$DISK1" && mount -t rbtrfs "$DISK1" "$MNT" || bail "the volume does not mount"
check_equal "without options nothing is compressed" plain "$(written "$MNT/plain")"
mkdir "$MNT/lzo" && btrfs property set "$MNT/lzo" compression lzo
check_equal "a file of a directory with the property is" compressed "$(written "$MNT/lzo/file")"
check_equal "by its method" "compression=lzo" "$(btrfs property get "$MNT/lzo/file" compression)"
touch "$MNT/c" && chattr +c "$MNT/c"
check_equal "a file with +c is compressed" compressed "$(written "$MNT/c")"
check_equal "by zlib" "compression=zlib" "$(btrfs property get "$MNT/c" compression)"
touch "$MNT/lzo/m" && chattr -c "$MNT/lzo/m" && chattr +m "$MNT/lzo/m"
check_equal "a file with +m is not" plain "$(written "$MNT/lzo/m")"
check "a remount changes the option" mount -o remount,compress=zstd:5 "$MNT"
check "which is shown" grep -q "$MNT rbtrfs .*compress=zstd:5" /proc/mounts
check_equal "and followed" compressed "$(written "$MNT/zstd")"
touch "$MNT/again" && chattr +c "$MNT/again"
check_equal "a file with +c has its method" "compression=zstd" "$(btrfs property get "$MNT/again" compression)"
fallocate -l 1M "$MNT/prealloc"
check_equal "what is preallocated is written as it is" plain "$(written "$MNT/prealloc")"
# A text of a random alphabet looks as if it were worth it, and is not.
head -c 1M /dev/urandom | base64 -w 0 | tr '+/A-Z' '\200-\233' | head -c 1M >"$MNT/hopeless"
sync -f "$MNT"
cp "$DATA/noise" "$MNT/noise" && sync -f "$MNT"
check_equal "noise is not tried" "" "$(flags "$MNT/noise")"
mount -o remount,compress-force=lzo "$MNT"
cp "$DATA/noise" "$MNT/forced" && sync -f "$MNT"
check_equal "nor marked where all is tried" "" "$(flags "$MNT/forced")"
mount -o remount,compress=no "$MNT"
check_equal "the option ends" plain "$(written "$MNT/ended")"
umount "$MNT"

# Data that is passed as it is stored, with the same results as by the C driver.
encoded_calls() {
	mkfs.btrfs -q -f "$2" && mount -t "$1" -o compress=zstd "$2" "$MNT" && python3 "$GUEST_TESTS/encoded.py" "$MNT" "$DATA/log"
	umount "$MNT"
}
encoded_calls btrfs "$DISK2" >/tmp/encoded.theirs
encoded_calls rbtrfs "$DISK3" >/tmp/encoded.ours
check "encoded reads and writes do what they do in the C driver" diff /tmp/encoded.theirs /tmp/encoded.ours
check_equal "all of them" 41 "$(wc -l </tmp/encoded.ours)"
check "btrfs check finds nothing" check_volume "$DISK3"

# A stream of compressed data stays so at the receiver. The tools send and receive by one name only.
unload_rbtrfs && unload_btrfs && load_rbtrfs
mount -t btrfs "$DISK3" "$MNT" && btrfs subvolume snapshot -r "$MNT" "$MNT/snap" >/dev/null &&
	btrfs send -q --proto 2 --compressed-data -f /tmp/stream "$MNT/snap"
umount "$MNT"
mkfs.btrfs -q -f "$DISK2" && mount -t btrfs "$DISK2" "$MNT"
check "a stream of compressed data is received" btrfs receive -q -f /tmp/stream "$MNT"
check "and is compressed" encoded "$MNT/snap/target"
check "and the same" cmp "$DATA/log" <(head -c 300000 "$MNT/snap/source"; tail -c +300001 "$DATA/log")
umount "$MNT"
check "btrfs check finds nothing" check_volume "$DISK2"
mount -t btrfs "$DISK1" "$MNT"

# What is changed within compressed extents.
cp --reflink=always "$MNT/lzo/file" "$MNT/copy"
fallocate -p -o 100000 -l 200000 "$MNT/copy" && truncate -s 777777 "$MNT/copy" &&
	printf change | dd of="$MNT/copy" bs=1 seek=500000 conv=notrunc status=none
{ head -c 100000 "$DATA/log" && head -c 200000 /dev/zero && tail -c +300001 "$DATA/log"; } | head -c 777777 >/tmp/copy
printf change | dd of=/tmp/copy bs=1 seek=500000 conv=notrunc status=none
echo 3 >/proc/sys/vm/drop_caches
check "a copy that shares extents is changed by itself" cmp /tmp/copy "$MNT/copy"
umount "$MNT"
check "btrfs check finds nothing" check_volume "$DISK1"
unload_rbtrfs && load_btrfs
mount -t btrfs "$DISK1" "$MNT"
check "the C driver reads the copy" cmp /tmp/copy "$MNT/copy"
check "and the original" cmp "$DATA/log" "$MNT/lzo/file"
umount "$MNT"
unload_btrfs
finish
