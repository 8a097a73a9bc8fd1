#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Compares rbtrfs with the C driver: both in one guest, on copies of the same image, in turns. Ends
# with a table and a chart; the figures stay in build/bench.tsv, the chart in build/bench.svg.
# usage: [KERNEL=stock] run.sh [ROUNDS [PART...]]; parts are reading (send and balance) and writing,
# both by default. The guest is User Mode Linux, which runs at the speed of this machine;
# KERNEL=stock is Debian's kernel in QEMU.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-3}
[ $# -lt 2 ] && set -- "$rounds" reading writing
shift
kernel=${KERNEL:-uml}
qemu/build-module "$kernel"
mkdir -p build
qemu/run --kernel "$kernel" --module none --disk 6G --disk 6G --memory 4G --timeout 7200 \
	-- tools/bench/guest.sh "$rounds" "$@" > build/bench.tsv
python3 tools/bench/report.py build/bench.tsv build/bench.svg
