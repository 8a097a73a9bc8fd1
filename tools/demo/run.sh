#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Prepares what is missing, boots Debian's kernel in QEMU and runs the demonstration there.
set -euo pipefail
cd "$(dirname "$0")/../.."
make --no-print-directory all
printf '\nBooting Debian'\''s kernel in QEMU; the demonstration follows.\n'
exec qemu/run --kernel stock --module none --disk 4G --disk 4G --memory 2G --timeout 900 \
	-- tools/demo/demo.sh /dev/vda /dev/vdb
