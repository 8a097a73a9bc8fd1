// SPDX-License-Identifier: GPL-2.0
//! Commits that are cut short: by a power cut at any point, by a device that fails, and by lack of memory. The volume
//! is what it was before or what it was to become, and `btrfs check` accepts it.

use crate::support::*;
use kernel::fault;
use kernel::prelude::*;
use rbtrfs_engine::format::tree_id;
use rbtrfs_engine::tree::edit;
use rbtrfs_engine::volume::transaction::Reserve;
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::{FaultDevice, MemDevice, Op, RecordingDevice};

const ITEMS: u64 = 60;

/// A transaction that changes most trees: new items, and copies of all leaves of the top-level subvolume.
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
    for kind in [&["-n", "4096", "-m", "dup"][..], &["-m", "single"]] {
        let scratch = Scratch::new("cut");
        let device = share(RecordingDevice::new(make_mem(&scratch, kind)));
        let fs = open(&device).unwrap();
        for round in 0..3 {
            change(&fs, round).unwrap();
        }
        drop(fs);
        let events = device.events().len();
        let mut random = 12345u64;
        let mut last = 0;
        for n in 0..=events {
            // Half of what was not flushed is lost, another half each time.
            let survives = |_| {
                random = random
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                random >> 63 == 0
            };
            let image = device.cut_with(n, survives);
            let found = rounds(image.clone());
            assert!(
                found == last || found == last + 1,
                "{n} of {events}: {found} after {last}"
            );
            if found != last || n % 16 == 0 {
                scratch.assert_clean(&image);
            }
            last = found;
        }
        assert_eq!(last, 3);
    }
}

#[test]
fn a_device_that_fails_loses_nothing() {
    let scratch = Scratch::new("fail");
    let start = make_mem(&scratch, &["-n", "4096", "-m", "dup"]);
    let counts = {
        let inner = share(start.clone());
        let device = share(FaultDevice::new(inner));
        let fs = open(&device).unwrap();
        device.clear();
        change(&fs, 0).unwrap();
        device.counts()
    };
    assert!(counts.writes > 20 && counts.flushes >= 1 && counts.reads > 5);
    for (op, count) in [
        (Op::Read, counts.reads),
        (Op::Write, counts.writes),
        (Op::Flush, counts.flushes),
    ] {
        for n in 0..count {
            for all in [false, true] {
                let image = share(start.clone());
                let device = share(FaultDevice::new(image.clone()));
                let fs = open(&device).unwrap();
                if all {
                    device.fail_all_after(op, n);
                } else {
                    device.fail_after(op, n);
                }
                let result = change(&fs, 0);
                device.clear();
                // The other mirror makes up for a failed read, and other superblocks for a copy's failed write.
                if result.is_err() {
                    if op != Op::Read {
                        assert!(fs.is_read_only());
                    }
                    assert!(fs.begin(Reserve::default()).is_err() || op == Op::Read);
                }
                read_everything(&fs);
                drop(fs);
                let found = rounds((*image).clone());
                assert_eq!(
                    found,
                    u64::from(result.is_ok()),
                    "{op:?} {n} {all} {result:?}"
                );
                if n % 16 == 0 {
                    scratch.assert_clean(&image);
                }
            }
        }
    }
}

#[test]
fn lack_of_memory_loses_nothing() {
    let scratch = Scratch::new("memory");
    let start = make_mem(&scratch, &["-n", "4096", "-m", "single"]);
    let total = {
        let device = share(start.clone());
        let fs = open(&device).unwrap();
        fault::clear();
        change(&fs, 0).unwrap();
        fault::count()
    };
    assert!(total > 100, "{total}");
    let mut failed = 0;
    for n in 0..total {
        let image = share(start.clone());
        let fs = open(&image).unwrap();
        fault::fail_alloc_after(n);
        let result = change(&fs, 0);
        fault::clear();
        failed += u64::from(result.is_err());
        read_everything(&fs);
        // What failed before anything was changed may be tried again.
        if !fs.is_read_only() && result.is_err() {
            change(&fs, 0).unwrap();
            drop(fs);
            assert_eq!(rounds((*image).clone()), 1, "{n}");
        } else {
            drop(fs);
            assert_eq!(
                rounds((*image).clone()),
                u64::from(result.is_ok()),
                "{n} {result:?}"
            );
        }
        if n % 64 == 0 {
            scratch.assert_clean(&image);
        }
    }
    assert!(failed > total / 2, "{failed} of {total}");
}
