#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The measurements, in the guest: prints one line "CASE DRIVER ROUND SECONDS" for each, notes on standard error.
#
# A case is an image made once by the C driver. In each round both drivers get a fresh copy of it on the second disk,
# mount it with cold caches and do the same; which one goes first changes from round to round.
set -euo pipefail
rounds=${1:-5}
master=/dev/vda copy=/dev/vdb mnt=/mnt/bench
module=$PWD/rbtrfs.ko
mkdir -p "$mnt"

note() { echo "bench: $*" >&2; }

load() {
	case $1 in
	btrfs) modprobe btrfs ;;
	rbtrfs) insmod "$module" ;;
	esac
}
unload() { rmmod "$1"; }

# Makes the image of a case: MKFS-OPTIONS, and a function that fills it.
make_image() {
	local fill=$1
	shift
	mkfs.btrfs -q -f "$@" "$master"
	modprobe btrfs
	mount -t btrfs "$master" "$mnt"
	"$fill"
	umount "$mnt"
	rmmod btrfs
	used=$(btrfs inspect-internal dump-super "$master" | awk '$1 == "dev_item.total_bytes" { print $2 }')
	note "$fill: image made, ${used} bytes"
}

now() { date +%s.%N; }

# measure CASE ACTION [BEFORE]: times ACTION, run on the mounted copy, for each driver and round.
measure() {
	local name=$1 action=$2 before=${3:-true} round driver order start end
	for round in $(seq "$rounds"); do
		order="btrfs rbtrfs"
		[ $((round % 2)) = 1 ] || order="rbtrfs btrfs"
		for driver in $order; do
			dd if="$master" of="$copy" bs=4M conv=sparse,fsync status=none
			load "$driver"
			mount -t btrfs "$copy" "$mnt"
			sync
			echo 3 > /proc/sys/vm/drop_caches
			"$before"
			start=$(now)
			"$action"
			end=$(now)
			printf '%s\t%s\t%s\t%s\n' "$name" "$driver" "$round" "$(echo "$end $start" | awk '{ print $1 - $2 }')"
			umount "$mnt"
			unload "$driver"
		done
		note "$name: round $round of $rounds"
	done
	btrfs check --check-data-csum "$copy" > /tmp/check 2>&1 || { cat /tmp/check >&2; exit 1; }
}

small_files() {
	btrfs subvolume create "$mnt/s" > /dev/null
	python3 - "$mnt/s" <<-'P'
		import os, sys
		for d in range(20):
		    path = f"{sys.argv[1]}/d{d}"
		    os.mkdir(path)
		    for f in range(1000):
		        with open(f"{path}/file-{f}", "wb") as out:
		            out.write(os.urandom(1000))
	P
	btrfs subvolume snapshot -r "$mnt/s" "$mnt/snap" > /dev/null
}
large_file() {
	btrfs subvolume create "$mnt/s" > /dev/null
	head -c 256M /dev/urandom > "$mnt/s/file"
	btrfs subvolume snapshot -r "$mnt/s" "$mnt/snap" > /dev/null
}
snapshots() {
	local i
	btrfs subvolume create "$mnt/s" > /dev/null
	python3 - "$mnt/s" <<-'P'
		import os, sys
		for f in range(4000):
		    with open(f"{sys.argv[1]}/file-{f}", "wb") as out:
		        out.write(os.urandom(1000))
	P
	for i in $(seq 200); do
		echo "$i" > "$mnt/s/changes-$i"
		btrfs subvolume snapshot -r "$mnt/s" "$mnt/snap-$i" > /dev/null
	done
}
send_snap() { btrfs send -q "$mnt/snap" > /dev/null; }
warm() { cat "$mnt"/snap/* > /dev/null; }
balance_metadata() { btrfs balance start -m "$mnt" > /dev/null; }
cancel_balance() {
	btrfs balance cancel "$mnt" > /dev/null 2>&1 || true
	wait
}
start_balance() {
	btrfs balance start --full-balance "$mnt" > /dev/null 2>&1 &
	sleep 1
}

make_image small_files
measure "send 20,000 files of 1,000 bytes" send_snap
make_image large_file
measure "send one file of 256 MiB, cold" send_snap
measure "send one file of 256 MiB, cached" send_snap warm
make_image snapshots
measure "balance metadata, 200 snapshots" balance_metadata
measure "cancel a balance" cancel_balance start_balance
