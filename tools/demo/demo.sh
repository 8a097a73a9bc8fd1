#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The demonstration, run as root in the guest: a volume that the C driver filled, sent and balanced
# by rbtrfs with unmodified btrfs-progs, and judged by the C driver and by btrfs check. usage:
# demo.sh SOURCE_DISK TARGET_DISK
set -euo pipefail

src=${1:-/dev/vda}
dst=${2:-/dev/vdb}
work=$(mktemp -d)
mnt=$work/volume
out=$work/out
mkdir -p "$mnt" "$out"
module=$PWD/rbtrfs.ko
bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' off=$'\e[0m'
step=0

say() {
	step=$((step + 1))
	printf '\n%s%2d. %s%s\n' "$bold" "$step" "$*" "$off"
}
run() {
	printf '    # %s\n' "$*"
	"$@" 2>&1 | sed 's/^/    /'
	return "${PIPESTATUS[0]}"
}
good() { printf '    %sok:%s %s\n' "$green" "$off" "$*"; }
die() {
	printf '    %sfailed:%s %s\n' "$red" "$off" "$*"
	dmesg | tail -20 | sed 's/^/    | /'
	exit 1
}
# The kernel's own lines since the last call.
kernel_lines() { dmesg -c | grep -E 'BTRFS|btrfs' | sed -E 's/^\[[ 0-9.]+\] /    kernel: /' || true; }
mount_c() { modprobe btrfs && mount -t btrfs "$@"; }
unmount_c() { umount "$1" && rmmod btrfs; }

# same TREE: whether it is the tree noted at first; shows where not.
same() { describe "$1" > "$work/found" && diff "$work/expected" "$work/found" | head -20 | sed 's/^/    | /' >&2 && cmp -s "$work/expected" "$work/found"; }

# What a tree of files is, in one text: names, types, modes, owners, times, links, xattrs and
# contents.
describe() (
	cd "$1"
	find . -printf '%P %y %m %U %G %T@ %s %n %l\n' | sed -E 's/^([^ ]* d .*) [0-9]+ [0-9]+ ?$/\1/' | sort
	find . -type f -print0 | sort -z | xargs -0 sha256sum
	find . -print0 | sort -z | xargs -0 getfattr -h -d -m - 2>/dev/null
)

say "A volume made by mkfs.btrfs and filled through the C driver: a source tree, snapshots, xattrs, compression"
modprobe btrfs
run mkfs.btrfs -q -f -L demo "$src"
mount_c "$src" "$mnt"
run btrfs subvolume create "$mnt/home"
mkdir "$mnt/home/src"
cp -a "$PWD"/{Makefile,rust,tools,qemu} "$mnt/home/src/"
cp -a /usr/share/doc "$mnt/home/doc"
run btrfs subvolume snapshot -r "$mnt/home" "$mnt/monday"
head -c 24M /dev/urandom > "$mnt/home/random"
mkdir "$mnt/home/packed"
btrfs property set "$mnt/home/packed" compression zstd
cat /usr/bin/* 2>/dev/null | head -c 24M > "$mnt/home/packed/programs" || true
ln "$mnt/home/random" "$mnt/home/random.link"
ln -s random "$mnt/home/random.symlink"
setfattr -n user.demo -v value "$mnt/home/random"
truncate -s 64M "$mnt/home/sparse"
rm -r "$mnt/home/src/qemu"
run btrfs subvolume snapshot -r "$mnt/home" "$mnt/tuesday"
describe "$mnt/tuesday" > "$work/expected"
btrfs filesystem df "$mnt" | sed 's/^/    /'
unmount_c "$mnt"
good "$(wc -l < "$work/expected") facts about $(grep -c ' f ' "$work/expected") files noted"

say "rbtrfs takes the C driver's place and mounts it"
dmesg -c > /dev/null
run insmod "$module"
run mount -t btrfs "$src" "$mnt"
grep " $mnt " /proc/self/mounts | sed 's/^/    /'
run btrfs subvolume list "$mnt"
same "$mnt/tuesday" || die "rbtrfs shows other files"
good "every file reads as the C driver showed it"
uuid=$(btrfs filesystem show "$mnt" | sed -n 's/.*uuid: //p')
status=/sys/fs/btrfs/$uuid/exclusive_operation

say "btrfs send of a read-only snapshot"
run btrfs send -q -f "$out/tuesday" "$mnt/tuesday"
good "$(stat -c %s "$out/tuesday") bytes of stream"

say "A send is held open; balance is refused meanwhile"
mkfifo "$work/pipe"
btrfs send -q "$mnt/tuesday" > "$work/pipe" 2> "$work/send.log" &
sender=$!
exec 3< "$work/pipe"
head -c 17 <&3 > "$work/held"
kernel_lines > /dev/null
if run btrfs balance start --full-balance "$mnt"; then die "balance ran under a send"; fi
kernel_lines
good "refused, and nothing was changed"

say "Other sends run beside it"
pids=()
for i in 1 2 3; do
	btrfs send -q -f "$out/beside.$i" "$mnt/tuesday" &
	pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || die "a send beside the held one failed"; done
for i in 1 2 3; do cmp "$out/tuesday" "$out/beside.$i" || die "streams differ"; done
good "three more streams, all the same bytes"
cat <&3 >> "$work/held"
exec 3<&-
wait "$sender" || die "the held send failed: $(cat "$work/send.log")"
cmp "$out/tuesday" "$work/held" || die "the held stream differs"
good "the held send ended, the same bytes again"

say "The same balance now succeeds; send is refused while it runs"
btrfs balance start --full-balance "$mnt" > "$work/balance.log" 2>&1 &
balance=$!
refused=
while kill -0 "$balance" 2> /dev/null; do
	if [ "$(cat "$status")" = balance ] && ! btrfs send -q "$mnt/monday" > /dev/null 2> "$work/send.log"; then
		refused=1
		break
	fi
done
wait "$balance" || die "balance failed: $(cat "$work/balance.log")"
[ -n "$refused" ] || die "no send was refused while balance ran"
printf '    # btrfs send %s\n' "$mnt/monday"
sed 's/^/    /' "$work/send.log"
kernel_lines | grep -v 'relocating\|found .* extents'
sed 's/^/    /' "$work/balance.log"
good "send was refused before its first byte; balance went through"

say "After the balance the stream is still the same, byte for byte"
run btrfs send -q -f "$out/after" "$mnt/tuesday"
cmp "$out/tuesday" "$out/after" || die "the stream changed"
good "identical"
run umount "$mnt"
run rmmod rbtrfs

say "btrfs check, with every data checksum"
run btrfs check --check-data-csum "$src" || die "btrfs check found errors"

say "The C driver receives the stream of rbtrfs"
modprobe btrfs
run mkfs.btrfs -q -f "$dst"
mount_c "$dst" "$mnt"
run btrfs receive -q -f "$out/tuesday" "$mnt"
same "$mnt/tuesday" || die "the received tree differs"
good "an identical tree"
umount "$mnt"
mount -t btrfs -o ro "$src" "$mnt"
same "$mnt/tuesday" || die "the C driver reads other files after the balance"
good "and the C driver reads the balanced volume as before"
btrfs send -q -f "$out/c" "$mnt/tuesday"
cmp "$out/tuesday" "$out/c" || die "the streams of the two drivers differ"
good "and sends the same bytes as rbtrfs did"
umount "$mnt"
rm -rf "$work"
printf '\n%sThe demonstration is complete.%s\n' "$bold$green" "$off"
