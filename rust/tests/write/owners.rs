// SPDX-License-Identifier: GPL-2.0
//! The places that have an address: all of them, in the C driver's order, as fstests btrfs/287 has
//! it.

use crate::files::*;
use crate::subvolumes::{snap, subvolume};
use crate::support::*;
use rbtrfs_engine::backref::owners::for_each_owner;
use rbtrfs_engine::format::tree_id;
use rbtrfs_engine::subvol::fiemap::{part, Content};
use rbtrfs_engine::subvol::subvolume::{snapshot, NewSnapshot};
use rbtrfs_engine::subvol::write::{clone_range, punch, CloneRange, InodeId};
use rbtrfs_engine::volume::Fs;
use std::vec::Vec;

/// Half an extent, in bytes.
const HALF: u64 = 2 * SECTOR;
const EXTENT: u64 = 2 * HALF;

/// Tree, and offset in the file in bytes, of each place of the byte at `logical`.
fn owners(fs: &Fs, id: InodeId, logical: u64, whole_extent: bool) -> Vec<(u64, u64)> {
    fs.commit().unwrap();
    let mut found = Vec::new();
    for_each_owner(&fs.reader().unwrap(), logical, whole_extent, &mut |owner| {
        assert_eq!(owner.ino, id.ino);
        found.push((owner.root, owner.offset));
        Ok(())
    })
    .unwrap();
    found
}

/// The address of the extent at `offset` of a file.
fn address(fs: &Fs, id: InodeId, offset: u64) -> u64 {
    let map = part(fs, (id.tree, id.ino), (offset, u64::MAX), &[], false).unwrap();
    let at = map
        .extents
        .iter()
        .find(|extent| extent.logical == offset)
        .unwrap();
    assert!(matches!(at.content, Content::Data));
    at.physical
}

fn clone(fs: &Fs, id: InodeId, to: u64, len: u64) {
    let range = CloneRange {
        src: id,
        src_offset: 0,
        len,
        dst: id,
        dst_offset: to,
        dst_size: to + len,
    };
    clone_range(fs, &range, Some(now())).unwrap();
}

#[test]
fn the_newest_subvolume_and_the_last_place_come_first() {
    let scratch = Scratch::new("write-owners");
    let device = share(make_small(&scratch, &[]));
    let fs = open(&device).unwrap();
    let id = file(&fs, ROOT, "foo").unwrap();
    write(&fs, id, 0, &pattern(EXTENT as usize, 1), EXTENT).unwrap();
    fs.commit().unwrap();
    write(&fs, id, EXTENT, &pattern(EXTENT as usize, 2), 2 * EXTENT).unwrap();
    let (first, second) = (address(&fs, id, 0), address(&fs, id, EXTENT));
    let both = 2 * EXTENT;
    clone(&fs, id, both, both);
    clone(&fs, id, 2 * both, both);
    let top = |offsets: &[u64]| {
        offsets
            .iter()
            .map(|at| (tree_id::FS, *at))
            .collect::<Vec<_>>()
    };
    assert_eq!(owners(&fs, id, first, false), top(&[2 * both, both, 0]));
    let shifted = [2 * both + EXTENT, both + EXTENT, EXTENT];
    assert_eq!(owners(&fs, id, second, false), top(&shifted));

    // Of the first place only the second half is left.
    punch(&fs, id, 0, HALF, now()).unwrap();
    assert_eq!(owners(&fs, id, first, false), top(&[2 * both, both]));
    assert_eq!(owners(&fs, id, first, true), top(&[2 * both, both, HALF]));
    let into = HALF + SECTOR;
    let places = [2 * both + into, both + into, into];
    assert_eq!(owners(&fs, id, first + into, false), top(&places));

    let one = snap(&fs, tree_id::FS, "snap1", 1, true).unwrap().tree;
    let two = snap(&fs, tree_id::FS, "snap2", 2, true).unwrap().tree;
    let mut expected = Vec::new();
    for tree in [two, one, tree_id::FS] {
        expected.extend([(tree, 2 * both), (tree, both)]);
    }
    assert_eq!(owners(&fs, id, first, false), expected);

    // What the snapshots have, and what changed in the meantime.
    punch(&fs, id, EXTENT, EXTENT + SECTOR, now()).unwrap();
    let mut expected = Vec::new();
    for tree in [two, one] {
        expected.extend(shifted.map(|at| (tree, at)));
    }
    expected.extend(shifted[..2].iter().map(|at| (tree_id::FS, *at)));
    assert_eq!(owners(&fs, id, second, false), expected);
    expected.push((tree_id::FS, EXTENT + SECTOR));
    assert_eq!(owners(&fs, id, second, true), expected);
}

/// A send does not look for clones among more than 1024 references; that limit is not one of this
/// question.
#[test]
fn every_one_of_many_snapshots_is_found() {
    const SNAPSHOTS: u32 = 1100;
    let scratch = Scratch::new("write-owners-many");
    let device = share(make_small(&scratch, &[]));
    let fs = open(&device).unwrap();
    let subvolume = subvolume(&fs, "many", 1).unwrap();
    let mut id = subvolume;
    for n in 0..200 {
        id = file(&fs, subvolume, &format!("file-{n}")).unwrap();
    }
    write(&fs, id, 0, &pattern(EXTENT as usize, 1), EXTENT).unwrap();
    let logical = address(&fs, id, 0);
    let mut expected = std::vec![(id.tree, 0)];
    for n in 0..SNAPSHOTS {
        let mut uuid = [2; 16];
        uuid[..4].copy_from_slice(&n.to_le_bytes());
        let new = NewSnapshot {
            uuid,
            read_only: true,
            now: now(),
        };
        let name = format!("snapshot-{n}");
        let made = snapshot(&fs, id.tree, ROOT, name.as_bytes(), &new).unwrap();
        expected.push((made.tree, 0));
    }
    let mut found = owners(&fs, id, logical, false);
    // The leaf is not a root, so that the snapshots are references of it and not of the extent.
    assert!(fs.reader().unwrap().root(id.tree).unwrap().level > 0);
    found.sort_unstable();
    assert_eq!(found, expected);
}
