#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Send: both drivers make the same bytes of the same volume, for every version and flag of the ABI.
# Guest: send: sends run side by side. It takes as long as all others of that kernel together.
. "$(dirname "$0")/lib.sh"

# What is sent, and the arguments of the ioctl.
subvolumes=(snap-empty snap-tree snap-all snaps/snap-later snap-orphans)
variants=(
	"v1"
	"v2 flags=8 version=2"
	"latest flags=8 version=0"
	"compressed flags=24 version=2"
	"no-data flags=1 version=0"
	"no-data-v2 flags=9 version=2"
	"no-header flags=2"
	"no-end flags=4"
)
# What the kernel refuses: the errno, a name, the arguments.
refusals=(
	"95 unknown-flag flags=32"
	"71 future-version flags=8 version=9"
	"22 compressed-v1 flags=16"
	"22 compressed-version-1 flags=24 version=1"
	"2 missing-clone-source clone=99999"
	"1 writable-clone-source clone=BASE"
	"2 missing-parent parent=99999"
	"1 writable-parent parent=BASE"
)

streams=/tmp/streams
mkdir -p "$streams"/{c,rust}

send() { python3 "$GUEST_TESTS/send_ioctl.py" "$@"; }

id_of() { btrfs inspect-internal rootid "$MNT/$1"; }

# The large subvolumes are sent only in those variants in which their data is sent differently.
wanted() {
	case $1:$2 in
	*/snap-later:v1 | */snap-later:compressed* | snap-all:v1 | snap-all:v2* | snap-all:compressed* | snap-all:no-data\ *) ;;
	*/snap-later:* | snap-all:*) return 1 ;;
	esac
}

# send_all FOLDER: every subvolume in every variant, and what needs the ids of others.
send_all() {
	local to=$1 subvolume variant words
	for subvolume in "${subvolumes[@]}"; do
		for variant in "${variants[@]}"; do
			wanted "$subvolume" "$variant" || continue
			read -ra words <<<"$variant"
			send "$MNT/$subvolume" "$to/${subvolume##*/}.${words[0]}" "${words[@]:1}" || return
		done
	done
	send "$MNT/snaps/snap-later" "$to/snap-later.source" clone="$(id_of snap-all)" || return
	send "$MNT/snap-tree" "$to/snap-tree.incremental" parent="$(id_of snap-empty)" || return
	send "$MNT/snaps/snap-later" "$to/snap-later.incremental" \
		parent="$(id_of snap-all)" clone="$(id_of snap-all)" || return
	send "$MNT/snap-all" "$to/snap-all.backwards" flags=24 version=2 \
		parent="$(id_of snaps/snap-later)" clone="$(id_of snaps/snap-later)" || return
	send "$MNT/snap-all" "$to/snap-all.sources" flags=24 version=2 \
		clone="$(id_of snaps/snap-later)" clone="$(id_of snap-tree)" || return
}

# refuse ERRNO ARGUMENT...: the ioctl fails with exactly this error and writes nothing.
refuse() {
	local errno=$1 status
	shift
	send "$MNT/snap-tree" "$streams/refused" "${@/BASE/$(id_of base)}"
	status=$?
	[ "$status" = "$errno" ] && [ ! -s "$streams/refused" ] && return
	echo "ended with $status and $(stat -c %s "$streams/refused") bytes"
	return 1
}

same() {
	cmp "$streams/c/$1" "$streams/rust/$1" && return
	# Where the commands begin to differ says more than the offset.
	diff <(btrfs receive --dump -f "$streams/c/$1") <(btrfs receive --dump -f "$streams/rust/$1") | head -n 20
	return 1
}

# A reader that goes away ends the send; so does a signal, and neither leaves anything behind.
closed_pipe() {
	local status
	btrfs send "$MNT/snap-all" 2>"$streams/error" | head -c 100000 >/dev/null
	status=${PIPESTATUS[0]}
	[ "$status" != 0 ] || { echo "send into a closed pipe succeeded" && return 1; }
	send "$MNT/snap-tree" "$streams/again" && cmp "$streams/again" "$streams/rust/snap-tree.v1"
}

signal_ends_send() {
	local pid
	mkfifo "$streams/fifo"
	# Open for reading as well, so that nobody waits for the other end, and never read.
	exec 9<>"$streams/fifo"
	# Not SIGINT, which a shell's background processes ignore.
	send "$MNT/snap-all" "$streams/fifo" 9>&- &
	pid=$!
	sleep 2
	kill -TERM "$pid"
	for _ in $(seq 50); do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.2
	done
	exec 9>&-
	rm "$streams/fifo"
	! kill -0 "$pid" 2>/dev/null || { echo "send goes on after a signal" && return 1; }
}

several_at_once() {
	local i pids=()
	for i in 1 2 3 4; do
		send "$MNT/snap-all" "$streams/parallel$i" &
		pids+=($!)
	done
	for i in 1 2 3 4; do
		wait "${pids[$((i - 1))]}" || return
		cmp "$streams/parallel$i" "$streams/rust/snap-all.v1" || return
		rm "$streams/parallel$i"
	done
}

received_is_the_same() {
	local list
	btrfs receive -f "$streams/rust/snap-all.v1" "$MNT/received" || return
	for list in "$MNT/snap-all" "$MNT/received/snap-all"; do
		# Subvolumes within are not sent, so that folders have other sizes and, where one
		# was, other times.
		(cd "$list" && find . -mindepth 1 -xdev -not -path './nested*' -not -path './holder*' \
			\( -type d -printf '%P %y %m %U %G %T@\n' -o -printf '%P %y %m %U %G %n %s %T@ %l\n' \) | sort)
	done | sort | uniq -u | grep -a . && return 1
	diff -rq --no-dereference -x fifo -x fifo-link -x socket -x char -x block -x nested -x nested2 \
		"$MNT/snap-all" "$MNT/received/snap-all"
}

# Three subvolumes in every variant, one in four, one in two, two streams with other sources, and
# three with a parent.
count=$((3 * ${#variants[@]} + 11))
plan $((2 * (1 + ${#refusals[@]}) + count + 4))

refusals_of() {
	local refusal words
	for refusal in "${refusals[@]}"; do
		read -ra words <<<"$refusal"
		check "$1 refuses ${words[1]}" refuse "${words[0]}" "${words[@]:2}"
	done
}

load_btrfs
mkfs.btrfs -q "$DISK1" || bail "mkfs.btrfs"
mount "$DISK1" "$MNT" || bail "mount by the C driver"
python3 "$GUEST_TESTS/send_fill.py" "$MNT" || bail "filling the volume"
umount "$MNT"
mount -o ro "$DISK1" "$MNT" || bail "mount by the C driver"
check "the C driver sends" send_all "$streams/c"
refusals_of "the C driver"
umount "$MNT"
unload_btrfs

load_rbtrfs
mount -o ro "$DISK1" "$MNT" || bail "mount by rbtrfs"
check "rbtrfs sends" send_all "$streams/rust"
refusals_of rbtrfs
for stream in "$streams"/c/*; do
	check "the stream ${stream##*/} is the same" same "${stream##*/}"
done
check "a closed pipe ends a send" closed_pipe
check "a signal ends a send" signal_ends_send
check "four sends at once" several_at_once
umount "$MNT"
unload_rbtrfs

load_btrfs
mount "$DISK1" "$MNT" && mkdir "$MNT/received" || bail "mount by the C driver"
check "what the C driver receives is the same tree" received_is_the_same
umount "$MNT"
finish
