// SPDX-License-Identifier: GPL-2.0
//! Balance while memory or the device fails, or the power, at every single place: the volume holds
//! the same files, and `btrfs check` accepts it.

use crate::contents::*;
use crate::support::cut::every_cut;
use crate::support::every::every;
use crate::support::proved::Proved;
use crate::support::*;
use kernel::fault;
use kernel::prelude::*;
use rbtrfs_engine::balance::control;
use rbtrfs_engine::format::balance::BalanceItem;
use rbtrfs_engine::state::{BalanceControl, Refusal};
use rbtrfs_engine::trans::transaction::Reserve;
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::{FaultDevice, MemDevice, Op, RecordingDevice};
use zerocopy::FromZeros;

/// Balance as the ioctl starts it, of everything that is there.
fn balance_all(fs: &Fs) -> Result {
    let item = BalanceItem {
        flags: EVERYTHING.into(),
        ..BalanceItem::new_zeroed()
    };
    match control::start(fs, BalanceControl::new(&item)?) {
        Ok(outcome) => outcome.result,
        Err(Refusal::Error(error)) => Err(error),
        Err(Refusal::Exclusive) => panic!("nothing else runs"),
    }
}

/// The volume that everything is tried on: every shape of reference, in a dozen of leaves. Balanced
/// without a fault, each of its block groups moves.
fn start() -> MemDevice {
    let image = packed("tiny");
    let device = share(image.clone());
    let fs = open(&device).unwrap();
    let old = block_groups(&fs, EVERYTHING).unwrap();
    assert!(old.len() >= 3, "{old:?}");
    let (result, log) = kernel::log::capture(|| balance_all(&fs));
    assert_eq!(result, Ok(()));
    for start in old {
        let moved = format!("relocating block group {start} ");
        assert!(log.iter().any(|line| line.contains(&moved)), "{log:?}");
    }
    image
}

/// A failed balance leaves a volume that is as the last commit left it: it takes changes, or, if a
/// transaction was aborted, none at all.
#[track_caller]
fn after_failure(fs: &Fs, image: &MemDevice, proved: &Proved) {
    read_everything(fs);
    assert_eq!(contents_now(fs), proved.before);
    proved.assert_holds(image);
    if fs.is_read_only() {
        assert!(matches!(fs.begin(Reserve::default()), Err(EROFS)));
    } else {
        assert_writable(fs);
        proved.assert_holds(image);
    }
}

#[test]
fn lack_of_memory_loses_nothing() {
    let start = start();
    let proved = Proved::new("balance-memory", &start);
    let total = every("allocation", |n| {
        let image = share(start.clone());
        // Mounting allocates, too.
        fault::fail_alloc_after(n);
        let fs = open(&image);
        let result = fs.as_ref().map_err(|e| *e).and_then(|fs| balance_all(fs));
        let reached = fault::count() > n;
        fault::clear();
        if let Err(error) = result {
            assert_eq!(error, ENOMEM);
            assert!(reached);
        }
        match fs {
            Ok(fs) if result.is_err() => after_failure(&fs, &image, &proved),
            _ => proved.assert_holds(&image),
        }
        reached
    });
    println!("{total} allocations, {} states", proved.checked());
    assert!(total > 1000, "{total}");
}

/// Fails every request of a kind, that one alone or all that come after it as well.
fn fail_every(op: Op, all: bool) {
    let start = start();
    let proved = Proved::new(&format!("balance-{op:?}-{all}"), &start);
    let total = every("request", |n| {
        let image = share(start.clone());
        let device = share(FaultDevice::new(image.clone()));
        device.fail(op, n, all);
        let fs = open(&device);
        let result = fs.as_ref().map_err(|e| *e).and_then(|fs| balance_all(fs));
        let counts = device.counts();
        let reached = n < counts.of(op);
        device.clear();
        match fs {
            Ok(fs) if result.is_err() => {
                // What could not be read was not changed either.
                assert!(op != Op::Read || !fs.is_read_only());
                after_failure(&fs, &image, &proved);
            }
            _ => proved.assert_holds(&image),
        }
        match result {
            // The last write is that of a copy of the superblock, which can be missing.
            Ok(()) => assert!(!all || !reached || (op == Op::Write && counts.writes == n + 1)),
            Err(error) => assert!(reached && (error == EIO || fs_says(error, op))),
        }
        reached
    });
    println!("{total} {op:?}, {} states", proved.checked());
    assert!(total >= 10, "{total}");
}

/// A volume whose superblock cannot be read is none.
fn fs_says(error: Error, op: Op) -> bool {
    op == Op::Read && error == EINVAL
}

crate::tests_of_failing_requests!(fail_every);

#[test]
fn a_power_cut_loses_nothing() {
    let start = start();
    let proved = Proved::new("balance-cut", &start);
    let device = share(RecordingDevice::new(start));
    balance_all(&open(&device).unwrap()).unwrap();
    let cuts = every_cut(&device, 4, |_, image| proved.assert_holds(image));
    println!("{cuts} cuts, {} states", proved.checked());
    proved.assert_holds(&device.image());
}
