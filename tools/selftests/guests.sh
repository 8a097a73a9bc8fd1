#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# guests.sh KERNEL [short]: what qemu/run promises of a guest, and checkouts in every kind of place.
# Runs on the host, as root, and prints KTAP. The short form is for kernels that are slow to boot.
set -u
cd "$(dirname "$0")/../.." || exit
kernel=${1:?}
short=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
number=0 failed=0

result() { # STATUS NAME
	number=$((number + 1))
	if [ "$1" = 0 ]; then
		echo "ok $number $2"
	else
		sed 's/^/# /' "$work/err" "$work/out" | tail -n 30
		echo "not ok $number $2"
		failed=1
	fi
}

# run ARGUMENT...: a guest, with its outputs and its status kept.
run() {
	timeout 900 "${from:-.}/qemu/run" --kernel "$kernel" --module none "$@" >"$work/out" 2>"$work/err"
	status=$?
}
# ends NAME STATUS OUTPUT: whether the last guest ended so.
ends() { result "$([ "$status" = "$2" ] && [ "$(<"$work/out")" = "$3" ]; echo $?)" "$1"; }
says() { result "$(grep -q -- "$2" "$work/err"; echo $?)" "$1"; }
# Nothing of the guests that were started with --append "$mark" is left after a few seconds.
mark=rbtrfs.mark=$$.$RANDOM
all_gone() {
	local _
	for _ in $(seq 50); do
		grep -qsF -- "$mark" /proc/[0-9]*/cmdline || { result 0 "$1" && return; }
		sleep 0.2
	done
	result 1 "$1"
}

echo "TAP version 13"
run -- sh -c 'echo output; echo complaint >&2; exit 7'
ends "the status and the output are the command's" 7 output
says "what it complains of comes apart" '^complaint$'
run -- sh -c 'mkdir /run/job; echo x >/run/out && echo y >/run/err && cat /run/out'
ends "names in /run are the command's own" 0 x
if [ "$kernel" != uml ]; then
	# More memory than there are addresses for.
	run --memory 999999G --timeout 60 -- true
	ends "a machine that cannot start is not waited for" 125 ""
	says "and its reason is shown" 'memory'
fi

# place NAME FOLDER: the guest of a checkout there sees it there, may write to it, and has other
# folders around it for itself.
place() {
	local file=place.$number
	from=$2 run --timeout 300 -- sh -c 'touch "$1/build/$2" && [ "$PWD" = "$1" ] && touch /tmp/x /run/x /root/x /mnt/x && echo written' sh \
		"$(cd "$2" && pwd -P)" "$file"
	ends "a checkout in $1" 0 written
	result "$(rm "build/$file"; echo $?)" "which the guest wrote to"
}
# bound NAME FOLDER: the same of this checkout, mounted there for the time being.
bound() {
	mkdir -p "$2" && mount --bind . "$2" || { result 1 "a checkout in $1" && return; }
	place "$1" "$2"
	umount "$2" && rmdir "$2"
}
mkdir -p build
if [ -n "$short" ]; then
	bound "/tmp" "/tmp/rbtrfs place.$$, a"
	echo "1..$number"
	exit "$failed"
fi
for folder in /tmp /run /root /mnt /mnt/test /dev/shm /home /usr/local /opt; do
	bound "$folder" "$folder/rbtrfs-place.$$"
done
bound "a path with spaces and more" "/tmp/place $$/a, b:c ü"
rmdir "/tmp/place $$"
ln -s "$PWD" "$work/link"
place "a symbolic link" "$work/link"
for folder in / /tmp /run /usr/src; do
	# Only these scripts, as nothing else may be looked at before it is refused.
	unshare --mount sh -c 'mkdir -p "$2/qemu" && mount --bind qemu "$2/qemu" && "$2/qemu/$1" stock' sh build-module "$folder" \
		>"$work/out" 2>"$work/err"
	result "$([ $? != 0 ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q 'belongs to the system' "$work/err"; echo $?)" \
		"$folder itself is refused, in one line"
done

run -- sh -c 'head -c 3000000 /dev/urandom >/tmp/x; head -c 3000000 /dev/zero >/tmp/y; cat /tmp/y >&2 & cat /tmp/x; wait; md5sum /tmp/x >build/sum'
result "$([ "$(md5sum <"$work/out" | cut -d' ' -f1)" = "$(cut -d' ' -f1 build/sum)" ]; echo $?)" "every byte of the output arrives"
result "$([ "$(wc -c <"$work/err")" = 3000000 ]; echo $?)" "and every byte of the complaints"
rm -f build/sum

run -- sh -c 'sleep 1000 & echo over'
ends "a process that is left behind holds nobody up" 0 over
run --module btrfs -- sh -c 'lsmod | grep -o "^btrfs"'
ends "a module is loaded" 0 btrfs

truncate -s 64M "$work/disk"
run --disk 32M --disk "$work/disk" -- sh -c 'for d in /dev/vd /dev/ubd; do [ ! -b ${d}a ] || { blockdev --getsize64 ${d}a ${d}b; echo kept >${d}b; }; done'
ends "disks are empty ones or files" 0 $'33554432\n67108864'
result "$([ "$(head -c 4 "$work/disk")" = kept ]; echo $?)" "which are changed in place"
run -- sh -c 'touch /etc/mine && free -m | awk "/^Mem/ { print (\$2 > 600 ? \"large\" : \"small\") }"' 
ends "a guest writes to its root" 0 large
run --memory 512M -- sh -c '[ ! -e /etc/mine ] && free -m | awk "/^Mem/ { print (\$2 > 600 ? \"large\" : \"small\") }"'
ends "which the next one does not see; memory is as was asked" 0 small

for n in 1 2; do
	"qemu/run" --kernel "$kernel" --module none --disk 64M -- sh -c 'for d in /dev/vda /dev/ubda; do [ ! -b $d ] || { echo "$1" >$d; sleep 3; head -c 1 $d; }; done' sh $n \
		>"$work/out.$n" 2>"$work/err" &
done
wait
result "$([ "$(cat "$work/out.1" "$work/out.2")" = 12 ]; echo $?)" "two guests at once have disks of their own"

run --timeout 15 --append "$mark" -- sh -c 'echo begun; sleep 1000'
ends "a command that takes too long is ended" 124 begun
says "with the stacks of what waits" 'Show Blocked State'
all_gone "and all of its processes"
run --append "$mark" --console "$work/console" -- sh -c 'echo begun; sync; echo c >/proc/sysrq-trigger; sleep 1000'
ends "a panic ends the guest" 125 begun
says "and is shown" 'Kernel panic'
result "$(grep -q 'Kernel panic' "$work/console"; echo $?)" "the console is kept"
all_gone "no process is left of it"
run --append "$mark" -- sh -c 'echo b >/proc/sysrq-trigger; sleep 1000'
ends "so does a reboot" 125 ""
all_gone "which leaves none either"

# begin ARGUMENT...: a guest in the background, whose command has begun.
begin() {
	qemu/run --kernel "$kernel" --module none --append "$mark" "$@" -- sh -c 'echo begun; sleep 1000' >"$work/out" 2>"$work/err" &
	guest=$!
	until grep -q begun "$work/out" || ! kill -0 "$guest"; do sleep 0.2; done
}
# The host's processes that are the kernels of such guests.
kernels() {
	local process
	for process in $(grep -lsF -- "$mark" /proc/[0-9]*/cmdline | cut -d/ -f3); do
		[[ $(readlink "/proc/$process/exe") != */vmlinuz ]] || echo "$process"
	done
}

# A kernel that stands still is like one that spins with its interrupts off.
begin --timeout 60
kernels | xargs kill -STOP
wait "$guest"
status=$?
ends "a kernel that hangs is ended as well" 124 begun
all_gone "with all of its processes"
begin
# Each of the programs up to that one has executed the next.
kill -KILL "$guest"
wait "$guest" 2>/dev/null
all_gone "a guest ends with the program that watches it"
echo "1..$number"
exit "$failed"
