// SPDX-License-Identifier: GPL-2.0
//! Space for data that is given back without having been used: none of it is lost, not even without
//! memory.

use crate::files::*;
use crate::support::every::every;
use crate::support::*;
use kernel::fault;
use kernel::prelude::*;
use rbtrfs_engine::balance::committed_usage::usage;
use rbtrfs_engine::format::chunk::block_group_flags as bg;
use rbtrfs_engine::space::OrderedExtent;
use rbtrfs_engine::subvol::write::{evict, preallocate, preallocated, unlink};
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::MemDevice;
use std::vec::Vec;

/// Enough extents for several leaves of a set.
const EXTENTS: u64 = 400;

/// Bytes of data space that are allocated for data on its way, and such that are free.
fn reserved(fs: &Fs) -> (u64, u64) {
    let sums = usage(fs).unwrap();
    let data = sums.iter().filter(|sum| sum.flags & bg::DATA != 0);
    data.fold((0, 0), |(reserved, free), sum| {
        (
            reserved + sum.reserved,
            free + sum.total - sum.used - sum.reserved - sum.pinned,
        )
    })
}

/// One sector each, side by side.
fn allocate(fs: &Fs) -> Vec<Option<OrderedExtent>> {
    let extents = (0..EXTENTS).map(|_| Some(fs.alloc_data(None, SECTOR).unwrap()));
    extents.collect()
}

/// In an order that leaves as many gaps as there can be, and then closes them.
fn order() -> impl Iterator<Item = usize> {
    let of = |rest: u64| (0..EXTENTS).filter(move |n| n % 3 == rest);
    of(1).chain(of(0)).chain(of(2)).map(|n| n as usize)
}

/// The next operation finds all of the space free again.
#[track_caller]
fn assert_free(fs: &Fs, before: u64) {
    assert!(!fs.is_read_only());
    file(fs, ROOT, "next").unwrap();
    assert_eq!(reserved(fs), (0, before));
    let extent = fs.alloc_data(None, EXTENTS * SECTOR).unwrap();
    assert_eq!(extent.len(), EXTENTS * SECTOR, "it is in one piece");
    drop(extent);
    fs.commit().unwrap();
}

fn start(scratch: &Scratch) -> MemDevice {
    make_small(scratch, &["-n", "4096", "-m", "single"])
}

#[test]
fn lack_of_memory_loses_no_space() {
    let scratch = Scratch::new("write-in-flight");
    let image = start(&scratch);
    let total = every("allocation", |n| {
        let device = share(image.clone());
        let fs = open(&device).unwrap();
        file(&fs, ROOT, "first").unwrap();
        let (none, before) = reserved(&fs);
        assert_eq!(none, 0);
        let mut extents = allocate(&fs);
        fault::fail_alloc_after(n);
        for at in order() {
            extents[at] = None;
        }
        let reached = fault::count() > n;
        fault::clear();
        assert_free(&fs, before);
        reached
    });
    assert!(total > 5, "{total}");
}

/// As above, with memory for none of it.
#[test]
fn space_is_given_back_once_there_is_memory() {
    let scratch = Scratch::new("write-in-flight-all");
    let device = share(start(&scratch));
    let fs = open(&device).unwrap();
    file(&fs, ROOT, "first").unwrap();
    let (_, before) = reserved(&fs);
    let mut extents = allocate(&fs);
    for at in order() {
        fault::fail_alloc_after(0);
        extents[at] = None;
        fault::clear();
    }
    assert_free(&fs, before);
    scratch.assert_clean(&device);
}

/// A volume with gaps of one sector each, so that what is in an ordered extent there touches
/// nothing else.
fn with_gaps(scratch: &Scratch) -> MemDevice {
    let device = share(start(scratch));
    let fs = open(&device).unwrap();
    let (kept, gone) = (
        file(&fs, ROOT, "kept").unwrap(),
        file(&fs, ROOT, "gone").unwrap(),
    );
    for at in (0..EXTENTS).map(|n| n * SECTOR) {
        for id in [kept, gone] {
            write(&fs, id, at, &pattern(SECTOR as usize, at), at + SECTOR).unwrap();
        }
    }
    unlink(&fs, ROOT, b"gone", now()).unwrap();
    evict(&fs, gone).unwrap();
    fs.commit().unwrap();
    MemDevice::clone(&device)
}

/// An allocation that fails takes nothing with it.
#[test]
fn an_allocation_that_fails_takes_no_space() {
    let scratch = Scratch::new("write-in-flight-alloc");
    let image = with_gaps(&scratch);
    let total = every("allocation", |n| {
        let fs = open(&share(image.clone())).unwrap();
        file(&fs, ROOT, "first").unwrap();
        let (_, before) = reserved(&fs);
        fault::fail_alloc_after(n);
        let extents: Result<Vec<_>> = (0..EXTENTS / 2)
            .map(|_| fs.alloc_data(None, SECTOR))
            .collect();
        let reached = fault::count() > n;
        fault::clear();
        match extents {
            Ok(extents) => assert_eq!(extents.len() as u64, EXTENTS / 2),
            Err(error) => assert!(reached && error == ENOMEM),
        }
        assert_free(&fs, before);
        reached
    });
    // More than the one for each extent.
    assert!(total > EXTENTS / 2, "{total}");
}

/// Space that a file has already can be written to by others once the first gave it up.
#[test]
fn lack_of_memory_keeps_no_space_busy() {
    let scratch = Scratch::new("write-in-flight-busy");
    let image = start(&scratch);
    let total = every("allocation", |n| {
        let fs = open(&share(image.clone())).unwrap();
        let id = file(&fs, ROOT, "file").unwrap();
        preallocate(&fs, id, 0, EXTENTS * SECTOR, EXTENTS * SECTOR, now()).unwrap();
        let place = |at: u64| preallocated(&fs, id, at * SECTOR, SECTOR);
        let mut extents: Vec<_> = (0..EXTENTS).map(|at| place(at).unwrap()).collect();
        assert!(extents.iter().all(Option::is_some));
        assert!(place(7).unwrap().is_none());
        fault::fail_alloc_after(n);
        for at in order() {
            extents[at] = None;
        }
        let reached = fault::count() > n;
        fault::clear();
        file(&fs, ROOT, "next").unwrap();
        assert!((0..EXTENTS).all(|at| place(at).unwrap().is_some()));
        reached
    });
    assert!(total > 2, "{total}");
}
