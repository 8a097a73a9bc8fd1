// SPDX-License-Identifier: GPL-2.0
//! On-disk structures, keys, items and checksums of btrfs. No I/O and no locks.
