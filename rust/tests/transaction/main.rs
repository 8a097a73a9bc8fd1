// SPDX-License-Identifier: GPL-2.0
//! Transactions on images that `mkfs.btrfs` made. `btrfs check` judges what they leave.

#[path = "../support/mod.rs"]
mod support;

mod basic;
mod faults;
mod references;
