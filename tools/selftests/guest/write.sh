#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Files are written by real programs, received, snapshotted and deleted; the C driver reads the same afterwards.
. "$(dirname "$0")/lib.sh"

LIST=/tmp/write.list

# What a volume holds: every file's contents and attributes.
digest() {
	(cd "$1" && find . -xdev -type f -print0 | sort -z | xargs -0 -r sha256sum
	find . -xdev -printf '%p %y %m %U %G %s %n %T@ %l\n' | LC_ALL=C sort
	getfattr -R -h -d -m - . 2>/dev/null)
}

# The source tree that is copied about.
source_tree() { tar -C "$CHECKOUT" -c --exclude=./build --exclude=./.git --exclude='*.ko' rust/send rust/tree rust/vfs rust/ioctl README.md; }

# A stream of the C driver, full and incremental, and what is in it.
prepare_streams() {
	mkfs.btrfs -q -f "$DISK2" && mount "$DISK2" "$MNT" || return
	btrfs subvolume create "$MNT/sv" >/dev/null || return
	source_tree | tar -C "$MNT/sv" -x
	head -c 3M /dev/urandom >"$MNT/sv/random"
	cp --reflink=always "$MNT/sv/random" "$MNT/sv/clone"
	setfattr -n user.color -v blue "$MNT/sv/random"
	ln "$MNT/sv/random" "$MNT/sv/hard" && ln -s nowhere "$MNT/sv/link" && mkfifo "$MNT/sv/fifo"
	truncate -s 1M "$MNT/sv/sparse"
	btrfs subvolume snapshot -r "$MNT/sv" "$MNT/one" >/dev/null || return
	rm -r "$MNT/sv/rust/send" && mv "$MNT/sv/rust/tree" "$MNT/sv/moved"
	printf changed | dd of="$MNT/sv/random" bs=1 seek=70000 conv=notrunc status=none
	chmod 700 "$MNT/sv/hard" && truncate -s 1000000 "$MNT/sv/clone"
	btrfs subvolume snapshot -r "$MNT/sv" "$MNT/two" >/dev/null || return
	btrfs send -q -f /tmp/one.stream "$MNT/one" && btrfs send -q -p "$MNT/one" -f /tmp/two.stream "$MNT/two" || return
	digest "$MNT/one" >/tmp/one.digest && digest "$MNT/two" >/tmp/two.digest
	umount "$MNT"
}

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
	fio --directory="$MNT" --size=3M --verify=crc32c --verify_fatal=1 --group_reporting --output=/tmp/fio.log \
		--name=random --rw=randwrite --bs=1k-32k --numjobs=2 --fsync=64 --ioengine=psync \
		--name=sequential --rw=write --bs=64k --end_fsync=1 --ioengine=psync \
		--name=mapped --rw=randwrite --bs=4k --ioengine=mmap || { cat /tmp/fio.log && false; }
}

receive() { btrfs receive -q -f "/tmp/$1.stream" "$MNT" && digest "$MNT/$1" | cmp - "/tmp/$1.digest"; }
is_read_only() { [ "$(btrfs property get "$1" ro)" = ro=true ] && ! touch "$1/x" 2>/dev/null; }
snapshots() {
	btrfs subvolume create "$MNT/sub" >/dev/null && cp -a "$MNT/copy/rust" "$MNT/sub/" && echo dirty >"$MNT/sub/dirty" &&
		btrfs subvolume snapshot -r "$MNT/sub" "$MNT/snap" >/dev/null && digest "$MNT/sub" >/tmp/snap.digest &&
		rm -r "$MNT/sub/rust" && echo other >"$MNT/sub/dirty" && digest "$MNT/snap" | cmp - /tmp/snap.digest &&
		btrfs subvolume snapshot "$MNT/snap" "$MNT/writable" >/dev/null && echo new >"$MNT/writable/new" &&
		btrfs subvolume list "$MNT" | grep -q writable && is_read_only "$MNT/snap"
}
subvolume_flags() {
	btrfs property set "$MNT/writable" ro true && is_read_only "$MNT/writable" && btrfs property set "$MNT/writable" ro false &&
		touch "$MNT/writable/again" && mv "$MNT/writable" "$MNT/renamed" && btrfs subvolume show "$MNT/renamed" | grep -q '^renamed'
}
delete_subvolumes() {
	local before
	btrfs subvolume delete "$MNT/renamed" "$MNT/snap" >/dev/null && ! [ -e "$MNT/snap" ] &&
		btrfs subvolume delete -c "$MNT/sub" >/dev/null && timeout 60 btrfs subvolume sync "$MNT" >/dev/null &&
		before=$(btrfs subvolume list "$MNT" | wc -l) && [ "$before" = 2 ]
}

# What sync promised is on the disk while the volume is in use: a copy of the disk shows it.
synced_copy() {
	sync -f "$MNT" && fsfreeze -f "$MNT" && digest "$MNT/copy" >/tmp/copy.digest && dd if="$DISK1" of="$DISK3" bs=1M status=none
	local status=$?
	fsfreeze -u "$MNT"
	return "$status"
}
copy_is_good() {
	local status
	btrfs check --check-data-csum "$DISK3" >/dev/null 2>/tmp/check.log || { cat /tmp/check.log && return 1; }
	btrfstune -m "$DISK3" || return
	mkdir -p /mnt/copy && mount -o ro "$DISK3" /mnt/copy || return
	digest /mnt/copy/copy | cmp - /tmp/copy.digest
	status=$?
	umount /mnt/copy
	return "$status"
}

full_volume() {
	local i out
	for i in $(seq 100); do
		out=$(head -c 16M /dev/zero 2>/dev/null | dd of="$MNT/full/$i" bs=64k 2>&1) || break
	done
	grep -q 'No space left' <<<"$out" || { echo "no ENOSPC: $out" && return 1; }
	sync -f "$MNT" && rm -r "$MNT/full" && sync -f "$MNT" && head -c 16M /dev/zero >"$MNT/after" && sync -f "$MNT" && rm "$MNT/after"
}
remount() {
	echo waiting >"$MNT/waiting" && mount -o remount,ro "$MNT" && ! touch "$MNT/x" 2>/dev/null &&
		mount -o remount,rw "$MNT" && touch "$MNT/x" && rm "$MNT/x"
}
same_list() { digest "$MNT" | cmp - "$LIST"; }

plan 20
load_btrfs
prepare_streams || bail "no streams"
unload_btrfs
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
check "receive a full stream" receive one
check "receive an incremental stream" receive two
check "what was received is read-only" is_read_only "$MNT/two"
check "snapshots" snapshots
check "flags and names of subvolumes" subvolume_flags
check "deleted subvolumes go" delete_subvolumes
check "freeze" synced_copy
mkdir "$MNT/full"
check "a full volume" full_volume
check "remount" remount
sync -f "$MNT"
digest "$MNT" >"$LIST"
umount "$MNT" || bail "the volume does not unmount"
mount "$DISK1" "$MNT" || bail "the volume does not mount again"
check "all of it is there after a remount" same_list
umount "$MNT"
unload_rbtrfs
check "btrfs check finds nothing" check_volume "$DISK1"
load_btrfs
mount "$DISK1" "$MNT"
check "the C driver reads the same" same_list
umount "$MNT"
check "a copy of the disk shows what was synced" copy_is_good
unload_btrfs
finish
