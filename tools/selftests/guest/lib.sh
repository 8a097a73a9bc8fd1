# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# What guest tests share, in the conventions of kselftest: results in KTAP on standard output, one
# line per check.
#
# A test is an executable *.sh here:
#
#	. "$(dirname "$0")/lib.sh"
#	plan 2
#	load_rbtrfs
#	check "an empty volume mounts" try_mount
#	skip "reason" "name"
#	finish
#
# It runs as root, alone, with three empty disks ($DISK1 to $DISK3) and a folder $MNT to mount at,
# in User Mode Linux, or in the guests of qemu/test that a line in it asks for: "# Guest: debug: why
# it needs two processors, or KASAN". Afterwards the runner unmounts what is left, unloads both
# drivers, has every volume that is left on a disk checked (see expect_damage), and looks through
# the kernel's log (see expect_log): each is a result of its own.

set -u

[ -n "${RBTRFS_GUEST:-}" ] || { echo "this overwrites disks: run it in a guest, as qemu/test guest does" >&2 && exit 1; }

GUEST_TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CHECKOUT=$(cd "$GUEST_TESTS/../../.." && pwd)

# Tests make, clear and mount over what they like in these folders. If the checkout lies in one,
# they see it elsewhere only.
case $CHECKOUT/ in
/tmp/* | /mnt/* | /run/*)
	mkdir -p /checkout && mount --rbind "$CHECKOUT" /checkout || exit
	for dir in /tmp /mnt /run; do mount -t tmpfs -o mode=1777 tmpfs $dir || exit; done
	cd /checkout && exec "/checkout${GUEST_TESTS#"$CHECKOUT"}/$(basename "$0")" "$@"
	exit
	;;
esac

# Programs that tests build and use (make -C tools/selftests puts them here).
SELFTEST_BIN=$CHECKOUT/build/selftests
RBTRFS_KO=$CHECKOUT/rbtrfs.ko
if [ -b /dev/ubda ]; then disk=/dev/ubd; else disk=/dev/vd; fi
DISK1=${disk}a DISK2=${disk}b DISK3=${disk}c
unset disk
MNT=/mnt/test
NOTES=/run/selftest
export CHECKOUT SELFTEST_BIN RBTRFS_KO DISK1 DISK2 DISK3 MNT
mkdir -p "$MNT" "$NOTES"

ktap_number=0
ktap_failed=0

# A diagnostic: a line that is no result.
note() { printf '%s\n' "$*" | sed 's/^/# /'; }

plan() {
	echo "TAP version 13"
	echo "1..$1"
}

pass() {
	ktap_number=$((ktap_number + 1))
	echo "ok $ktap_number $1"
}

fail() {
	ktap_number=$((ktap_number + 1))
	ktap_failed=1
	echo "not ok $ktap_number $1"
}

# skip REASON NAME: a check that cannot be made here.
skip() {
	ktap_number=$((ktap_number + 1))
	echo "ok $ktap_number $2 # SKIP $1"
}

# check NAME COMMAND...: passes when COMMAND succeeds; shows what it printed when not.
check() {
	local name=$1 out status
	shift
	out=$("$@" 2>&1)
	status=$?
	if [ "$status" = 0 ]; then
		pass "$name"
	else
		note "'$*' ended with $status"
		note "$out" | tail -n 40
		fail "$name"
	fi
	return "$status"
}

# check_fails NAME PATTERN COMMAND...: passes when COMMAND fails and prints a line that matches
# PATTERN.
check_fails() {
	local name=$1 pattern=$2 out status
	shift 2
	out=$("$@" 2>&1)
	status=$?
	if [ "$status" != 0 ] && grep -qE -- "$pattern" <<<"$out"; then
		pass "$name"
	else
		note "'$*' ended with $status, expected a failure with '$pattern'"
		note "$out" | tail -n 40
		fail "$name"
	fi
}

# check_equal NAME EXPECTED FOUND
check_equal() {
	if [ "$2" = "$3" ]; then
		pass "$1"
	else
		note "expected: $2"
		note "found:    $3"
		fail "$1"
	fi
}

# Ends the whole test: without this nothing after it makes sense.
bail() {
	echo "Bail out! $*"
	exit 1
}

finish() { exit "$ktap_failed"; }

# The two drivers. Both want the name "btrfs"; a module parameter gives ours another.
load_rbtrfs() {
	local dep
	for dep in $(modinfo -F depends "$RBTRFS_KO" | tr ',' ' '); do
		modprobe "$dep" || bail "no module $dep"
	done
	insmod "$RBTRFS_KO" "$@" || bail "rbtrfs.ko does not load: $(dmesg | tail -n 3)"
}
unload_rbtrfs() { rmmod rbtrfs; }
load_btrfs() { modprobe btrfs || bail "the C driver does not load"; }
unload_btrfs() { modprobe -r btrfs; }

# Checks a volume that is not mounted, its data included.
check_volume() { btrfs check --check-data-csum "$1"; }

# What a folder holds: the contents of every file, and all attributes.
tree_digest() {
	(cd "$1" && find . -xdev -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum
	find . -xdev -printf '%p %y %m %U %G %s %n %T@ %l\n' | LC_ALL=C sort
	getfattr -R -h -d -m - . 2>/dev/null)
}

same_digest() { tree_digest "$MNT" | cmp - /tmp/kept.digest; }

# Five checks of the volume on DISK that is mounted at $MNT by rbtrfs: what is in it is there after
# a remount, btrfs check finds nothing, and the C driver reads the same. Afterwards nothing is
# mounted, and no driver loaded.
check_kept() {
	local disk=$1
	sync -f "$MNT"
	tree_digest "$MNT" >/tmp/kept.digest
	check "the volume unmounts" umount "$MNT" || return
	check "and mounts again" mount "$disk" "$MNT" || return
	check "all of it is there" same_digest
	umount "$MNT"
	unload_rbtrfs
	check "btrfs check finds nothing" check_volume "$disk"
	load_btrfs
	mount "$disk" "$MNT"
	check "the C driver reads the same" same_digest
	umount "$MNT"
	unload_btrfs
}

# A source tree to copy about, as a tar archive.
source_tree() { tar -C "$CHECKOUT" -c rust/send rust/tree rust/vfs rust/ioctl README.md; }

# This test damages the volume on that disk on purpose: the runner is not to check it.
expect_damage() { echo "$1" >>"$NOTES/damaged"; }

# Lines of the kernel's log that match this are meant to be there.
expect_log() { echo "$1" >>"$NOTES/expected"; }

# Shows the kernel's complaints in the log given, those that no driver under test may cause.
complaints() {
	local patterns='WARNING:|BUG:|KASAN|Oops|kernel BUG|general protection|UBSAN|refcount_t:|possible .* detected|suspicious RCU'
	patterns+='|inconsistent lock state|INFO: (task|rcu|possible|trying)|blocked for more than|unreferenced object|invalid context'
	patterns+='|panicked at|cut here|soft lockup|Call Trace|bad unlock|held lock freed|lock held when|stack guard|scheduling while'
	grep -E "$patterns" "$1" | if [ -s "$NOTES/expected" ]; then grep -vE -f "$NOTES/expected"; else cat; fi
}
