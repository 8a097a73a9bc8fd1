// SPDX-License-Identifier: GPL-2.0
//! Balance as these tests start it, and what they start it on.

#![allow(dead_code, unused_imports)]

pub use crate::support::contents::*;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::balance::relocate::relocate_block_group;
use rbtrfs_engine::format::chunk::block_group_flags as flags;
use rbtrfs_engine::format::{item_type, tree_id, Key};
use rbtrfs_engine::space::space_info::SpaceContext;
use rbtrfs_engine::trans::transaction::{Reserve, Transaction};
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::MemDevice;
use std::vec::Vec;

pub const EVERYTHING: u64 = flags::DATA | flags::METADATA | flags::SYSTEM;

/// Relocates the block groups that are there now and hold one of `kinds`, the last one first.
pub fn balance_with(fs: &Fs, kinds: u64, check: &dyn Fn() -> Result) -> Result {
    for start in block_groups(fs, kinds)?.into_iter().rev() {
        relocate_block_group(fs, start, check)?;
    }
    Ok(())
}

/// The block groups that are there now and hold one of `kinds`. Removed ones, whose addresses
/// readers may still use, do not count.
pub fn block_groups(fs: &Fs, kinds: u64) -> Result<Vec<u64>> {
    let trans = fs.begin(Reserve::default())?;
    let groups = trans.space().block_groups().iter();
    Ok(groups
        .filter(|group| group.flags & kinds != 0)
        .map(|group| group.start)
        .collect())
}

pub fn balance(fs: &Fs, kinds: u64) -> Result {
    balance_with(fs, kinds, &|| Ok(()))
}

/// A small volume with two snapshots, which the subvolume has parted from since, so that there are
/// full back references, by blocks and by leaves.
pub fn small(scratch: &Scratch, options: &[&str]) -> MemDevice {
    let device = share(make_mem(scratch, options));
    let fs = open(&device).unwrap();
    for id in [256, 257] {
        let mut trans = begin(&fs);
        snapshot(&mut trans, id, &format!("snapshot-{id}"));
        trans.commit().unwrap();
        touch(&fs, tree_id::FS, 7 + id as usize);
    }
    drop(fs);
    (*device).clone()
}

/// Changes every `nth` inode of a subvolume a little.
pub fn touch(fs: &Fs, tree: u64, nth: usize) {
    let mut trans = begin(fs);
    touch_in(&mut trans, tree, nth);
    trans.commit().unwrap();
}

/// As [`touch`], in a transaction that goes on.
pub fn touch_in(trans: &mut Transaction<'_>, tree: u64, nth: usize) {
    let reader = trans.fs().reader().unwrap();
    let mut cursor = reader.cursor(reader.root(tree).unwrap());
    cursor.seek(&Key::MIN).unwrap();
    let mut seen = 0;
    while let Some(key) = cursor.key() {
        if key.typ == item_type::INODE_ITEM {
            seen += 1;
            if seen % nth == 0 {
                rbtrfs_engine::tree::edit::update_in_place(trans, tree, &key, |bytes| {
                    // The inode's sequence number, which nobody checks.
                    bytes[72] = bytes[72].wrapping_add(1);
                    Ok(())
                })
                .unwrap();
            }
        }
        cursor.next().unwrap();
    }
}

/// Whether a volume still takes changes.
#[track_caller]
pub fn assert_writable(fs: &Fs) {
    assert!(!fs.is_read_only());
    let mut trans = begin(fs);
    trans
        .update_root_item(tree_id::FS, |item| {
            item.rtransid = 0.into();
            Ok(())
        })
        .unwrap();
    trans.commit().unwrap();
}
