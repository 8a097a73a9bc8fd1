#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Files that are replaced without fsync, and another one that is synced, or a commit that is due:
# after a power cut there are the old contents or the new ones.
. "$(dirname "$0")/lib.sh"

OLD="the old settings" NEW="the new settings"

# A power cut: the second disk gets what the first one has by now.
cut_power() { dd if="$DISK1" of="$DISK2" bs=1M count=300 iflag=direct oflag=direct status=none; }

sync_other() { python3 -c 'import os, sys; os.fsync(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY))' "$MNT/other"; }

closed() {
	echo "$NEW" >"$MNT/shell" && echo "$NEW" >/tmp/new && cp /tmp/new "$MNT/copy" && truncate -s 0 "$MNT/truncate" &&
		echo "$NEW" >>"$MNT/truncate" && head -c 300000 /dev/zero | tr '\0' n >"$MNT/large" && sync_other && cut_power
}

# The same with files that are open or mapped as long as this goes on.
in_use() {
	python3 - "$MNT" "$NEW" "$@" <<-'P'
		import mmap, os, subprocess, sys, time
		where, new = sys.argv[1], sys.argv[2].encode() + b"\n"
		name = lambda n: where + "/" + n
		kept = open(name("open"), "wb", buffering=0)
		kept.write(new)
		mapped = os.open(name("mapped"), os.O_RDWR)
		os.ftruncate(mapped, 0)
		os.ftruncate(mapped, len(new))
		memory = mmap.mmap(mapped, len(new))
		memory[:] = new
		renamed = open(name("temporary"), "wb", buffering=0)
		renamed.write(new)
		os.rename(name("temporary"), name("renamed"))
		renamed.seek(0)
		renamed.write(new)
		if sys.argv[3] == "sync":
		    os.fsync(os.open(name("other"), os.O_CREAT | os.O_WRONLY))
		else:
		    # Until a commit is over that began after this: one may be on its way to the
		    # disk.
		    stats = subprocess.check_output("echo /sys/fs/btrfs/*-*/commit_stats", shell=True, text=True).strip()
		    count = lambda: int(open(stats).readline().split()[1])
		    before = count()
		    while count() < before + 2:
		        time.sleep(0.1)
		        os.utime(where)
		subprocess.check_call(["dd", "if=" + sys.argv[4], "of=" + sys.argv[5], "bs=1M", "count=300", "iflag=direct", "oflag=direct", "status=none"])
	P
}

# Both contents are fine for the files that are named; nothing is empty.
old_or_new() {
	local name
	mount -o ro "$DISK2" "$MNT" || return
	for name in "$@"; do
		case $(cat "$MNT/$name") in "$OLD" | "$NEW") ;; *) echo "$name: '$(head -c 40 "$MNT/$name")'" && return 1 ;; esac
	done
	case "$(stat -c %s "$MNT/large") $(tr -d o <"$MNT/large" | wc -c) $(tr -d n <"$MNT/large" | wc -c)" in
	"300000 0 300000" | "300000 300000 0") ;;
	*) echo "large: $(stat -c %s "$MNT/large") bytes" && return 1 ;;
	esac
	umount "$MNT" && check_volume "$DISK2"
}

start() {
	local name
	mkfs.btrfs -q -f -b 300M "$DISK1" && mount -o "commit=$1" "$DISK1" "$MNT" || return
	for name in shell copy truncate open mapped renamed; do echo "$OLD" >"$MNT/$name" || return; done
	head -c 300000 /dev/zero | tr '\0' o >"$MNT/large" && sync -f "$MNT"
}

# New files, written after the last commit and never synced, are in the commits that are due.
flush_on_commit() {
	local before n
	start 1,flushoncommit && exec 8>"$MNT/new" && head -c 3000000 /dev/zero | tr '\0' n >&8 || return
	head -c 2000 /dev/zero | tr '\0' n >"$MNT/small"
	before=$(commits)
	for n in $(seq 100); do
		[ "$(commits)" -lt $((before + 2)) ] || break
		sleep 0.1
		touch "$MNT"
	done
	cut_power && exec 8>&- && umount "$MNT" && mount -o ro "$DISK2" "$MNT" || return
	check_text "$MNT/new" 3000000 && check_text "$MNT/small" 2000 && umount "$MNT" && check_volume "$DISK2"
}

commits() { sed -n 's/^commits //p' /sys/fs/btrfs/*-*/commit_stats; }

# A file of so many letters n.
check_text() {
	[ "$(tr -d n <"$1" | wc -c) $(wc -c <"$1")" = "0 $2" ] || { echo "$1: $(stat -c %s "$1") bytes, expected $2" && return 1; }
}

plan 10
load_rbtrfs
check "a volume with files" start 300
check "files that are closed, and another's fsync" closed
umount "$MNT"
check "leave the old or the new after a power cut" old_or_new shell copy truncate
check "the volume again" start 300
check "files that are open or mapped, and another's fsync" in_use sync "$DISK1" "$DISK2"
umount "$MNT"
check "leave the old or the new after a power cut" old_or_new open mapped renamed
check "the volume again, with frequent commits" start 1
check "files that are open or mapped, and a commit that is due" in_use due "$DISK1" "$DISK2"
umount "$MNT"
check "leave the old or the new after a power cut" old_or_new open mapped renamed
check "flushoncommit has all data in a commit that is due" flush_on_commit
finish
