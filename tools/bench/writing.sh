# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Files: made, listed, read, written, removed. What was written is on the disk before the clock
# stops.
empty() { :; }
many_files() {
	btrfs subvolume create "$mnt/s" > /dev/null
	make_files
}
data_file() { head -c 256M /dev/urandom > "$mnt/file"; }

make_files() {
	python3 - "$mnt/s" <<-'P'
		import os, sys
		for d in range(20):
		    path = f"{sys.argv[1]}/d{d}"
		    os.makedirs(path)
		    for f in range(1000):
		        os.close(os.open(f"{path}/file-{f}", os.O_CREAT | os.O_WRONLY))
	P
	sync -f "$mnt"
}
walk_files() { find "$mnt" -printf '%s %n\n' > /dev/null; }
remove_files() { rm -r "$mnt/s/"* && sync -f "$mnt"; }
take_snapshots() {
	local i
	for i in $(seq 10); do
		touch "$mnt/s/d$i/file-$i"
		btrfs subvolume snapshot -r "$mnt/s" "$mnt/snap-$i" > /dev/null
	done
	sync -f "$mnt"
}
# A source tree, as tar has it, from the memory of the guest.
tar -C /usr/lib -cf "$work/tree.tar" python3 python3.13 2> /dev/null || true
unpack() { tar -C "$mnt" -xf "$work/tree.tar" && sync -f "$mnt"; }
write_file() { dd if=/dev/zero of="$mnt/new" bs=1M count=256 conv=fsync status=none; }
read_file() { cat "$mnt/file" > /dev/null; }
fio_on_file() { fio --name=x --filename="$mnt/file" --size=256M --bs=4k --ioengine=psync --randseed=1 --output="$work/fio.log" "$@" || { cat "$work/fio.log" >&2 && false; }; }
write_randomly() { fio_on_file --rw=randwrite --io_size=32M --end_fsync=1; }
read_randomly() { fio_on_file --rw=randread --io_size=16M; }
append_and_sync() {
	python3 - "$mnt/log" <<-'P'
		import os, sys
		log = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
		for _ in range(200):
		    os.write(log, b"x" * 4096)
		    os.fsync(log)
	P
}
# Eight of them at once, each with a log of its own.
append_and_sync_together() {
	python3 - "$mnt" <<-'P'
		import os, sys, threading
		def append(number):
		    log = os.open(f"{sys.argv[1]}/log.{number}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
		    for _ in range(50):
		        os.write(log, b"x" * 4096)
		        os.fsync(log)
		threads = [threading.Thread(target=append, args=(n,)) for n in range(8)]
		for thread in threads:
		    thread.start()
		for thread in threads:
		    thread.join()
	P
}

make_image empty
measure "create 20,000 files" make_files
measure "unpack a tree" unpack
measure "write 256 MiB" write_file
measure "append and fsync, 200 times" append_and_sync
measure "append and fsync, 8 at once, 50 times each" append_and_sync_together
make_image many_files
measure "list and stat 20,000 files" walk_files
measure "remove 20,000 files" remove_files
measure "10 snapshots of 20,000 files" take_snapshots
make_image data_file
measure "read 256 MiB" read_file
measure "read 4 KiB at random, 16 MiB" read_randomly
measure "write 4 KiB at random, 32 MiB" write_randomly
