// SPDX-License-Identifier: GPL-2.0
//! Balance while memory or the device fails, or the power: the volume holds the same files, and `btrfs check`
//! accepts it.

use crate::contents::*;
use crate::support::*;
use kernel::fault;
use kernel::prelude::*;
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::{FaultDevice, MemDevice, Op, RecordingDevice};

/// How many places to fail at are tried at most, and how many of the results `btrfs check` looks at.
const PLACES: u64 = 250;
const CHECKED: u64 = 8;

const OPTIONS: &[&str] = &["-n", "4096", "-m", "dup"];

/// The places to fail at: all, or evenly spread ones.
fn places(total: u64) -> impl Iterator<Item = (u64, bool)> {
    let step = total.div_ceil(PLACES).max(1);
    let check = (total / step / CHECKED).max(1);
    (0..total)
        .step_by(step as usize)
        .enumerate()
        .map(move |(i, n)| (n, (i as u64) % check == 0))
}

/// The volume as it is now, and as it is for the next mount.
#[track_caller]
fn assert_same(scratch: &Scratch, image: &MemDevice, check: bool, before: &[(u64, u64)]) {
    let device = share(image.clone());
    let fs = open(&device).unwrap();
    read_everything(&fs);
    if check {
        assert_eq!(contents_now(&fs), before);
        scratch.assert_clean(image);
    }
}

#[test]
fn lack_of_memory_loses_nothing() {
    let scratch = Scratch::new("balance-memory");
    let start = small(&scratch, OPTIONS);
    let (total, before) = {
        let fs = open(&share(start.clone())).unwrap();
        let before = contents_now(&fs);
        fault::clear();
        balance(&fs, EVERYTHING).unwrap();
        (fault::count(), before)
    };
    assert!(total > 1000, "{total}");
    let mut failed = 0;
    for (n, check) in places(total) {
        let image = share(start.clone());
        let fs = open(&image).unwrap();
        fault::fail_alloc_after(n);
        let result = balance(&fs, EVERYTHING);
        fault::clear();
        failed += u64::from(result.is_err());
        if result.is_err() {
            assert_eq!(result, Err(ENOMEM), "{n}");
            if !fs.is_read_only() {
                assert_writable(&fs);
            }
        }
        drop(fs);
        assert_same(&scratch, &image, check, &before);
    }
    assert!(failed > PLACES / 4, "{failed} of {total}");
}

#[test]
fn a_device_that_fails_loses_nothing() {
    let scratch = Scratch::new("balance-device");
    let start = small(&scratch, OPTIONS);
    let (counts, before) = {
        let device = share(FaultDevice::new(share(start.clone())));
        let fs = open(&device).unwrap();
        device.clear();
        balance(&fs, EVERYTHING).unwrap();
        let counts = device.counts();
        (counts, contents_now(&fs))
    };
    for (op, total) in [
        (Op::Read, counts.reads),
        (Op::Write, counts.writes),
        (Op::Flush, counts.flushes),
    ] {
        assert!(total >= 3, "{op:?} {total}");
        for (n, check) in places(total) {
            let image = share(start.clone());
            let device = share(FaultDevice::new(image.clone()));
            let fs = open(&device).unwrap();
            // One request, or the device for good.
            let all = n % 2 == 0;
            if all {
                device.fail_all_after(op, n);
            } else {
                device.fail_after(op, n);
            }
            let result = balance(&fs, EVERYTHING);
            device.clear();
            assert!(!all || result.is_err(), "{op:?} {n}");
            after_failure(&fs, op, result);
            drop(fs);
            assert_same(&scratch, &image, check, &before);
        }
    }
}

fn after_failure(fs: &Fs, op: Op, result: Result) {
    if result.is_err() {
        assert_eq!(result, Err(EIO));
        match op {
            // What could not be read was not changed either.
            Op::Read => assert_writable(fs),
            _ if fs.is_read_only() => {}
            _ => assert_writable(fs),
        }
    }
    read_everything(fs);
}

#[test]
fn a_power_cut_loses_nothing() {
    for options in [OPTIONS, &["-n", "16384", "-m", "single"]] {
        let scratch = Scratch::new("balance-cut");
        let device = share(RecordingDevice::new(small(&scratch, options)));
        let fs = open(&device).unwrap();
        let before = contents_now(&fs);
        balance(&fs, EVERYTHING).unwrap();
        drop(fs);
        let events = device.events().len() as u64;
        let mut random = 12345u64;
        for (n, check) in places(events + 1) {
            // Half of what was not flushed is lost, another half each time.
            let survives = |_| {
                random = random
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                random >> 63 == 0
            };
            let image = device.cut_with(n as usize, survives);
            assert_same(&scratch, &image, check, &before);
        }
        assert_same(&scratch, &device.image(), true, &before);
    }
}
