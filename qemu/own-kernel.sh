# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Sourced by the scripts that build a kernel of ours, as NAME.config asks on top of allnoconfig.

# own_kernel NAME TITLE TIME IMAGE APPEND MAKE_ARGUMENT...: builds it once, from the source of the stock kernel, and
# prints its folder. IMAGE is make's target, APPEND are parameters for its guests.
own_kernel() {
	local compilers
	name=$1 title=$2 takes=$3 image=$4 append=$5
	shift 5
	flags=("$@")
	source=$("$QEMU_DIR/kernel-source")
	config=$QEMU_DIR/$name.config
	# A root with another package in it does not make another kernel; one with another compiler does.
	compilers=$(awk '/^Package: / { p = $2 } /^Version: / && p ~ /^(clang-[0-9]+|lld-[0-9]+|rustc|rust-src|bindgen)$/ { print p, $2 }' \
		"$("$QEMU_DIR/root")/var/lib/dpkg/status")
	dir=$RBTRFS_CACHE/$name-$(key_of "$source" "$compilers" "$config")
	once "$dir" build_own_kernel
	echo "$dir"
}

in_build() { "$QEMU_DIR/in-root" make -C "$source" "O=$dir/build" "${flags[@]}" "-j${RBTRFS_JOBS:-$(nproc)}" "$@"; }

# Kconfig drops silently what it cannot have; a checker that is off must not go unnoticed.
check_config() {
	local line missing=0
	while read -r line; do
		grep -qxF "$line" "$dir/build/.config" || { say "not in the kernel's configuration: $line" && missing=1; }
	done < <(grep -E '^(# )?CONFIG_' "$config")
	[ "$missing" = 0 ] || die "the kernel cannot be configured as $config asks"
}

build_own_kernel() {
	say "building $title ($takes on two processors; goes on where it was interrupted)"
	mkdir -p "$dir/build" "$dir/modules" "$dir/lib"
	ln -sfn ../modules "$dir/lib/modules"
	cp "$config" "$dir/build/fragment"
	if [ ! -e "$dir/build/.config" ]; then
		logged "$dir/config.log" in_build "KCONFIG_ALLCONFIG=$dir/build/fragment" allnoconfig
	fi
	check_config
	logged "$dir/build.log" in_build "$image" modules
	logged "$dir/install.log" in_build "INSTALL_MOD_PATH=$dir" modules_install
	printf '%s\n' "${flags[@]}" >"$dir/build/make-flags"
	cat "$dir/build/include/config/kernel.release" >"$dir/release"
	"$QEMU_DIR/in-root" llvm-strip -g -o "$dir/vmlinuz" "$dir/build/$image"
	echo "$append" >"$dir/append"
}
