// SPDX-License-Identifier: GPL-2.0
//! The space of real volumes: free space, block groups, chunks and checksums, after every commit
//! held against each other by `account.rs` and by `btrfs check`.

#[path = "../support/mod.rs"]
mod support;

mod account;
mod checksums;
mod chunks;
mod full;
mod groups;
mod rebuild;

/// The inode of the file that tests give extents to.
const INO: u64 = 5000;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Volumes that keep account of space in different ways: options of `mkfs.btrfs`.
fn kinds() -> [&'static [&'static str]; 6] {
    [
        &[],
        &["-n", "4096", "-m", "single", "-d", "single"],
        &["-d", "dup", "-m", "dup"],
        &["-R", "^free-space-tree"],
        &["-O", "block-group-tree"],
        &["-O", "block-group-tree", "-n", "4096"],
    ]
}
