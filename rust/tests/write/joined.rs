// SPDX-License-Identifier: GPL-2.0
//! Data that is written in pieces which follow each other becomes one extent, as long as nobody
//! else knows of the first.

use crate::files::*;
use crate::support::*;
use rbtrfs_engine::subvol::file_extent::{self, Kind};
use rbtrfs_engine::subvol::subvolume::{self, NewSnapshot};
use rbtrfs_engine::subvol::write::*;
use rbtrfs_engine::trans::View;
use rbtrfs_engine::volume::Fs;
use std::vec::Vec;

/// The parts of a file: where each starts, its length, and how much of its extent it has.
fn parts(fs: &Fs, id: InodeId) -> Vec<(u64, u64, u64)> {
    let view = fs.running_view(id.tree).unwrap();
    let root = view.tree_root(id.tree).unwrap();
    let mut found = vec![];
    let (sector, all) = (fs.geometry.sectorsize, (0, u64::MAX / 2));
    file_extent::for_each(&view, root, id.ino, sector, all, &mut |extent| {
        if let Kind::Regular(r) = extent.kind {
            found.push((extent.offset, extent.len, r.disk_num_bytes));
        }
        Ok(true)
    })
    .unwrap();
    found
}

const PIECE: u64 = 64 * SECTOR;

/// A file that gets `count` pieces, with `between` called after each; and its parts, once the
/// volume was found good.
fn written(name: &str, count: u64, between: impl Fn(&Fs, InodeId, u64)) -> Vec<(u64, u64, u64)> {
    let mut found = None;
    for kind in KINDS {
        let scratch = Scratch::new(name);
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        let id = file(&fs, ROOT, "file").unwrap();
        let data = pattern((count * PIECE) as usize, 1);
        for (n, piece) in data.chunks(PIECE as usize).enumerate() {
            let at = n as u64 * PIECE;
            write(&fs, id, at, piece, at + PIECE).unwrap();
            between(&fs, id, n as u64);
        }
        assert!(read(&fs, id).unwrap() == data);
        let parts = parts(&fs, id);
        fs.commit().unwrap();
        drop(fs);
        scratch.assert_clean(&device);
        let fs = open(&device).unwrap();
        assert!(read(&fs, id).unwrap() == data);
        unlink(&fs, ROOT, b"file", now()).unwrap();
        evict(&fs, id).unwrap();
        fs.commit().unwrap();
        drop(fs);
        scratch.assert_clean(&device);
        assert_eq!(*found.get_or_insert(parts.clone()), parts);
    }
    found.unwrap()
}

#[test]
fn pieces_become_one_extent() {
    let parts = written("write-joined", 12, |_, _, _| ());
    assert_eq!(parts, [(0, 12 * PIECE, 12 * PIECE)]);
}

#[test]
fn what_is_committed_keeps_its_size() {
    let parts = written("write-joined-commit", 4, |fs, _, n| {
        if n == 1 {
            fs.commit().unwrap();
        }
    });
    let two = 2 * PIECE;
    assert_eq!(parts, [(0, two, two), (two, two, two)]);
}

#[test]
fn what_a_snapshot_shares_keeps_its_size() {
    let parts = written("write-joined-snapshot", 4, |fs, _, n| {
        if n == 1 {
            let shot = NewSnapshot {
                uuid: [1; 16],
                read_only: false,
                now: now(),
            };
            subvolume::snapshot(fs, ROOT.tree, ROOT, b"shot", &shot).unwrap();
        }
    });
    let two = 2 * PIECE;
    assert_eq!(parts[0], (0, two, two));
    assert_eq!(parts[1].0, two);
}

#[test]
fn what_another_file_shares_keeps_its_size() {
    let parts = written("write-joined-clone", 4, |fs, id, n| {
        if n == 1 {
            let range = CloneRange {
                src: id,
                src_offset: 0,
                len: PIECE,
                dst: file(fs, ROOT, "other").unwrap(),
                dst_offset: 0,
                dst_size: PIECE,
            };
            clone_range(fs, &range, Some(now())).unwrap();
        }
    });
    let two = 2 * PIECE;
    assert_eq!(parts, [(0, two, two), (two, two, two)]);
}

#[test]
fn what_was_cut_keeps_its_size() {
    let parts = written("write-joined-cut", 3, |fs, id, n| {
        if n == 1 {
            // The end of the first extent goes, and comes again from elsewhere.
            punch(fs, id, 2 * PIECE - SECTOR, 2 * PIECE, now()).unwrap();
            let data = pattern((3 * PIECE) as usize, 1);
            let at = (2 * PIECE - SECTOR) as usize;
            let sector = &data[at..at + SECTOR as usize];
            write(fs, id, at as u64, sector, 2 * PIECE).unwrap();
        }
    });
    assert_eq!(parts[0], (0, 2 * PIECE - SECTOR, 2 * PIECE));
}
