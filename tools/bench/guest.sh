#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# guest.sh ROUNDS PART...: the measurements, in the guest. Parts are reading (send and balance) and
# writing.
rounds=$1
shift
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
for part; do
	# shellcheck source=/dev/null
	. "$(dirname "$0")/$part.sh"
done
