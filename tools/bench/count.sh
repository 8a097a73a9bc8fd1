#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Counts the instructions that operations of the engine take, under callgrind: prints
# "OPERATION INSTRUCTIONS" for each function of tools/bench/engine, per file. The profile is left in
# build/callgrind.out, for callgrind_annotate.
# Needs valgrind.
# usage: count.sh [FILES]
set -euo pipefail
cd "$(dirname "$0")/../.."
files=${1:-5000}
mkdir -p build
image=build/bench.img
rm -f "$image"
truncate -s 1G "$image"
qemu/in-root mkfs.btrfs -q -f "$image"
qemu/in-root cargo build --quiet --release -p rbtrfs-bench
valgrind --tool=callgrind --callgrind-out-file=build/callgrind.out build/cargo/release/rbtrfs-bench \
	"$image" "$files" 2> build/callgrind.log || { cat build/callgrind.log >&2 && exit 1; }
rm -f "$image"
callgrind_annotate --inclusive=yes --threshold=100 build/callgrind.out 2> /dev/null |
	sed -nE 's/^ *([0-9,]+) .*rbtrfs_bench::count_([a-z_]+).*/\1 \2/p' | tr -d , |
	awk -v files="$files" '!seen[$2]++ { printf "%-20s %9.0f\n", $2, $1 / files }' | sort
