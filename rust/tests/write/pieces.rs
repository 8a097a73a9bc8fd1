// SPDX-License-Identifier: GPL-2.0
//! Several pieces of data that go into a file together.

use crate::files::*;
use crate::script::used;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::format::tree_id;
use rbtrfs_engine::subvol::write::*;
use rbtrfs_engine::volume::Fs;
use std::vec::Vec;

/// The sectors of `data` that `numbers` tell, and where each is.
fn sectors<'a>(data: &'a [u8], numbers: &[u64]) -> Vec<(u64, &'a [u8])> {
    let sector = |n: &u64| {
        let at = n * SECTOR;
        (at, &data[at as usize..(at + SECTOR) as usize])
    };
    numbers.iter().map(sector).collect()
}

/// Puts the sectors of `new` that `numbers` tell into `old`.
fn patch(old: &mut [u8], new: &[u8], numbers: &[u64]) {
    for (at, sector) in sectors(new, numbers) {
        old[at as usize..at as usize + sector.len()].copy_from_slice(sector);
    }
}

/// A file of so many sectors, all of them in one extent.
fn one_extent(fs: &Fs, len: u64) -> (InodeId, Vec<u8>) {
    let data = pattern((len * SECTOR) as usize, 1);
    let id = file(fs, ROOT, "file").unwrap();
    fill(fs, id, &data).unwrap();
    (id, data)
}

/// The items of a tree.
fn items(fs: &Fs, tree: u64) -> usize {
    fs.commit().unwrap();
    leaves(fs, tree).len()
}

#[test]
fn pieces_go_in_together() {
    for kind in KINDS {
        let scratch = Scratch::new("write-pieces");
        let device = share(make_mem(&scratch, kind));
        let fs = open(&device).unwrap();
        let (id, mut wanted) = one_extent(&fs, 400);
        let checksum_leaves = items(&fs, tree_id::CSUM);
        // Every third sector, from the last one on.
        let numbers: Vec<_> = (0..400).rev().step_by(3).collect();
        let new = pattern(wanted.len(), 2);
        let size = wanted.len() as u64;
        let mut placed = place(&fs, id, &sectors(&new, &numbers), size).unwrap();
        let starts: Vec<_> = placed.iter().map(|new| new.extent.start()).collect();
        assert!(starts.windows(2).all(|w| w[0] + SECTOR == w[1]));
        let (item, count) = insert_pieces(&fs, id, &mut placed.iter_mut()).unwrap();
        assert_eq!(item.nbytes.get(), size);
        assert!((16..=64).contains(&count), "{count}");
        assert!(placed[..count].iter().all(|new| new.extent.is_empty()));
        placed.drain(..count);
        while !placed.is_empty() {
            let (_, count) = insert_pieces(&fs, id, &mut placed.iter_mut()).unwrap();
            placed.drain(..count);
        }
        patch(&mut wanted, &new, &numbers);
        assert!(read(&fs, id).unwrap() == wanted);
        // Their checksums are neighbours.
        assert!(items(&fs, tree_id::CSUM) <= checksum_leaves + 1);
        drop(fs);
        scratch.assert_clean(&device);
        mounted(&scratch, &device, |dir| {
            assert!(std::fs::read(dir.join("file")).unwrap() == wanted);
        });
    }
}

#[test]
fn no_piece_goes_in_after_one_with_an_error() {
    let scratch = Scratch::new("write-pieces-error");
    let device = share(make_mem(&scratch, KINDS[0]));
    let fs = open(&device).unwrap();
    let (id, mut wanted) = one_extent(&fs, 16);
    let new = pattern(wanted.len(), 2);
    let numbers = [1, 9, 5, 12];
    let used_before = used(&fs);
    let mut placed = place(&fs, id, &sectors(&new, &numbers), 16 * SECTOR).unwrap();
    assert_eq!(used(&fs), used_before + 4 * SECTOR);
    placed[2].sums.clear();
    let (_, count) = insert_pieces(&fs, id, &mut placed.iter_mut()).unwrap();
    assert_eq!(count, 2);
    placed.drain(..2);
    let failed = insert_pieces(&fs, id, &mut placed.iter_mut());
    assert_eq!(failed.map(|_| ()), Err(EINVAL));
    assert!(!fs.is_read_only());
    placed.remove(0);
    let (_, count) = insert_pieces(&fs, id, &mut placed.iter_mut()).unwrap();
    assert_eq!(count, 1);
    // What did not go in is given back.
    assert_eq!(used(&fs), used_before + 3 * SECTOR);
    patch(&mut wanted, &new, &[1, 9, 12]);
    assert_eq!(read(&fs, id).unwrap(), wanted);
    fs.commit().unwrap();
    scratch.assert_clean(&device);
}

#[test]
fn a_piece_that_lost_its_place_is_told_alone() {
    let scratch = Scratch::new("write-pieces-lost");
    let device = share(make_mem(&scratch, KINDS[0]));
    let fs = open(&device).unwrap();
    let id = file(&fs, ROOT, "file").unwrap();
    let size = 16 * SECTOR;
    preallocate(&fs, id, 0, 12 * SECTOR, size, now()).unwrap();
    let mut wanted = vec![0; size as usize];
    let new = pattern(wanted.len(), 2);
    let numbers = [0, 14, 5, 6, 3, 15];
    let mut placed = place(&fs, id, &sectors(&new, &numbers), size).unwrap();
    let in_place: Vec<_> = placed.iter().map(|new| new.extent.is_nocow()).collect();
    assert_eq!(in_place, [true, false, true, true, true, false]);
    assert_eq!(placed[0].extent.split(1).map(|_| ()), Err(EINVAL));
    punch(&fs, id, 6 * SECTOR, 7 * SECTOR, now()).unwrap();
    let (_, count) = insert_pieces(&fs, id, &mut placed.iter_mut()).unwrap();
    assert_eq!(count, 3);
    placed.drain(..3);
    let lost = insert_pieces(&fs, id, &mut placed.iter_mut());
    assert_eq!(lost.map(|_| ()), Err(EAGAIN));
    placed.remove(0);
    let (_, count) = insert_pieces(&fs, id, &mut placed.iter_mut()).unwrap();
    assert_eq!(count, 2);
    patch(&mut wanted, &new, &[0, 14, 5, 3, 15]);
    assert_eq!(read(&fs, id).unwrap(), wanted);
    fs.commit().unwrap();
    scratch.assert_clean(&device);
}

#[test]
fn space_is_split_and_given_back() {
    let scratch = Scratch::new("write-split");
    let fs = open(&share(make_mem(&scratch, KINDS[0]))).unwrap();
    let before = used(&fs);
    let mut rest = fs.alloc_data(None, 8 * SECTOR).unwrap();
    let start = rest.start();
    for len in [0, 100, 8 * SECTOR, 9 * SECTOR] {
        assert_eq!(rest.split(len).map(|_| ()), Err(EINVAL));
    }
    let first = rest.split(3 * SECTOR).unwrap();
    assert_eq!((first.start(), first.len()), (start, 3 * SECTOR));
    assert_eq!((rest.start(), rest.len()), (start + 3 * SECTOR, 5 * SECTOR));
    assert_eq!(first.write(3 * SECTOR, &[0; 4096]), Err(EINVAL));
    drop(rest);
    assert_eq!(used(&fs), before + 3 * SECTOR);
    drop(first);
    assert_eq!(used(&fs), before);
}
