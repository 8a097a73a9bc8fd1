# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Sourced by every script here: where things are, how to speak, and how to build a cached thing once.

set -euo pipefail
shopt -s inherit_errexit

QEMU_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
CHECKOUT=$(dirname "$QEMU_DIR")
RBTRFS_CACHE=${RBTRFS_CACHE:-/var/cache/rbtrfs}
# By this path the toolchain root and guests have the checkout, too. Builds there take it where make, whose words end at
# spaces, could not take the path itself.
CHECKOUT_ALIAS=/run/checkout
case $CHECKOUT in
*[!A-Za-z0-9/._+@-]*) BUILD_CHECKOUT=$CHECKOUT_ALIAS ;;
*) BUILD_CHECKOUT=$CHECKOUT ;;
esac
export QEMU_DIR CHECKOUT CHECKOUT_ALIAS BUILD_CHECKOUT RBTRFS_CACHE

# Progress goes to stderr: stdout belongs to what a script prints for its caller.
say() { printf 'rbtrfs: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# The toolchain root and guests see the checkout at its own path, where it hides what they have there.
case $CHECKOUT in
/ | /bin | /boot | /dev | /dev/shm | /etc | /lib | /lib64 | /proc | /run | /sbin | /sys | /tmp | /usr | /var | \
	/usr/bin | /usr/lib | /usr/lib64 | /usr/libexec | /usr/sbin | /usr/share | /usr/src | /var/cache | /var/lib | /var/tmp)
	die "$CHECKOUT belongs to the system, a checkout needs a folder of its own: move it" ;;
*[[:cntrl:]]*) die "the checkout's path has a control character in it: move it" ;;
esac
case $RBTRFS_CACHE in
/ | [!/]* | *[!A-Za-z0-9/._+@-]*) die "RBTRFS_CACHE is '$RBTRFS_CACHE': make takes only an absolute path without spaces" ;;
esac

need_root() {
	[ "$(id -u)" = 0 ] || die "this needs root (it mounts and changes root): run it with sudo"
}

# A short name for the contents of all arguments: a path stands for the file's bytes, other words for themselves.
key_of() {
	local what
	for what in "$@"; do
		if [ -f "$what" ]; then cat -- "$what"; else printf '%s\n' "$what"; fi
	done | sha256sum | cut -c1-12
}

# Runs a builder with its output in a log, and a line every half minute, so that nobody waits before a still screen.
logged() {
	local log=$1 start=$SECONDS worker
	shift
	mkdir -p "$(dirname "$log")"
	# In a process group of its own, so that an interrupt ends the builder with all that it started.
	set -m
	"$@" >"$log" 2>&1 </dev/null &
	worker=$!
	set +m
	# shellcheck disable=SC2064 # Of this worker.
	trap "kill -- -$worker 2>/dev/null; exit 130" INT TERM HUP
	while kill -0 "$worker" 2>/dev/null; do
		for _ in $(seq 60); do
			sleep 0.5
			kill -0 "$worker" 2>/dev/null || break 2
		done
		say "  ... $((SECONDS - start)) s, $(tail -n 1 "$log" | tr -d '\r' | cut -c1-90)"
	done
	if ! wait "$worker"; then
		tail -n 40 "$log" >&2
		die "'$*' failed, its whole output is in $log"
	fi
	trap - INT TERM HUP
	say "  done in $((SECONDS - start)) s"
}

# once DIR BUILDER...: builds DIR unless its stamp DIR.ready says that it is complete. The stamp comes last, so an
# interrupted build is never taken for a finished one, and the lock lets only one of several callers build. Not for
# use in a condition: a builder stops at its first error by set -e, which conditions turn off.
once() {
	local dir=$1 lock
	shift
	[ ! -e "$dir.ready" ] || return 0
	mkdir -p "$(dirname "$dir")"
	exec {lock}>"$dir.lock"
	if ! flock -n "$lock"; then
		say "waiting for another process that builds $dir"
		flock "$lock"
	fi
	if [ ! -e "$dir.ready" ]; then
		"$@" "$dir"
		touch "$dir.ready"
	fi
	exec {lock}>&-
}
