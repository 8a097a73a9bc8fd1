#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Fills the volume mounted at $1, by the C driver, with everything that reading has to get right.
set -eu
cd "$1"

mkdir -p dir/deep/er many
for i in $(seq 1 400); do
	echo "content $i" >"many/file-number-$i"
done
printf inline >inline
: >empty
head -c 3000000 /dev/urandom >random
head -c 100000 /dev/zero >zeros
for method in zlib lzo zstd; do
	touch "large.$method" "small.$method"
	btrfs property set "large.$method" compression $method
	btrfs property set "small.$method" compression $method
	yes "a line that $method makes short" | head -c 1000000 >"large.$method" || true
	# Short enough to be inline.
	yes "a line that $method makes short" | head -c 1500 >"small.$method" || true
done
truncate -s 10M sparse
printf data | dd of=sparse bs=1 seek=5000000 conv=notrunc status=none
fallocate -l 2M preallocated
printf x | dd of=preallocated bs=1 seek=1000000 conv=notrunc status=none
touch beyond
fallocate -n -l 4M beyond
head -c 10000 /dev/urandom | dd of=beyond conv=notrunc status=none
touch unchecked
chattr +C unchecked
head -c 200000 /dev/urandom >unchecked

ln random hardlink
# More names than one item holds.
for i in $(seq 1 150); do
	ln inline "dir/a-rather-long-name-of-one-and-the-same-file-$i"
done
ln -s random symlink
ln -s /nowhere/to/be/found dangling
ln -s "$(printf 'x%.0s' $(seq 1 3900))" long-symlink
mknod null c 1 3
mknod block b 8 17
mkfifo fifo
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'

setfattr -n user.short -v 1 inline
setfattr -n user.long -v "$(printf 'y%.0s' $(seq 1 3000))" random
setfattr -n trusted.attribute -v 2 dir
setfattr -n security.attribute -v 3 dir
setfacl -m u:1234:rwx,g:55:r dir inline
setfacl -d -m u:99:rx dir
chmod 4755 zeros
chown 1000:1001 dir/deep
touch immutable append
chattr +i immutable
chattr +a append
chattr +d zeros
touch -d '1950-01-01 00:00:00.123456789' past
touch -d '2200-01-01' future

btrfs -q subvolume create sub
cp -r dir sub/
btrfs -q subvolume create sub/nested
echo n >sub/nested/file
btrfs -q subvolume snapshot -r sub snapshot
btrfs -q subvolume snapshot sub dir/writable
echo more >dir/writable/more
rm "dir/writable/dir/a-rather-long-name-of-one-and-the-same-file-1"
mkdir $'odd name\twith\nall'
echo e >$'odd name\twith\nall/\303\251'
sync
