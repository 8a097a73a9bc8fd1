// SPDX-License-Identifier: GPL-2.0
//! The map of extents: right before the commit as after it, and without one.

use crate::files::*;
use crate::model::Model;
use crate::subvolumes::{delete, snap, subvolume};
use crate::support::*;
use rbtrfs_engine::format::{item_type, tree_id, Key};
use rbtrfs_engine::space::extent_set::Extent;
use rbtrfs_engine::subvol::fiemap::{part, Content, Mapped};
use rbtrfs_engine::subvol::write::{clone_range, evict, preallocate, unlink, CloneRange, InodeId};
use rbtrfs_engine::trans::View;
use rbtrfs_engine::tree::Cursor;
use rbtrfs_engine::volume::Fs;
use std::collections::BTreeMap;
use std::vec::Vec;

/// The whole map, with these ranges in memory alone.
fn map_with(fs: &Fs, id: InodeId, dirty: &[Extent]) -> Vec<Mapped> {
    let mut extents: Vec<Mapped> = vec![];
    let mut from = Some(0);
    while let Some(at) = from {
        let found = part(fs, (id.tree, id.ino), (at, u64::MAX), dirty, true).unwrap();
        assert!(found.next.is_none_or(|next| next > at));
        extents.extend(found.extents);
        from = found.next;
    }
    assert!(extents.is_sorted_by(|a, b| a.end() <= b.logical));
    extents
}

fn map(fs: &Fs, id: InodeId) -> Vec<Mapped> {
    map_with(fs, id, &[])
}

fn shared(fs: &Fs, id: InodeId) -> Vec<bool> {
    map(fs, id).iter().map(|extent| extent.shared).collect()
}

fn clone(fs: &Fs, (src, src_offset): (InodeId, u64), (dst, dst_offset): (InodeId, u64), len: u64) {
    let range = CloneRange {
        src,
        src_offset,
        len,
        dst,
        dst_offset,
        dst_size: dst_offset + len,
    };
    clone_range(fs, &range, Some(now())).unwrap();
}

/// The maps of all files of all subvolumes.
fn maps(fs: &Fs) -> BTreeMap<(u64, u64), Vec<Mapped>> {
    let mut files = vec![];
    {
        let view = fs.running_view_all().unwrap();
        let mut trees = vec![];
        let mut cursor = Cursor::new(&view, view.tree_root(tree_id::ROOT).unwrap());
        cursor.seek(&Key::MIN).unwrap();
        while let Some(key) = cursor.key() {
            let is_subvolume = key.typ == item_type::ROOT_ITEM && tree_id::is_fs_tree(key.objectid);
            // The item in the tree is written by the commit.
            if is_subvolume && !view.tree_root_item(key.objectid).unwrap().is_dead() {
                trees.push(key.objectid);
            }
            cursor.next().unwrap();
        }
        for tree in trees {
            let mut cursor = Cursor::new(&view, view.tree_root(tree).unwrap());
            cursor.seek(&Key::MIN).unwrap();
            while let Some(key) = cursor.key() {
                if key.typ == item_type::EXTENT_DATA {
                    files.push((tree, key.objectid));
                }
                cursor.next().unwrap();
            }
        }
    }
    files.dedup();
    let map = |(tree, ino)| ((tree, ino), map(fs, InodeId { tree, ino }));
    files.into_iter().map(map).collect()
}

/// Looks at everything, commits, and looks again.
#[track_caller]
fn assert_same_after_commit(fs: &Fs) -> usize {
    let generation = fs.generation();
    let before = maps(fs);
    assert_eq!(fs.generation(), generation, "looking commits nothing");
    fs.commit().unwrap();
    let after = maps(fs);
    for (file, map) in &before {
        assert_eq!(Some(map), after.get(file), "{file:?}");
    }
    assert_eq!(before.len(), after.len());
    let extents = after.values().flatten();
    extents.filter(|extent| extent.shared).count()
}

#[test]
fn what_is_shared_shows_before_the_commit() {
    for kind in [&["-n", "4096"][..], &["-O", "^no-holes"]] {
        let scratch = Scratch::new("write-map");
        let device = share(make_small(&scratch, kind));
        let fs = open(&device).unwrap();
        let sub = subvolume(&fs, "sub", 1).unwrap();
        fs.commit().unwrap();
        let generation = fs.generation();
        let (a, b) = (file(&fs, sub, "a").unwrap(), file(&fs, ROOT, "b").unwrap());
        let size = 4 * SECTOR;
        write(&fs, a, 0, &pattern(size as usize, 1), size).unwrap();
        write(&fs, a, 2 * size, &pattern(size as usize, 2), 3 * size).unwrap();
        assert_eq!(shared(&fs, a), [false, false]);
        clone(&fs, (a, 0), (b, SECTOR), size);
        assert_eq!(shared(&fs, a), [true, false]);
        assert_eq!(shared(&fs, b), [true]);
        assert_eq!(map(&fs, a)[0].physical, map(&fs, b)[0].physical);
        assert_eq!(fs.generation(), generation);
        assert_same_after_commit(&fs);

        // Of extents that the last commit has.
        clone(&fs, (a, 2 * size), (b, 2 * size), size);
        assert_eq!(shared(&fs, a), [true, true]);
        unlink(&fs, ROOT, b"b", now()).unwrap();
        evict(&fs, b).unwrap();
        assert_eq!(shared(&fs, a), [false, false]);
        assert_same_after_commit(&fs);

        // By snapshots, until what was snapshotted changes.
        let shot = snap(&fs, sub.tree, "shot", 2, false).unwrap();
        let copy = InodeId {
            tree: shot.tree,
            ..a
        };
        assert_eq!(shared(&fs, a), [true, true]);
        assert_eq!(shared(&fs, copy), [true, true]);
        write(&fs, a, 0, &pattern(size as usize, 3), 3 * size).unwrap();
        assert_eq!(shared(&fs, a), [false, true]);
        assert_eq!(shared(&fs, copy), [false, true]);
        assert_eq!(assert_same_after_commit(&fs), 2);
        write(&fs, copy, 2 * size, &pattern(size as usize, 4), 3 * size).unwrap();
        assert_eq!(shared(&fs, a), [false, false]);
        assert_eq!(assert_same_after_commit(&fs), 0);
        delete(&fs, "shot").unwrap();
        assert_same_after_commit(&fs);
        scratch.assert_clean(&device);
    }
}

#[test]
fn the_map_is_the_same_before_the_commit_and_after_it() {
    let mut sharing = 0;
    for seed in 0..4 {
        let scratch = Scratch::new("write-map-random");
        let device = share(make_mem(&scratch, &["-n", "4096", "-m", "single"]));
        let fs = open(&device).unwrap();
        let mut model = Model::new(&fs, 500 + seed);
        for step in 0..240 {
            model.step(&fs).unwrap();
            if step % 6 == 5 {
                sharing += assert_same_after_commit(&fs);
            }
        }
    }
    assert!(sharing > 100, "{sharing}");
}

#[test]
fn what_is_only_in_memory_shows() {
    let scratch = Scratch::new("write-map-memory");
    let device = share(make_small(&scratch, &["-n", "4096"]));
    let fs = open(&device).unwrap();
    let id = file(&fs, ROOT, "file").unwrap();
    write(
        &fs,
        id,
        4 * SECTOR,
        &pattern(SECTOR as usize, 1),
        16 * SECTOR,
    )
    .unwrap();
    preallocate(&fs, id, 8 * SECTOR, 12 * SECTOR, 16 * SECTOR, now()).unwrap();
    let dirty = [(1, 2), (4, 1), (9, 1), (11, 3)];
    let dirty = dirty.map(|(start, len)| Extent::new(start * SECTOR, len * SECTOR).unwrap());
    let found = map_with(&fs, id, &dirty);
    let found: Vec<_> = found
        .iter()
        .map(|e| (e.logical / SECTOR, e.len / SECTOR, e.content))
        .collect();
    let wanted = [
        (1, 2, Content::InMemory),
        // New data for what has a place shows when it has one of its own.
        (4, 1, Content::Data),
        (8, 1, Content::Preallocated),
        (9, 1, Content::InMemory),
        (10, 1, Content::Preallocated),
        (11, 1, Content::InMemory),
        (12, 2, Content::InMemory),
    ];
    assert_eq!(found, wanted);
    // What comes after a part of preallocated space has its own address.
    let whole = map(&fs, id)[1];
    let rest = map_with(&fs, id, &dirty);
    assert_eq!(rest[4].physical, whole.physical + 2 * SECTOR);
    assert_eq!(whole.from(whole.end()), None);
    let tail = whole.from(10 * SECTOR).unwrap();
    assert_eq!(
        (tail.physical, tail.len),
        (whole.physical + 2 * SECTOR, 2 * SECTOR)
    );
}

/// A file of more extents than are looked up at a time.
#[test]
fn a_long_map_comes_in_parts() {
    let scratch = Scratch::new("write-map-long");
    let device = share(make_small(&scratch, &["-n", "4096"]));
    let fs = open(&device).unwrap();
    let id = file(&fs, ROOT, "file").unwrap();
    for n in 0..300 {
        let data = pattern(SECTOR as usize, n);
        write(&fs, id, 2 * n * SECTOR, &data, 2 * n * SECTOR + SECTOR).unwrap();
    }
    let first = part(&fs, (id.tree, id.ino), (0, u64::MAX), &[], true).unwrap();
    assert!(first.extents.len() < 100 && first.next.is_some());
    let found: Vec<_> = map(&fs, id).iter().map(|e| e.logical / SECTOR).collect();
    assert_eq!(found, (0..300).map(|n| 2 * n).collect::<Vec<_>>());
}

/// Small files that are compressed are told apart.
#[test]
fn inline_data_may_be_compressed() {
    let scratch = Scratch::new("write-map-inline");
    for (options, content) in [
        (&["--compress", "zlib"][..], Content::CompressedInline),
        (&[], Content::Inline),
    ] {
        let device = share(make_mem(&scratch, options));
        let fs = open(&device).unwrap();
        let maps = maps(&fs);
        let inline: Vec<_> = maps
            .values()
            .flatten()
            .filter(|extent| extent.physical == 0)
            .collect();
        assert!(!inline.is_empty());
        assert!(
            inline.iter().all(|extent| extent.content == content),
            "{inline:?}"
        );
    }
}
