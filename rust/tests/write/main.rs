// SPDX-License-Identifier: GPL-2.0
//! Writing: operations on files and directories. `btrfs check` judges what they leave on images of
//! `mkfs.btrfs`.

mod basic;
mod compressed;
mod cuts;
mod defrag;
mod encoded;
mod faults;
mod fiemap;
mod files;
mod fsync;
mod fsync_faults;
mod full;
mod full_script;
mod joined;
mod model;
mod names;
mod ordered_extents;
mod overlap;
mod owners;
mod pieces;
mod promises;
mod properties;
mod random;
mod replace;
mod reuse;
mod script;
mod subvolumes;
#[path = "../support/mod.rs"]
mod support;
mod usage;
mod uuids;
