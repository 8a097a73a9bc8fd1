#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What was synced is there after a power cut: rbtrfs puts it into a log, which itself and the C
# driver replay with the same outcome. A database keeps every row that it was told is safe.
. "$(dirname "$0")/lib.sh"

SEEDS=6 ROWS=150

program() { python3 "$CHECKOUT/tools/selftests/guest/fsync_program.py" "$MNT" "$@"; }

# Everything but times.
digest() {
	(cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum
	find . -printf '%p %y %m %U %G %s %n %l\n' | LC_ALL=C sort
	getfattr -R -h -d -m - . 2>/dev/null | LC_ALL=C sort)
}
has_log() { btrfs inspect-internal dump-super "$1" | awk '$1 == "log_root" { exit $2 == 0 }'; }
copy() { dd if="$1" of="$2" bs=1M count=256 iflag=direct oflag=direct status=none; }
fresh() { mkfs.btrfs -q -f -b 256M "$DISK1" && mount -t rbtrfs -o commit=600 "$DISK1" "$MNT"; }

# run_random SEED: the volume as a power cut leaves it, replayed by both drivers.
run_random() {
	fresh && program random "$1" && program cut && umount "$MNT" || return
	has_log "$DISK1" && echo "$1" >>/tmp/logs
	copy "$DISK1" "$DISK2" && mount -t rbtrfs "$DISK1" "$MNT" && digest "$MNT" >/tmp/fsync.rust || return
	umount "$MNT" && check_volume "$DISK1" && wipefs -q -a "$DISK1" || return
	btrfs device scan --forget 2>/dev/null
	mount -t btrfs "$DISK2" "$MNT" && digest "$MNT" >/tmp/fsync.c && umount "$MNT" || return
	check_volume "$DISK2" && wipefs -q -a "$DISK2" && diff /tmp/fsync.c /tmp/fsync.rust
}

# rows MODE: the database is whole, and has at least the rows that were acknowledged.
rows() {
	python3 - "$MNT/$1.db" "$(tail -n 1 /tmp/rows)" <<-'P'
		import sqlite3, sys
		database = sqlite3.connect(sys.argv[1])
		assert database.execute("pragma integrity_check").fetchone() == ("ok",)
		found = database.execute("select count(*), max(number) from rows").fetchone()
		print(found, sys.argv[2])
		assert found[0] == found[1] and found[0] >= int(sys.argv[2])
	P
}

# run_sqlite MODE
run_sqlite() {
	local writer
	fresh || return
	: >/tmp/rows
	program sqlite "$1" >>/tmp/rows 2>/dev/null &
	writer=$!
	while kill -0 $writer 2>/dev/null && [ "$(wc -l </tmp/rows)" -lt $ROWS ]; do sleep 0.02; done
	program cut || return
	wait $writer
	umount "$MNT" && has_log "$DISK1" && copy "$DISK1" "$DISK2" || return
	mount -t rbtrfs "$DISK1" "$MNT" && rows "$1" && umount "$MNT" && check_volume "$DISK1" || return
	wipefs -q -a "$DISK1"
	btrfs device scan --forget 2>/dev/null
	mount -t btrfs "$DISK2" "$MNT" && rows "$1" && umount "$MNT" && check_volume "$DISK2" && wipefs -q -a "$DISK2"
}

# one_sync OPTION HOW: a file that was synced is there after a power cut, by a log or by a commit.
one_sync() {
	local how
	fresh && mount -o "remount,$1" "$MNT" && echo "$1" >"$MNT/file" && sync "$MNT/file" && program cut || return
	umount "$MNT" && how=commit || return
	has_log "$DISK1" && how=log
	mount -t rbtrfs "$DISK1" "$MNT" && grep -q "$1" "$MNT/file" && umount "$MNT" && wipefs -q -a "$DISK1" && [ $how = "$2" ]
}

load_btrfs
load_rbtrfs fstype=rbtrfs
: >/tmp/logs
plan $((SEEDS + 5))
for seed in $(seq $SEEDS); do
	check "random changes, seed $seed: both drivers replay the same" run_random "$seed"
done
check "most of these had a log" [ "$(wc -l </tmp/logs)" -gt $((SEEDS / 2)) ]
check "with notreelog an fsync is a commit" one_sync notreelog commit
check "and with treelog a log" one_sync treelog log
for mode in delete wal; do
	check "sqlite with journal_mode=$mode keeps every row" run_sqlite $mode
done
finish
