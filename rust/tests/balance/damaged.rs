// SPDX-License-Identifier: GPL-2.0
//! Trees that contradict each other: balance ends in an error that says what and where, and changes
//! nothing.

use crate::contents::*;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::format::chunk::block_group_flags as flags;
use rbtrfs_engine::format::{item_type, tree_id, Key};
use rbtrfs_engine::trans::transaction::Transaction;
use rbtrfs_engine::tree::edit;
use rbtrfs_engine::volume::Fs;
use std::string::String;
use std::vec::Vec;

/// The extent item of a leaf in the middle of the top-level subvolume, whose parent is not the
/// root.
fn some_leaf(fs: &Fs) -> (Key, Vec<u8>) {
    let keys = leaves(fs, tree_id::FS);
    let key = keys[keys.len() / 2];
    let reader = fs.reader().unwrap();
    let mut cursor = reader.cursor(reader.root(tree_id::FS).unwrap());
    cursor.seek(&key).unwrap();
    let bytenr = cursor.node_at(0).unwrap().bytenr();
    let mut cursor = reader.cursor(reader.root(tree_id::EXTENT).unwrap());
    let item = Key::new(bytenr, item_type::METADATA_ITEM, 0);
    assert!(cursor.seek(&item).unwrap());
    (item, cursor.item().unwrap().1.to_vec())
}

/// Damages a volume, and expects the balance of its metadata to fail like that.
fn expect(
    name: &str,
    damage: impl FnOnce(&mut Transaction<'_>, Key, Vec<u8>),
    errors: &[Error],
    says: impl Fn(&Key) -> String,
) {
    let scratch = Scratch::new(name);
    let device = share(make_mem(&scratch, &["-n", "4096", "-m", "single"]));
    let fs = open(&device).unwrap();
    let (key, item) = some_leaf(&fs);
    let mut trans = begin(&fs);
    damage(&mut trans, key, item);
    trans.commit().unwrap();
    drop(fs);
    let damaged = (*device).clone();

    let fs = open(&device).unwrap();
    let before = contents(&fs.reader().unwrap());
    for round in 0..2 {
        let (result, log) = kernel::log::capture(|| balance(&fs, flags::METADATA));
        let Err(error) = result else {
            panic!("round {round}: {log:?}");
        };
        assert!(errors.contains(&error), "{error:?}: {log:?}");
        let line = says(&key);
        assert!(log.iter().any(|l| l.contains(&line)), "{line}: {log:?}");
    }
    assert_eq!(contents(&fs.reader().unwrap()), before);
    assert_writable(&fs);
    drop(fs);
    // `btrfs check` has as much to say as before: nothing became worse.
    let problems = |image| {
        let text = scratch.check(image).err().unwrap_or_default();
        let bad = |line: &&str| line.to_lowercase().contains("error");
        text.lines().filter(bad).count()
    };
    assert_eq!(problems(&device), problems(&damaged));
}

#[test]
fn a_reference_too_few() {
    expect(
        "a_reference_too_few",
        |trans, key, item| {
            let short = &item[..item.len() - 9];
            edit::replace(trans, tree_id::EXTENT, &key, short).unwrap();
        },
        &[EUCLEAN],
        |key| format!("extent {} has 0 references, but expected 1", key.objectid),
    );
}

#[test]
fn a_reference_by_a_tree_that_is_not_there() {
    expect(
        "a_reference_by_a_tree_that_is_not_there",
        |trans, key, mut item| {
            let root = item.len() - 8;
            item[root..].copy_from_slice(&999u64.to_le_bytes());
            edit::replace(trans, tree_id::EXTENT, &key, &item).unwrap();
        },
        &[EIO],
        |key| {
            format!(
                "backref of tree block {} level 0 names root 999",
                key.objectid
            )
        },
    );
}

#[test]
fn a_reference_by_a_block_that_is_not_there() {
    expect(
        "a_reference_by_a_block_that_is_not_there",
        |trans, key, mut item| {
            let at = item.len() - 9;
            item[at] = item_type::SHARED_BLOCK_REF;
            item[at + 1..].copy_from_slice(&(1u64 << 20).to_le_bytes());
            edit::replace(trans, tree_id::EXTENT, &key, &item).unwrap();
        },
        &[EIO],
        |_| "did not find extent item of tree block 1048576 level 1".into(),
    );
}

#[test]
fn a_wrong_level() {
    expect(
        "a_wrong_level",
        |trans, key, item| {
            edit::delete(trans, tree_id::EXTENT, &key).unwrap();
            let wrong = Key::new(key.objectid, key.typ, 1);
            edit::insert(trans, tree_id::EXTENT, &wrong, &item).unwrap();
        },
        &[EUCLEAN, EIO],
        |key| format!("{}", key.objectid),
    );
}

#[test]
fn a_parent_that_expects_another_generation() {
    expect(
        "a_parent_that_expects_another_generation",
        |trans, key, _| {
            let fs = trans.fs();
            let leaf = leaves(fs, tree_id::FS);
            let first = leaf[leaf.len() / 2];
            let parent = edit::cow_to(trans, tree_id::FS, &first, 1).unwrap();
            let buf = trans.dirty_mut(parent).unwrap();
            let slot = buf.child_slot(&first);
            let child = buf.child_ptr(slot, tree_id::FS).unwrap();
            assert_eq!(child.bytenr, key.objectid);
            buf.set_child(slot, child.bytenr, child.generation - 1)
                .unwrap();
        },
        &[EIO],
        |key| {
            format!(
                "parent transid verify failed on logical {} mirror 1 wanted",
                key.objectid
            )
        },
    );
}
