// SPDX-License-Identifier: GPL-2.0
//! The tree that leads from UUIDs to subvolumes: made where there is none, and put right where it
//! is not.

use crate::files::*;
use crate::subvolumes::{delete, received, snap, subvolume};
use crate::support::contents::packed;
use crate::support::cut::every_cut;
use crate::support::every::every;
use crate::support::*;
use kernel::fault;
use kernel::prelude::*;
use rbtrfs_engine::format::root::RootItem;
use rbtrfs_engine::format::{item_type, tree_id, Key};
use rbtrfs_engine::space::space_info::SpaceContext;
use rbtrfs_engine::subvol::subvolume::{self, *};
use rbtrfs_engine::trans::Reader;
use rbtrfs_engine::tree::{edit, EditContext};
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::{MemDevice, RecordingDevice};
use std::collections::BTreeSet;
use std::string::String;
use std::vec::Vec;

/// A UUID's item key, and a subvolume that it leads to.
type Lead = (Key, u64);

fn lead(uuid: [u8; 16], typ: u8, tree: u64) -> Lead {
    let half = |at: usize| u64::from_le_bytes(uuid[at..at + 8].try_into().unwrap());
    (Key::new(half(0), typ, half(8)), tree)
}

/// All items of a tree of the last commit.
fn items(reader: &Reader, tree: u64) -> Vec<(Key, Vec<u8>)> {
    let mut cursor = reader.cursor(reader.root(tree).unwrap());
    cursor.seek(&Key::MIN).unwrap();
    let mut items = vec![];
    while let Some((key, bytes)) = cursor.item() {
        items.push((key, bytes.to_vec()));
        cursor.next().unwrap();
    }
    items
}

/// What leads where.
fn found(fs: &Fs) -> BTreeSet<Lead> {
    let items = items(&fs.reader().unwrap(), tree_id::UUID);
    let leads = items.iter().flat_map(|(key, data)| {
        assert!(!data.is_empty() && data.len() % 8 == 0);
        let ids = data.chunks(8).map(|id| id.try_into().unwrap());
        ids.map(|id| (*key, u64::from_le_bytes(id)))
    });
    leads.collect()
}

/// What should lead where, as the subvolumes say.
fn wanted(fs: &Fs) -> BTreeSet<Lead> {
    let mut leads = BTreeSet::new();
    for (key, bytes) in items(&fs.reader().unwrap(), tree_id::ROOT) {
        if key.typ != item_type::ROOT_ITEM || !tree_id::is_fs_tree(key.objectid) {
            continue;
        }
        let item = RootItem::parse(&bytes).unwrap();
        for (uuid, typ) in [
            (item.uuid, item_type::UUID_SUBVOL),
            (item.received_uuid, item_type::UUID_RECEIVED_SUBVOL),
        ] {
            if uuid != [0; 16] && !item.is_dead() {
                leads.insert(lead(uuid, typ, key.objectid));
            }
        }
    }
    leads
}

/// Whether the superblock says that the tree is right.
fn is_right(fs: &Fs) -> bool {
    let reader = fs.reader().unwrap();
    let sb = reader.superblock();
    sb.uuid_tree_generation == sb.generation
}

#[track_caller]
fn assert_right(fs: &Fs) {
    assert!(is_right(fs));
    assert_eq!(found(fs), wanted(fs));
}

/// Removes the tree, as if the volume had been made by a kernel that does not know it.
fn forget(fs: &Fs) {
    let keys: Vec<_> = items(&fs.reader().unwrap(), tree_id::UUID);
    let mut trans = begin(fs);
    for (key, _) in keys {
        edit::delete(&mut trans, tree_id::UUID, &key).unwrap();
    }
    edit::cow_to(&mut trans, tree_id::UUID, &Key::MIN, 0).unwrap();
    let root = EditContext::root(&trans, tree_id::UUID).unwrap();
    trans.free_node(tree_id::UUID, root.bytenr).unwrap();
    trans.remove_root(tree_id::UUID).unwrap();
    trans.superblock_mut().uuid_tree_generation = 0.into();
    trans.commit().unwrap();
}

/// Subvolumes of all sorts: plain, received, and snapshots of both.
fn make_subvolumes(fs: &Fs) {
    for n in 1..5 {
        let sub = subvolume(fs, &format!("sub{n}"), n).unwrap();
        if n % 2 == 0 {
            set_received(fs, sub.tree, &received(100 + n)).unwrap();
        }
        set_read_only(fs, sub.tree, true).unwrap();
        snap(fs, sub.tree, &format!("ro{n}"), 10 + n, true).unwrap();
        snap(fs, sub.tree, &format!("rw{n}"), 20 + n, false).unwrap();
    }
}

fn check(fs: &Fs) -> (Result<bool>, Vec<String>) {
    kernel::log::capture(|| check_uuid_tree(fs, false, &|| false))
}

fn says(log: &[String], what: &str) -> bool {
    log.iter().any(|line| line.contains(what))
}

#[test]
fn a_volume_without_a_tree_gets_one() {
    for kind in KINDS {
        let scratch = Scratch::new("write-uuid-none");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        forget(&fs);
        make_subvolumes(&fs);
        delete(&fs, "rw1").unwrap();
        fs.commit().unwrap();
        scratch.assert_clean(&device);
        drop(fs);

        let fs = open(&device).unwrap();
        let (done, log) = check(&fs);
        assert_eq!(done, Ok(true));
        assert!(says(&log, "creating UUID tree"), "{log:?}");
        fs.commit().unwrap();
        assert_right(&fs);
        assert_eq!(found(&fs).len(), 12 + 4);
        scratch.assert_clean(&device);
        delete(&fs, "ro2").unwrap();
        subvolume(&fs, "more", 77).unwrap();
        fs.commit().unwrap();
        drop(fs);

        let fs = open(&device).unwrap();
        assert_right(&fs);
        let (before, (done, log)) = (fs.generation(), check(&fs));
        assert_eq!((done, log.len()), (Ok(true), 0), "{log:?}");
        fs.commit().unwrap();
        assert_eq!(fs.generation(), before, "nothing is written");
        scratch.assert_clean(&device);
    }
}

/// A kernel that does not know the tree made subvolumes, deleted others, and gave new UUIDs.
#[test]
fn what_another_kernel_left_is_put_right() {
    let scratch = Scratch::new("write-uuid-stale");
    let device = share(make_small(&scratch, &["-n", "4096"]));
    let fs = open(&device).unwrap();
    // What mkfs makes is right, and not known to be.
    assert!(!is_right(&fs));
    assert_eq!(check_uuid_tree(&fs, false, &|| false), Ok(true));
    make_subvolumes(&fs);
    fs.commit().unwrap();
    assert_right(&fs);
    let all: Vec<_> = found(&fs).into_iter().collect();
    let mut trans = begin(&fs);
    for (key, _) in all.iter().step_by(3) {
        edit::delete(&mut trans, tree_id::UUID, key).unwrap();
    }
    let (key, tree) = all[1];
    let several: Vec<u8> = [9999, tree, all[2].1, 7]
        .iter()
        .flat_map(|id: &u64| id.to_le_bytes())
        .collect();
    edit::replace(&mut trans, tree_id::UUID, &key, &several).unwrap();
    let (bad, _) = lead([0xee; 16], item_type::UUID_RECEIVED_SUBVOL, 0);
    edit::insert(&mut trans, tree_id::UUID, &bad, &tree.to_le_bytes()).unwrap();
    trans.superblock_mut().uuid_tree_generation = 3.into();
    trans.commit().unwrap();
    assert!(!is_right(&fs));

    // One that is stopped says nothing of the tree.
    let left = std::cell::Cell::new(5);
    let stop = || left.replace(left.get() - 1) == 0;
    assert_eq!(check_uuid_tree(&fs, false, &stop), Ok(false));
    fs.commit().unwrap();
    assert!(!is_right(&fs));
    drop(fs);

    let fs = open(&device).unwrap();
    let (done, log) = check(&fs);
    assert_eq!(done, Ok(true));
    assert!(says(&log, "checking UUID tree"), "{log:?}");
    fs.commit().unwrap();
    assert_right(&fs);
    scratch.assert_clean(&device);
}

/// An item has place for so many.
#[test]
fn a_uuid_leads_to_no_more_than_fit() {
    let scratch = Scratch::new("write-uuid-many");
    let device = share(make_small(&scratch, &["-n", "4096"]));
    let fs = open(&device).unwrap();
    let sub = subvolume(&fs, "sub", 1).unwrap();
    set_received(&fs, sub.tree, &received(2)).unwrap();
    set_read_only(&fs, sub.tree, true).unwrap();
    for n in 0..600u64 {
        let mut uuid = [3; 16];
        uuid[..8].copy_from_slice(&n.to_le_bytes());
        let new = NewSnapshot {
            uuid,
            read_only: true,
            now: now(),
        };
        subvolume::snapshot(&fs, sub.tree, ROOT, format!("shot{n}").as_bytes(), &new).unwrap();
    }
    let other = subvolume(&fs, "other", 4).unwrap();
    let full = set_received(&fs, other.tree, &received(2));
    assert_eq!(full, Err(EOVERFLOW));
    // That it has this UUID already is no reason to refuse it.
    set_read_only(&fs, sub.tree, false).unwrap();
    set_received(&fs, sub.tree, &received(2)).unwrap();
    assert!(!fs.is_read_only());
    let mut trans = begin(&fs);
    trans.mark_changed();
    trans.superblock_mut().uuid_tree_generation = 0.into();
    trans.commit().unwrap();

    let (done, log) = check(&fs);
    assert_eq!(done, Ok(true));
    assert!(says(&log, "no place for subvolume"), "{log:?}");
    fs.commit().unwrap();
    assert!(is_right(&fs));
    let missing = wanted(&fs).difference(&found(&fs)).count();
    assert!((50..200).contains(&missing), "{missing}");
    delete(&fs, "shot599").unwrap();
    fs.commit().unwrap();
    scratch.assert_clean(&device);
}

/// A volume with subvolumes and no tree.
fn forgetful(scratch: &Scratch) -> MemDevice {
    let device = share(make_small(scratch, &["-n", "4096"]));
    let fs = open(&device).unwrap();
    forget(&fs);
    make_subvolumes(&fs);
    fs.commit().unwrap();
    MemDevice::clone(&device)
}

#[test]
fn a_power_cut_leaves_a_tree_that_is_right_or_known_not_to_be() {
    let scratch = Scratch::new("write-uuid-cut");
    let device = share(RecordingDevice::new(forgetful(&scratch)));
    let fs = open(&device).unwrap();
    check_uuid_tree(&fs, false, &|| false).unwrap();
    fs.commit().unwrap();
    let wanted = wanted(&fs);
    drop(fs);
    every_cut(&device, 4, |_, image| {
        let image = share(image.clone());
        let fs = open(&image).unwrap();
        if is_right(&fs) {
            assert_eq!(found(&fs), wanted);
        }
        assert_eq!(check_uuid_tree(&fs, false, &|| false), Ok(true));
        fs.commit().unwrap();
        assert_right(&fs);
        read_everything(&fs);
    });
}

#[test]
fn lack_of_memory_leaves_a_tree_that_is_right_or_known_not_to_be() {
    let scratch = Scratch::new("write-uuid-memory");
    let start = forgetful(&scratch);
    let total = every("allocation", |n| {
        let image = share(start.clone());
        let fs = open(&image).unwrap();
        fault::fail_alloc_after(n);
        let (result, _) = kernel::log::capture(|| {
            check_uuid_tree(&fs, false, &|| false)?;
            fs.commit()
        });
        let reached = fault::count() > n;
        fault::clear();
        if let Err(error) = result {
            assert_eq!(error, ENOMEM);
        }
        drop(fs);
        let fs = open(&image).unwrap();
        assert!(result.is_err() || is_right(&fs));
        assert_eq!(check_uuid_tree(&fs, false, &|| false), Ok(true));
        fs.commit().unwrap();
        assert_right(&fs);
        reached
    });
    assert!(total > 200, "{total}");
}

/// Real volumes have a tree that is right for them.
#[test]
fn the_tree_of_real_volumes_is_right() {
    for name in ["snapshots", "extents"] {
        let fs = open(&share(packed(name))).unwrap();
        assert_right(&fs);
        check_uuid_tree(&fs, false, &|| false).unwrap();
    }
}
