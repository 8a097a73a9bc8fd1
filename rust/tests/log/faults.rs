// SPDX-License-Identifier: GPL-2.0
//! Lack of memory, and devices that fail, at every place of a replay: nothing is changed, and the
//! next one does it all.

use crate::listing::listing;
use crate::support::every::every;
use crate::support::*;
use crate::{captured, mount, recorded, LOGGED};
use kernel::fault;
use kernel::prelude::*;
use rbtrfs_testdev::{FaultDevice, MemDevice, Op};
use std::collections::HashSet;
use std::string::String;
use std::sync::Mutex;

/// What is left of a volume with a log.
struct Judge {
    scratch: Scratch,
    start: MemDevice,
    expected: String,
    seen: Mutex<HashSet<u64>>,
}

impl Judge {
    fn new(name: &str, what: &str) -> Self {
        let (start, expected) = recorded(name);
        Judge {
            scratch: Scratch::new(&format!("{name}-{what}")),
            start,
            expected,
            seen: Mutex::default(),
        }
    }

    /// Asserts that a volume whose replay ended with `result` has its log still or was replayed,
    /// and that the next mount finds all.
    #[track_caller]
    fn assert_replays(&self, image: &MemDevice, result: Result, unseen: bool) {
        let has_log = open(&share(image.clone())).unwrap().has_log();
        assert!(result.is_err() || has_log == unseen);
        let state = image.fingerprint(&self.start);
        if !self.seen.lock().unwrap().insert(state) {
            return;
        }
        let device = share(image.clone());
        let fs = mount(&device).unwrap();
        assert_eq!(listing(&fs), self.expected);
        drop(fs);
        self.scratch.assert_clean(&device);
    }
}

#[test]
fn a_lack_of_memory_loses_nothing() {
    let judge = Judge::new(LOGGED[0], "memory");
    let places = every("allocation", |n| {
        let device = share(judge.start.clone());
        fault::fail_alloc_after(n);
        let (result, _) = captured(|| mount(&device).map(|_| ()));
        let reached = fault::count() > n;
        fault::clear();
        if let Err(error) = result {
            assert_eq!(error, ENOMEM);
        }
        assert!(reached || result.is_ok());
        judge.assert_replays(&device, result, false);
        reached
    });
    assert!(places > 300, "{places}");
}

fn fail_every(op: Op, all: bool) {
    let judge = Judge::new(LOGGED[0], &format!("{op:?}-{all}"));
    let places = every("request", |n| {
        let image = share(judge.start.clone());
        let device = share(FaultDevice::new(image.clone()));
        device.fail(op, n, all);
        let (result, _) = captured(|| mount(&device).map(|_| ()));
        let reached = n < device.counts().of(op);
        assert!(reached || result.is_ok());
        // Only the first superblock has the log. Without it another one leads to the last commit.
        let unseen = op == Op::Read && n == 0 && result.is_ok();
        judge.assert_replays(&image, result, unseen);
        reached
    });
    assert!(places > 0, "{op:?} {places}");
}

crate::tests_of_failing_requests!(fail_every);
