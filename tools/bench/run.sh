#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Compares rbtrfs with the C driver: both in one VM, on copies of the same image, in turns. Ends with a table and a
# chart; the figures stay in build/bench.tsv, the chart in build/bench.svg.
# usage: run.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/../.."
make --no-print-directory all
mkdir -p build
qemu/run --kernel stock --module none --disk 6G --disk 6G --memory 4G --timeout 3600 \
	-- tools/bench/guest.sh "${1:-5}" > build/bench.tsv
python3 tools/bench/report.py build/bench.tsv build/bench.svg
