// SPDX-License-Identifier: GPL-2.0
//! Scrubs while memory or the device fails, at every single place.

use crate::places::*;
use crate::support::every::every;
use crate::support::*;
use kernel::fault;
use kernel::prelude::*;
use rbtrfs_engine::format::tree_id;
use rbtrfs_testdev::{FaultDevice, MemDevice, Op};

/// A volume with a bad copy of file data and one of a tree block.
fn damaged(name: &str, options: &[&str]) -> (Scratch, MemDevice) {
    let (scratch, image, fs) = volume(name, options);
    let (_, data) = first_file(&fs);
    image.flip(copies(&fs, data, 4096)[0]);
    image.flip(copies(&fs, root_block(&fs, tree_id::CSUM), 16384)[1] + 99);
    (scratch, (*image).clone())
}

#[test]
fn lack_of_memory_ends_it_and_loses_nothing() {
    let (scratch, start) = damaged("scrub-memory", DUP);
    let total = every("allocation", |n| {
        let image = share(start.clone());
        let fs = open(&image).unwrap();
        fault::fail_alloc_after(n);
        let outcome = run(&fs, &EVERYTHING);
        let reached = fault::count() > n;
        fault::clear();
        match outcome.result {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error, ENOMEM);
                assert!(reached);
            }
        }
        assert!(!fs.is_read_only());
        // What it has not done the next one does.
        let again = run_all(&fs, &EVERYTHING);
        let (one, other) = (outcome.progress, again);
        assert_eq!(other.uncorrectable_errors, 0);
        assert!(one.corrected_errors + other.corrected_errors >= 5);
        assert_eq!(run_all(&fs, &EVERYTHING).corrected_errors, 0);
        reached
    });
    println!("{total} allocations");
    assert!(total > 50, "{total}");
    drop(scratch);
}

#[test]
fn a_read_that_fails_once_is_no_loss() {
    for options in [DUP, SINGLE] {
        let scratch = Scratch::new("scrub-read");
        let start = make_mem(&scratch, options);
        let total = every("read", |n| {
            let image = share(start.clone());
            let device = share(FaultDevice::new(image.clone()));
            let fs = open(&device).unwrap();
            device.fail_after(Op::Read, n);
            let outcome = run(&fs, &EVERYTHING);
            let reached = device.counts().reads > n;
            device.clear();
            // A tree that has one copy may be what could not be read.
            assert!(
                matches!(outcome.result, Ok(()) | Err(EIO)),
                "{:?}",
                outcome.result
            );
            assert!(outcome.result.is_ok() || (reached && options == SINGLE));
            assert_eq!(outcome.progress.uncorrectable_errors, 0);
            assert_eq!(run_all(&fs, &READ_ONLY).corrected_errors, 0);
            reached
        });
        assert!(total >= 5, "{total}");
    }
}

#[test]
fn sectors_that_cannot_be_read_are_counted() {
    for options in [DUP, SINGLE] {
        let scratch = Scratch::new("scrub-unreadable");
        let image = share(make_mem(&scratch, options));
        let device = share(FaultDevice::new(image.clone()));
        let fs = open(&device).unwrap();
        // The trees that are needed are in memory by then.
        run_all(&fs, &READ_ONLY);
        let (data, blocks) = allocated(&fs);
        device.fail(Op::Read, 0, true);
        let found = run_all(&fs, &READ_ONLY);
        device.clear();
        let sectors = (data + blocks) / 4096;
        assert_eq!(
            (found.read_errors, found.uncorrectable_errors),
            (sectors, sectors)
        );
        assert_eq!(found.corrected_errors, 0);
        assert_eq!(found.super_errors, 2);
    }
}

#[test]
fn a_repair_that_cannot_be_written_is_none() {
    let (_scratch, start) = damaged("scrub-write", DUP);
    let image = share(start.clone());
    let device = share(FaultDevice::new(image.clone()));
    let fs = open(&device).unwrap();
    device.fail(Op::Write, 0, true);
    let found = run_all(&fs, &EVERYTHING);
    device.clear();
    assert_eq!((found.corrected_errors, found.uncorrectable_errors), (0, 5));
    assert_eq!(image.fingerprint(&start), start.fingerprint(&start));
    assert_eq!(run_all(&fs, &EVERYTHING).corrected_errors, 5);
}
