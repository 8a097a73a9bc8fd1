// SPDX-License-Identifier: GPL-2.0
//! fsync without memory, and with a device that fails: whatever the log cannot have becomes a
//! commit, and what either promised stays promised.

use crate::model::Model;
use crate::promises::*;
use crate::support::every::every;
use crate::support::*;
use kernel::fault;
use kernel::prelude::*;
use rbtrfs_engine::log;
use rbtrfs_engine::subvol::write::InodeId;
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::{FaultDevice, Op, RecordingDevice};
use std::sync::atomic::{AtomicU64, Ordering};

const STEPS: usize = 60;
const SEED: u64 = 3;

/// What became of the runs with a fault.
#[derive(Default)]
struct Tally {
    /// The sync said that all is well: it was a commit instead, or the other copy was read.
    kept: AtomicU64,
    /// The sync failed, and with it the transaction.
    aborted: AtomicU64,
}

/// Takes random steps, and asserts that a mount finds all that was promised by then, whether or not
/// a sync failed. Returns whether one did.
fn run(
    fs: &Fs,
    recording: &kernel::sync::Arc<RecordingDevice>,
    sync: &mut dyn FnMut(&Fs, InodeId, u64) -> Result,
) -> Result {
    let mut model = Model::new(fs, SEED);
    model.reuse_names = true;
    let mut history = History::new(recording, &model);
    let result = (0..STEPS).try_for_each(|_| history.step(fs, &mut model, sync));
    if result.is_err() {
        assert!(fs.is_read_only());
    }
    let image = recording.image();
    let found = mount(&share(image.clone()));
    history.assert_kept(history.events(), &found);
    read_everything(&found);
    result
}

fn count(tally: &Tally, result: &Result, reached: bool) {
    let counter = match result {
        Ok(()) => &tally.kept,
        Err(_) => &tally.aborted,
    };
    counter.fetch_add(u64::from(reached), Ordering::SeqCst);
}

#[test]
fn lack_of_memory_breaks_no_promise() {
    let start = make_small(&Scratch::new("fsync-memory"), KINDS[0]);
    let tally = Tally::default();
    let total = every("allocation", |n| {
        let recording = share(RecordingDevice::new(start.clone()));
        let fs = open(&recording).unwrap();
        // Allocations up to the one that fails, which is within a sync.
        let mut left = Some(n);
        let (result, _) = kernel::log::capture(|| {
            run(&fs, &recording, &mut |fs, id, changed| {
                let Some(before) = left else {
                    return log::sync_inode(fs, id, changed);
                };
                fault::fail_alloc_after(before);
                let result = log::sync_inode(fs, id, changed);
                left = before.checked_sub(fault::count());
                fault::clear();
                result
            })
        });
        let reached = left.is_none();
        if let Err(error) = result {
            assert!(reached && error == ENOMEM);
        }
        count(&tally, &result, reached);
        reached
    });
    let (kept, aborted) = (tally.kept.into_inner(), tally.aborted.into_inner());
    println!("{total} allocations, {kept} kept, {aborted} aborted");
    assert!(kept > 400 && aborted > 200);
}

/// Fails a request of each sync in turn, that one alone or all that come after it.
fn fail_every(op: Op, all: bool) {
    let start = make_small(&Scratch::new(&format!("fsync-{op:?}-{all}")), KINDS[0]);
    let tally = Tally::default();
    let total = every("request", |n| {
        let recording = share(RecordingDevice::new(start.clone()));
        let device = share(FaultDevice::new(recording.clone()));
        let fs = open(&device).unwrap();
        let mut left = Some(n);
        let (result, _) = kernel::log::capture(|| {
            run(&fs, &recording, &mut |fs, id, changed| {
                // Or else nothing would have to be read.
                fs.cache.shrink(0);
                let Some(before) = left else {
                    return log::sync_inode(fs, id, changed);
                };
                device.fail(op, before, all);
                let result = log::sync_inode(fs, id, changed);
                left = before.checked_sub(device.counts().of(op));
                device.clear();
                result
            })
        });
        let reached = left.is_none();
        if let Err(error) = result {
            assert!(reached && error == EIO);
        }
        count(&tally, &result, reached);
        reached
    });
    let (kept, aborted) = (tally.kept.into_inner(), tally.aborted.into_inner());
    println!("{total} {op:?}, {kept} kept, {aborted} aborted");
    match op {
        // There are two copies of all that is read.
        Op::Read if !all => assert!(kept > 10 && aborted == 0),
        Op::Read => assert!(aborted > 10),
        // A log that cannot be written is a commit.
        Op::Write | Op::Flush if !all => assert!(kept > 5 && aborted > 2),
        // Only copies of the superblock may fail.
        Op::Write | Op::Flush => assert!(kept < 10 && aborted > 10),
    }
}

crate::tests_of_failing_requests!(fail_every);
