// SPDX-License-Identifier: GPL-2.0
//! Commits that are cut short: by a power cut at any point, by a device that fails, and by lack of
//! memory. The volume is what it was before or what it was to become, and `btrfs check` accepts it.

use crate::support::contents::packed;
use crate::support::cut::every_cut;
use crate::support::every::every;
use crate::support::proved::Proved;
use crate::support::*;
use kernel::fault;
use kernel::prelude::*;
use rbtrfs_engine::format::tree_id;
use rbtrfs_engine::trans::transaction::Reserve;
use rbtrfs_engine::tree::edit;
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::{FaultDevice, MemDevice, Op, RecordingDevice};

const ITEMS: u64 = 60;

/// A transaction that changes most trees: new items, and copies of all leaves of the top-level
/// subvolume.
fn change(fs: &Fs, round: u64) -> Result {
    let mut trans = fs.begin(Reserve::default())?;
    for n in 0..ITEMS {
        edit::insert(
            &mut trans,
            tree_id::ROOT,
            &key(round * ITEMS + n),
            &[7; 300],
        )?;
    }
    let reader = fs.reader()?;
    let mut cursor = reader.cursor(reader.root(tree_id::FS)?);
    cursor.seek(&rbtrfs_engine::format::Key::MIN)?;
    let mut n = 0;
    while let Some(key) = cursor.key() {
        if n % 50 == 0 {
            edit::cow_to(&mut trans, tree_id::FS, &key, 0)?;
        }
        n += 1;
        cursor.next()?;
    }
    drop(cursor);
    drop(reader);
    trans.commit()
}

/// The number of rounds of [`change`] that an image shows: all or nothing of each.
#[track_caller]
fn rounds(image: MemDevice) -> u64 {
    let device = share(image);
    let fs = open(&device).unwrap();
    read_everything(&fs);
    let reader = fs.reader().unwrap();
    let mut cursor = reader.cursor(reader.root(tree_id::ROOT).unwrap());
    cursor.seek(&key(0)).unwrap();
    let mut n = 0;
    while cursor.key().is_some_and(|found| found == key(n)) {
        n += 1;
        cursor.next().unwrap();
    }
    assert_eq!(n % ITEMS, 0);
    n / ITEMS
}

#[test]
fn a_power_cut_leaves_the_old_or_the_new_state() {
    let scratch = Scratch::new("cut");
    for start in [packed("tiny"), make_mem(&scratch, &["-m", "single"])] {
        let proved = Proved::new("cut-states", &start);
        let device = share(RecordingDevice::new(start));
        let fs = open(&device).unwrap();
        let mut ends = vec![];
        for round in 0..3 {
            change(&fs, round).unwrap();
            ends.push(device.events().len() as u64);
        }
        drop(fs);
        every_cut(&device, 4, |n, image| {
            let done = ends.iter().filter(|end| **end <= n).count() as u64;
            let found = rounds(image.clone());
            assert!(found == done || found == done + 1, "{found} after {done}");
            proved.assert_holds(image);
        });
    }
}

/// Fails every request of a kind in [`change`], that one alone or all that come after it as well.
fn fail_every(op: Op, all: bool) {
    let start = packed("tiny");
    let proved = Proved::new(&format!("fail-{op:?}-{all}"), &start);
    let total = every("request", |n| {
        let image = share(start.clone());
        let device = share(FaultDevice::new(image.clone()));
        device.fail(op, n, all);
        let fs = open(&device);
        let result = fs.as_ref().map_err(|e| *e).and_then(|fs| change(fs, 0));
        let reached = n < device.counts().of(op);
        device.clear();
        assert!(reached || result.is_ok());
        // The other mirror makes up for a failed read, and other superblocks for a copy's failed
        // write.
        if let Ok(fs) = fs {
            if result.is_err() {
                assert_eq!(result, Err(EIO));
                assert!(fs.is_read_only() || op == Op::Read);
                assert_eq!(fs.begin(Reserve::default()).is_err(), fs.is_read_only());
            }
            read_everything(&fs);
        }
        assert_eq!(rounds((*image).clone()), u64::from(result.is_ok()));
        proved.assert_holds(&image);
        reached
    });
    assert!(
        total > 0 && (op != Op::Write || total > 20),
        "{op:?} {total}"
    );
}

#[test]
fn a_device_that_fails_loses_nothing() {
    for op in [Op::Read, Op::Write, Op::Flush] {
        fail_every(op, false);
        fail_every(op, true);
    }
}

#[test]
fn lack_of_memory_loses_nothing() {
    let start = packed("tiny");
    let proved = Proved::new("memory", &start);
    let total = every("allocation", |n| {
        let image = share(start.clone());
        let fs = open(&image).unwrap();
        fault::fail_alloc_after(n);
        let result = change(&fs, 0);
        let reached = fault::count() > n;
        fault::clear();
        assert!(result == Ok(()) || result == Err(ENOMEM) && reached);
        read_everything(&fs);
        let mut expected = u64::from(result.is_ok());
        // What failed before anything was changed may be tried again.
        if result.is_err() {
            if fs.is_read_only() {
                assert!(matches!(fs.begin(Reserve::default()), Err(EROFS)));
            } else {
                change(&fs, 0).unwrap();
                expected = 1;
            }
        }
        drop(fs);
        assert_eq!(rounds((*image).clone()), expected);
        proved.assert_holds(&image);
        reached
    });
    assert!(total > 100, "{total}");
}
