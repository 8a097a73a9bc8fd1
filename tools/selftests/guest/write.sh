#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Files are written by real programs; btrfs check and the C driver see the same afterwards.
. "$(dirname "$0")/lib.sh"

copy_tree() {
	mkdir "$MNT/tar" && source_tree | tar -C "$MNT/tar" -x && cp -a "$MNT/tar" "$MNT/copy" && diff -r "$MNT/tar" "$MNT/copy" &&
		mkdir /tmp/tree && source_tree | tar -C /tmp/tree -x && diff -r /tmp/tree "$MNT/tar"
}
use_rsync() { rsync -a --delete "$MNT/tar/" "$MNT/rsync" && rm -r "$MNT/rsync/rust/send" && rsync -a --delete "$MNT/tar/" "$MNT/rsync" && diff -r "$MNT/tar" "$MNT/rsync"; }
use_git() {
	local git=(git -C "$MNT/tar" -c user.name=t -c user.email=t@example.org -c safe.directory='*')
	"${git[@]}" init -q . && "${git[@]}" add -A && "${git[@]}" commit -q -m one &&
		echo more >>"$MNT/tar/README.md" && "${git[@]}" commit -q -am two && "${git[@]}" gc -q && "${git[@]}" fsck --full &&
		git -c safe.directory='*' clone -q "$MNT/tar" "$MNT/clone" && diff -r --exclude=.git "$MNT/tar" "$MNT/clone"
}
use_fio() {
	fio --directory="$MNT" --size=3M --verify=crc32c --verify_fatal=1 --verify_state_save=0 --group_reporting --output=/tmp/fio.log \
		--name=random --rw=randwrite --bs=1k-32k --numjobs=2 --fsync=64 --ioengine=psync \
		--name=sequential --rw=write --bs=64k --end_fsync=1 --ioengine=psync \
		--name=mapped --rw=randwrite --bs=4k --ioengine=mmap || { cat /tmp/fio.log && false; }
}

# What is written to preallocated space needs no other, even if a part of that space is shared
# before it is on disk.
share_preallocated() {
	python3 -c 'import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, b"x" * 1048576, 1048576)
fcntl.ioctl(fd, 0x4020940D, struct.pack("qQQQ", fd, 0, 4096, 8388608))
os.fsync(fd)' "$1" && [ "$(tail -c +1048577 "$1" | head -c 1M | tr -d x | wc -c)" = 0 ]
}
# The same if a snapshot comes to share all of it while the file is written to: write() may fail
# then, fsync() may not, and what write() took is there.
snapshot_preallocated() {
	python3 - "$1" <<-'P'
		import os, subprocess, sys, threading
		fd = os.open(sys.argv[1] + "/file", os.O_RDWR)
		taken = 0
		some = threading.Event()

		def write():
		    global taken
		    try:
		        while taken < 2048:
		            os.pwrite(fd, b"x" * 4096, taken * 4096)
		            taken += 1
		            taken < 100 or some.set()
		    except OSError as e:
		        print(e)
		    some.set()

		writer = threading.Thread(target=write)
		writer.start()
		some.wait()
		subprocess.run(["btrfs", "-q", "subvolume", "snapshot", sys.argv[1], sys.argv[1] + "/snapshot"], check=True)
		writer.join()
		os.fsync(fd)
		os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
		print(taken, "blocks of 2048")
		sys.exit(taken < 100 or os.pread(fd, taken * 4096, 0) != b"x" * 4096 * taken)
	P
}
full_volume() {
	local i out
	fallocate -l 4M "$MNT/preallocated" || return
	for i in $(seq 8); do
		btrfs -q subvolume create "$MNT/full/sub$i" && fallocate -l 8M "$MNT/full/sub$i/file" || return
	done
	for i in $(seq 100); do
		out=$(head -c 16M /dev/zero 2>/dev/null | dd of="$MNT/full/$i" bs=64k 2>&1) || break
	done
	grep -q 'No space left' <<<"$out" || { echo "no ENOSPC: $out" && return 1; }
	sync -f "$MNT" && share_preallocated "$MNT/preallocated" || return
	for i in $(seq 8); do
		snapshot_preallocated "$MNT/full/sub$i" || return
	done
	btrfs -q subvolume delete "$MNT"/full/sub*/snapshot "$MNT"/full/sub* && rm -r "$MNT/full" && sync -f "$MNT" &&
		head -c 16M /dev/zero >"$MNT/after" && sync -f "$MNT" && rm "$MNT/after"
}
remount() {
	echo waiting >"$MNT/waiting" && mount -o remount,ro "$MNT" && ! touch "$MNT/x" 2>/dev/null &&
		mount -o remount,rw "$MNT" && touch "$MNT/x" && rm "$MNT/x"
}
plan 14
load_rbtrfs
mkfs.btrfs -q -f -b 300M "$DISK1" && mount "$DISK1" "$MNT" || bail "the volume does not mount"

check "tar and cp -a" copy_tree
check "rsync" use_rsync
check "git" use_git
check "fio with verify" use_fio
mkdir "$MNT/calls"
check "system calls" python3 "$GUEST_TESTS/write_calls.py" "$MNT/calls"
check "acls" sh -c "cd $MNT && mkdir acl && setfacl -d -m u:5:rw acl && touch acl/f && setfacl -m g:6:r acl/f && getfacl -cn acl/f | grep -q '^user:5:rw' && getfacl -cn acl/f | grep -q '^group:6:r--' && chmod 600 acl/f && getfacl -cn acl/f | grep -q '^mask::---'"
check "chattr" sh -c "cd $MNT && echo x >attr && chattr +i attr && ! rm -f attr && chattr -i +a attr && echo y >>attr && ! sh -c 'echo z >attr' && chattr -a attr"
mkdir "$MNT/full"
check "a full volume" full_volume
check "remount" remount
check_kept "$DISK1"
finish
