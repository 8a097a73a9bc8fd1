#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Subvolumes: received from the C driver's streams, made, snapshotted, changed and deleted; a frozen
# volume is on disk.
. "$(dirname "$0")/lib.sh"

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
	tree_digest "$MNT/one" >/tmp/one.digest && tree_digest "$MNT/two" >/tmp/two.digest
	umount "$MNT"
}

receive() { btrfs receive -q -f "/tmp/$1.stream" "$MNT" && tree_digest "$MNT/$1" | cmp - "/tmp/$1.digest"; }
is_read_only() { [ "$(btrfs property get "$1" ro)" = ro=true ] && ! touch "$1/x" 2>/dev/null; }
snapshots() {
	mkdir "$MNT/tree" && source_tree | tar -C "$MNT/tree" -x &&
		btrfs subvolume create "$MNT/sub" >/dev/null && cp -a "$MNT/tree/rust" "$MNT/sub/" && echo dirty >"$MNT/sub/dirty" &&
		btrfs subvolume snapshot -r "$MNT/sub" "$MNT/snap" >/dev/null && tree_digest "$MNT/sub" >/tmp/snap.digest &&
		rm -r "$MNT/sub/rust" && echo other >"$MNT/sub/dirty" && tree_digest "$MNT/snap" | cmp - /tmp/snap.digest &&
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

# Who has files open in a deleted subvolume goes on using them; it is dropped when they are closed.
deleted_in_use() {
	btrfs subvolume create "$MNT/used" >/dev/null && mkdir "$MNT/used/dir" && seq 20000 >"$MNT/used/file" && seq 9 >"$MNT/used/dir/other" &&
		sync -f "$MNT" && exec 7<>"$MNT/used/file" 8<"$MNT/used/dir" && btrfs subvolume delete -c "$MNT/used" >/dev/null || return
	! timeout 5 btrfs subvolume sync "$MNT" >/dev/null || { echo "dropped while in use" && return 1; }
	seq 30000 >&7 && sync -f "$MNT" && echo 3 >/proc/sys/vm/drop_caches && seq 30000 | cmp - /proc/self/fd/7 &&
		seq 9 | cmp - /proc/self/fd/8/other || return
	exec 7>&- 8<&-
	timeout 60 btrfs subvolume sync "$MNT" >/dev/null && ! btrfs subvolume list -d "$MNT" | grep -q .
}

# In a snapshot, an entry for a subvolume leads to an empty directory that takes attributes for as
# long as it is in use.
stubs() {
	local dir snapshot
	btrfs -q subvolume create "$MNT/outer" && btrfs -q subvolume create "$MNT/outer/inner" && touch "$MNT/outer/file" &&
		btrfs -q subvolume snapshot "$MNT/outer" "$MNT/stubs" && btrfs -q subvolume snapshot -r "$MNT/outer" "$MNT/stubs-read-only" || return
	chown -R 9:9 "$MNT/stubs" && chmod -R g+w "$MNT/stubs" && [ "$(stat -c %u:%a "$MNT/stubs/file")" = 9:664 ] || return
	for snapshot in stubs stubs-read-only; do
		dir=$MNT/$snapshot/inner
		chown 8 "$dir" && chmod 700 "$dir" && touch -d @1 "$dir" || return
		[ "$(stat -c %i:%a:%F "$dir")" = "2:755:directory" ] || { stat "$dir" && return 1; }
		[ -z "$(ls -A "$dir")" ] && [ "$(stat -c %d "$dir")" != "$(stat -c %d "$MNT/$snapshot")" ] &&
			[ "$(stat -c %Hd "$dir")" = 0 ] && [ "$(stat -c %W "$dir")" = 0 ] || { stat "$dir" && return 1; }
		! touch "$dir/x" 2>/tmp/stub.error && grep -q 'Permission denied' /tmp/stub.error || { cat /tmp/stub.error && return 1; }
		! mkdir "$dir/x" 2>/tmp/stub.error && grep -q 'not permitted' /tmp/stub.error || { cat /tmp/stub.error && return 1; }
		! mv "$MNT/stubs/file" "$dir/x" 2>/tmp/stub.error && grep -q 'not permitted' /tmp/stub.error || { cat /tmp/stub.error && return 1; }
		! setfattr -n user.x -v y "$dir" 2>/tmp/stub.error && grep -q 'not supported' /tmp/stub.error || { cat /tmp/stub.error && return 1; }
	done
	rmdir "$MNT/stubs/inner" && ! [ -e "$MNT/stubs/inner" ] && ! rmdir "$MNT/stubs-read-only/inner" 2>/dev/null &&
		btrfs -q subvolume delete "$MNT/stubs" "$MNT/stubs-read-only" "$MNT/outer/inner" "$MNT/outer"
}

# Who has a file open for writing when its subvolume turns read-only: what was taken is kept, no
# more is taken.
open_when_read_only() {
	btrfs -q subvolume create "$MNT/flipped" && python3 - "$MNT/flipped" <<-'P' || return
		import errno, mmap, os, subprocess, sys, threading

		path = sys.argv[1]
		def set_read_only(value):
		    subprocess.run(["btrfs", "property", "set", path, "ro", value], check=True)
		def fails(call, *args):
		    try:
		        call(*args)
		    except OSError as e:
		        assert e.errno == errno.EROFS, e
		    else:
		        raise AssertionError(call)
		def write():
		    global taken
		    try:
		        while True:
		            taken += os.pwrite(file, b"x" * 1000, taken)
		    except OSError as e:
		        assert e.errno == errno.EROFS, e

		file = os.open(path + "/file", os.O_CREAT | os.O_RDWR)
		mapped = os.open(path + "/mapped", os.O_CREAT | os.O_RDWR)
		os.pwrite(mapped, b"a" * 8192, 0)
		for _ in range(5):
		    taken = os.fstat(file).st_size
		    memory = mmap.mmap(mapped, 8192)
		    memory[0] = ord("b")
		    writer = threading.Thread(target=write)
		    writer.start()
		    while taken < 100000:
		        pass
		    set_read_only("true")
		    writer.join()
		    fails(os.ftruncate, file, 1)
		    fails(os.fchmod, file, 0o600)
		    fails(os.setxattr, file, "user.x", b"y")
		    assert os.fstat(file).st_size == taken and os.fstat(file).st_mode & 0o777 == 0o755, os.fstat(file)
		    os.fsync(file)
		    # Through a mapping there is no error to be told but a signal.
		    child = os.fork()
		    if child == 0:
		        memory[1] = ord("c")
		        os._exit(0)
		    assert os.waitpid(child, 0)[1] == 7
		    with open("/proc/sys/vm/drop_caches", "w") as caches:
		        caches.write("3")
		    assert os.pread(file, taken + 1, 0) == b"x" * taken
		    assert os.pread(mapped, 8192, 0) == b"b" + b"a" * 8191
		    set_read_only("false")
		os.pwrite(file, b"y", 0)
		set_read_only("true")
	P
	umount "$MNT" && mount "$DISK1" "$MNT" && [ "$(tr -d x <"$MNT/flipped/file")" = y ] && btrfs -q subvolume delete "$MNT/flipped"
}

# What sync promised is on the disk while the volume is in use: a copy of the disk shows it.
synced_copy() {
	sync -f "$MNT" && fsfreeze -f "$MNT" && tree_digest "$MNT/tree" >/tmp/copy.digest && dd if="$DISK1" of="$DISK3" bs=1M count=600 status=none
	local status=$?
	fsfreeze -u "$MNT"
	return "$status"
}
copy_is_good() {
	local status
	btrfs check --check-data-csum "$DISK3" >/dev/null 2>/tmp/check.log || { cat /tmp/check.log && return 1; }
	btrfstune -m "$DISK3" || return
	mkdir -p /mnt/copy && mount -o ro "$DISK3" /mnt/copy || return
	tree_digest /mnt/copy/tree | cmp - /tmp/copy.digest
	status=$?
	umount /mnt/copy
	return "$status"
}

# Drivers look through a UUID tree that the superblock does not say is right; mkfs.btrfs makes such
# volumes.
uuid_checks() { dmesg | grep -c "(device $(basename "$DISK1")).*checking UUID tree"; }
knows_uuids() {
	btrfs inspect-internal dump-super "$DISK1" | awk '{ of[$1] = $2 } END { exit of["generation"] != of["uuid_tree_generation"] }'
}

plan 20
checks=$(uuid_checks)
load_btrfs
prepare_streams || bail "no streams"
unload_btrfs
load_rbtrfs
mkfs.btrfs -q -f -b 600M "$DISK1" && mount "$DISK1" "$MNT" || bail "the volume does not mount"
check "receive a full stream" receive one
check "receive an incremental stream" receive two
check "what was received is read-only" is_read_only "$MNT/two"
check "snapshots" snapshots
check "flags and names of subvolumes" subvolume_flags
check "deleted subvolumes go" delete_subvolumes
check "a deleted subvolume in use" deleted_in_use
check "an empty subvolume goes like a folder" sh -c "btrfs subvolume create $MNT/empty >/dev/null && rmdir $MNT/empty && ! [ -e $MNT/empty ]"
check "stub directories" stubs
check "a file is open for writing when its subvolume turns read-only" open_when_read_only
check "the default subvolume is set" sh -c "btrfs subvolume set-default $MNT/one && btrfs subvolume get-default $MNT | grep -q 'path one' && btrfs subvolume set-default 5 $MNT"
check "freeze" synced_copy
check_kept "$DISK1"
load_btrfs
check_equal "the UUID tree was checked once, by the first mount" $((checks + 1)) "$(uuid_checks)"
check "and is known to be right" knows_uuids
check "a copy of the disk shows what was frozen" copy_is_good
unload_btrfs
finish
