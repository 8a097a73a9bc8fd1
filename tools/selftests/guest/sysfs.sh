#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# /sys/fs/btrfs: the files of a mounted volume are those of the C driver and say the same, but for
# what is listed here. What is in use, and where, shows without a commit.
. "$(dirname "$0")/lib.sh"

# Not supported: quotas, background discard, balance that starts by itself. A driver's own: what it
# keeps back for itself, its times, its backing device, and whether it counts a device as writeable
# that is mounted read-only.
differ='^\./(discard|qgroups)/|^\./bg_reclaim_threshold$|/(global_rsv_|bytes_(may_use|pinned|reserved))'
differ+='|^\./(commit_stats|bdi|send_in_progress|send_balance|oldest_epoch_age_ms)|/writeable$'

# Every file and link below a directory, with its contents.
dump() {
	(
		cd "$1" || exit
		find . \( -type f -o -type l \) | sort | grep -vE "$differ" | while read -r file; do
			if [ -L "$file" ]; then
				echo "$file -> $(readlink -f "$file")"
			else
				sed "s|^|$file: |" "$file"
			fi
		done
	)
}

# field FILE NAME: one of the values in a file of several.
field() { awk -v name="$2" '$1 == name { print $2 }' "$1"; }

load_btrfs
mkfs.btrfs -q -f -m dup -d single -O block-group-tree "$DISK1" || bail "no volume"
mount -t btrfs -o compress=zstd "$DISK1" "$MNT" || bail "the volume does not mount"
head -c 20M /dev/urandom >"$MNT/file" && cp /bin/bash "$MNT/" && umount "$MNT" || bail "the volume could not be filled"
dir=/sys/fs/btrfs/$(blkid -o value -s UUID "$DISK1")

plan 24
mount -t btrfs -o ro "$DISK1" "$MNT" && dump "$dir" >/tmp/sysfs.c && umount "$MNT" || bail "nothing to compare with"
ls /sys/fs/btrfs/features >/tmp/sysfs.c.features
unload_btrfs
load_rbtrfs
mount -t btrfs -o ro "$DISK1" "$MNT" || bail "the volume does not mount"
dump "$dir" >/tmp/sysfs.rust
# A profile that no block group has ever had has no directory in C.
grep -vxF -f /tmp/sysfs.c /tmp/sysfs.rust | grep -vE '^\./allocation/[a-z]+/(single|dup)/[a-z]+_bytes: 0$' >/tmp/sysfs.more
check_equal "every file of the C driver is there and says the same" "" "$(grep -vxF -f /tmp/sysfs.rust /tmp/sysfs.c)"
check_equal "no file says what the C driver does not" "" "$(cat /tmp/sysfs.more)"
check_equal "all features are features of the C driver" "" "$(ls /sys/fs/btrfs/features | grep -vxF -f /tmp/sysfs.c.features)"
check "the device is linked to" test "$(readlink -f "$dir/devices/${DISK1##*/}")" = "$(readlink -f "/sys/class/block/${DISK1##*/}")"
check "so is its bdi" test -e "$dir/bdi/read_ahead_kb"
umount "$MNT"

mount -t btrfs "$DISK1" "$MNT" || bail "the volume does not mount"
check_equal "no commit yet" 0 "$(field "$dir/commit_stats" commits)"
btrfs balance start -mconvert=single -sconvert=single -f "$MNT" >/dev/null || bail "balance failed"
check "commits are counted" test "$(field "$dir/commit_stats" commits)" -gt 1
check_equal "the time of all is that of the longest or more" yes "$(
	[ "$(field "$dir/commit_stats" total_commit_ms)" -ge "$(field "$dir/commit_stats" max_commit_ms)" ] && echo yes)"
check_fails "what makes no sense is not stored" "Invalid argument" bash -c "echo 7 >$dir/commit_stats"
check "the longest time is forgotten" bash -c "echo 0 >$dir/commit_stats"
check_equal "it is gone" 0 "$(field "$dir/commit_stats" max_commit_ms)"
check "a conversion shows" test "$(cat "$dir/allocation/metadata/single/total_bytes")" -gt 0
check_equal "nothing is left of the other profile" 0 "$(cat "$dir/allocation/metadata/dup/total_bytes")"
umount "$MNT"

# df shows what is in use now, not what was in use at the last commit: data that was written, and
# what was removed.
used_mib() { df -B 1M --output=used "$MNT" | tail -n 1 | tr -d ' '; }
data_mib() { btrfs filesystem df -b "$MNT" | sed -n 's/^Data, .*used=//p' | awk '{ print int($1 / 1048576) }'; }
# Writes a file's data to the disk, and nothing else.
written() {
	python3 -c "
import ctypes, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
call = libc.sync_file_range
call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
sys.exit(call(file, 0, 0, 7))" "$1"
}
mount -t btrfs -o commit=600 "$DISK1" "$MNT" || bail "the volume does not mount"
sync -f "$MNT"
generation=$(cat "$dir/generation") used=$(used_mib) data=$(data_mib)
head -c 40M /dev/urandom >"$MNT/more" && written "$MNT/more" || bail "no file"
check_equal "nothing was committed" "$generation" "$(cat "$dir/generation")"
check "df shows what was written" test $(($(used_mib) - used)) -ge 40
check_equal "so does btrfs filesystem df" 40 $(($(data_mib) - data))
rm "$MNT/more" && sync -f "$MNT"
check "what was removed is free" test $(($(used_mib) - used)) -le 1
check_equal "to btrfs filesystem df as well" "$data" "$(data_mib)"

# The map of extents is that of now, and nothing is committed for it.
flagged() { filefrag -v "$MNT/$1" | grep -q "[ ,]$2"; }
generation=$(cat "$dir/generation")
head -c 256K /dev/urandom >"$MNT/mapped"
check "data in memory has no place yet" flagged mapped delalloc
filefrag -s "$MNT/mapped" >/dev/null
check "and has one once it was written" bash -c "filefrag -v $MNT/mapped | grep -q ': *0\.\. *63:.*[1-9].*eof' && ! filefrag -v $MNT/mapped | grep -q delalloc"
cp --reflink=always "$MNT/mapped" "$MNT/clone"
check "a clone shares" flagged clone shared
check "so does the original" flagged mapped shared
rm "$MNT/clone"
check_equal "until it is gone" 0 "$(filefrag -v "$MNT/mapped" | grep -c shared)"
check_equal "nothing was committed for all that" "$generation" "$(cat "$dir/generation")"
umount "$MNT"
finish
