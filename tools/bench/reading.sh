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
# What changed since a parent, in large volumes: a few names, and one place in a file of many
# extents.
renames() {
	small_files
	local i
	for i in $(seq 0 499); do
		mv "$mnt/s/d$((i % 20))/file-$i" "$mnt/s/d$((i % 20))/renamed-$i"
	done
	btrfs subvolume snapshot -r "$mnt/s" "$mnt/later" > /dev/null
}
many_extents() {
	btrfs subvolume create "$mnt/s" > /dev/null
	python3 - "$mnt/s" <<-'P'
		import fcntl, os, struct, sys
		block = os.open(f"{sys.argv[1]}/block", os.O_CREAT | os.O_RDWR)
		os.write(block, os.urandom(8192))
		file = os.open(f"{sys.argv[1]}/file", os.O_CREAT | os.O_RDWR)
		# FICLONERANGE, of one block and the other in turns, which cannot be merged.
		for n in range(200000):
		    fcntl.ioctl(file, 0x4020940D, struct.pack("qQQQ", block, n % 2 * 4096, 4096, n * 4096))
	P
	btrfs subvolume snapshot -r "$mnt/s" "$mnt/snap" > /dev/null
	printf x | dd of="$mnt/s/file" bs=1 seek=400000000 conv=notrunc status=none
	btrfs subvolume snapshot -r "$mnt/s" "$mnt/later" > /dev/null
}
send_changes() { btrfs send -q -p "$mnt/snap" "$mnt/later" > /dev/null; }
# One change is sent in milliseconds, and the program takes a hundred times as long to start from a
# cold disk, so that the ioctl itself is timed, many times over: the median of 20 sends, each after
# 3 as drop_caches, or 0 for warm ones. The stream fits into the pipe.
send_ioctl() {
	local parent
	parent=$(btrfs inspect-internal rootid "$mnt/snap")
	seconds=$(python3 - "$mnt/later" "$parent" "$1" <<-'P'
		import array, fcntl, os, statistics, struct, sys, time
		later, parent, drop = os.open(sys.argv[1], os.O_RDONLY), int(sys.argv[2]), sys.argv[3]
		clones = array.array("Q", [parent])
		def send():
		    if drop != "0":
		        with open("/proc/sys/vm/drop_caches", "w") as caches:
		            caches.write(drop)
		    out, into = os.pipe()
		    # struct btrfs_ioctl_send_args, as `btrfs send -p` fills it.
		    args = struct.pack("qQQQQI28x", into, 1, clones.buffer_info()[0], parent, 0, 0)
		    start = time.monotonic()
		    fcntl.ioctl(later, 0x40489426, args)
		    took = time.monotonic() - start
		    os.close(into)
		    if len(os.read(out, 65536)) < 4096:
		        sys.exit("the change was not sent")
		    os.close(out)
		    return took
		send()
		print(statistics.median(send() for _ in range(20)))
	P
	)
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
make_image renames
measure "send what 500 renames in 20,000 files changed" send_changes
make_image many_extents
each "send one change in 200,000 extents, cold" send_ioctl 3
each "send one change in 200,000 extents, cached" send_ioctl 0
