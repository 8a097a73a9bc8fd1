# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Send and balance.
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
