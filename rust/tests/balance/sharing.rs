// SPDX-License-Identifier: GPL-2.0
//! Balance copies a shared block once, and whoever changes one of the copies later knows that it is
//! shared.

use crate::contents::*;
use crate::support::*;
use rbtrfs_engine::format::chunk::block_group_flags as flags;
use rbtrfs_engine::format::{item_type, tree_id, Key};
use rbtrfs_engine::volume::Fs;

/// The number of tree blocks that the extent tree knows.
fn tree_blocks(fs: &Fs) -> usize {
    let reader = fs.reader().unwrap();
    let mut cursor = reader.cursor(reader.root(tree_id::EXTENT).unwrap());
    cursor.seek(&Key::MIN).unwrap();
    let mut blocks = 0;
    while let Some(key) = cursor.key() {
        blocks += usize::from(key.typ == item_type::METADATA_ITEM);
        cursor.next().unwrap();
    }
    blocks
}

#[test]
fn blocks_stay_shared() {
    let image = packed("snapshots");
    let device = share(image);
    let fs = open(&device).unwrap();
    let subvolumes = subvolumes(&fs.reader().unwrap()).len();
    assert!(subvolumes > 40, "{subvolumes}");
    let before = tree_blocks(&fs);
    for _ in 0..3 {
        balance(&fs, flags::METADATA).unwrap();
        let after = tree_blocks(&fs);
        assert!(
            after <= before + before / 25,
            "{after} blocks after, {before} before"
        );
    }
}

#[test]
fn copies_that_are_shared_are_changed_apart() {
    for name in ["snapshots", "extents"] {
        let image = packed(name);
        let scratch = Scratch::new("apart");
        let device = share(image);
        let fs = open(&device).unwrap();
        balance(&fs, EVERYTHING).unwrap();
        let before = contents_now(&fs);
        let ids: Vec<u64> = before.iter().map(|(id, _)| *id).collect();
        // Two in the same transaction, and others, and the same again, in later ones.
        let mut trans = begin(&fs);
        touch_in(&mut trans, ids[1], 40);
        touch_in(&mut trans, ids[2], 50);
        trans.commit().unwrap();
        scratch.assert_clean(&device);
        touch(&fs, ids[ids.len() - 1], 30);
        touch(&fs, ids[1], 7);
        touch(&fs, ids[3], 3);
        scratch.assert_clean(&device);
        let after = contents_now(&fs);
        for (old, new) in before.iter().zip(&after) {
            let touched = [ids[1], ids[2], ids[3], ids[ids.len() - 1]].contains(&old.0);
            assert_eq!(old.1 != new.1, touched, "{name}: subvolume {}", old.0);
        }
        balance(&fs, EVERYTHING).unwrap();
        touch(&fs, ids[2], 2);
        scratch.assert_clean(&device);
        let last = contents_now(&fs);
        for (old, new) in after.iter().zip(&last) {
            assert_eq!(
                old.1 != new.1,
                old.0 == ids[2],
                "{name}: subvolume {}",
                old.0
            );
        }
    }
}
