#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# In a guest whose kernel has rbtrfs loaded: files are written, sent, received, balanced and there
# after a remount, and btrfs check and the C driver agree. Ends at the first step that fails.
set -euxo pipefail
disk=/dev/vda
volume=$(mktemp -d)

trap 'dmesg | tail -n 20' ERR
mkfs.btrfs -q -f "$disk"
mount -t btrfs "$disk" "$volume"
btrfs subvolume create "$volume/source"
cp -a rust tools "$volume/source/"
head -c 20M /dev/urandom >"$volume/source/random"
setfattr -n user.name -v value "$volume/source/random"
cp --reflink=always "$volume/source/random" "$volume/source/clone"
btrfs subvolume snapshot -r "$volume/source" "$volume/sent"
btrfs send -q -f /tmp/stream "$volume/sent"
mkdir "$volume/received"
btrfs receive -q -f /tmp/stream "$volume/received"
diff -r "$volume/sent" "$volume/received/sent"
btrfs balance start --full-balance "$volume"
umount "$volume"
mount -t btrfs "$disk" "$volume"
diff -r "$volume/source" "$volume/received/sent"
umount "$volume"
rmmod rbtrfs
btrfs check --check-data-csum "$disk"
modprobe btrfs
mount -t btrfs "$disk" "$volume"
diff -r "$volume/source" "$volume/received/sent"
btrfs send -q -f /tmp/again "$volume/sent"
cmp /tmp/stream /tmp/again
umount "$volume"
! dmesg | grep -E 'WARNING:|BUG:|Oops|Call Trace'
