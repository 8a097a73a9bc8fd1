# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# How the benchmarks measure, in the guest: prints one line "CASE DRIVER ROUND SECONDS" for each,
# notes on standard error.
#
# A case is an image made once by the C driver. In each round both drivers get a fresh copy of it on
# the second disk, mount it with cold caches and do the same; which one goes first changes from
# round to round.
set -euo pipefail
rounds=${rounds:-5}
if [ -b /dev/ubda ]; then master=/dev/ubda copy=/dev/ubdb; else master=/dev/vda copy=/dev/vdb; fi
module=$PWD/rbtrfs.ko
work=$(mktemp -d)
mnt=$work/volume
mkdir "$mnt"

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
measure() { each "$1" by_clock "$2" "${3:-true}"; }

by_clock() {
	local start
	"$2"
	start=$(now)
	"$1"
	seconds=$(echo "$(now) $start" | awk '{ print $1 - $2 }')
}

# each CASE COMMAND...: runs COMMAND on the mounted copy for each driver and round; it leaves the
# time in $seconds.
each() {
	local name=$1 round driver order seconds
	shift
	for round in $(seq "$rounds"); do
		order="btrfs rbtrfs"
		[ $((round % 2)) = 1 ] || order="rbtrfs btrfs"
		for driver in $order; do
			dd if="$master" of="$copy" bs=4M conv=sparse,fsync status=none
			load "$driver"
			mount -t btrfs "$copy" "$mnt"
			sync
			echo 3 > /proc/sys/vm/drop_caches
			"$@"
			printf '%s\t%s\t%s\t%s\n' "$name" "$driver" "$round" "$seconds"
			umount "$mnt"
			unload "$driver"
		done
		note "$name: round $round of $rounds"
	done
	btrfs check --check-data-csum "$copy" > "$work/check" 2>&1 || { cat "$work/check" >&2; exit 1; }
}
