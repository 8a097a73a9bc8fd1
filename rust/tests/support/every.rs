// SPDX-License-Identifier: GPL-2.0
//! Walking through every place where something can fail, on all cores.

use std::sync::atomic::{AtomicU64, Ordering};

/// Names the place, should the test end there.
struct Iteration<'a>(&'a str, u64);

impl Drop for Iteration<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("at {} {}", self.0, self.1);
        }
    }
}

/// Calls `attempt` with 0, 1, 2 and so on, until the place of that number was not reached, which
/// the attempt tells by returning false: by then all was done without the fault, and so there is no
/// later place either. Returns how many places there are; `what` is their name. Each attempt sees a
/// clock that stands still, so that all of them do the same up to their fault.
pub fn every(what: &str, attempt: impl Fn(u64) -> bool + Sync) -> u64 {
    let (next, end) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let work = || {
        kernel::platform::clock::stop();
        loop {
            let n = next.fetch_add(1, Ordering::SeqCst);
            if n > end.load(Ordering::SeqCst) {
                break;
            }
            let _place = Iteration(what, n);
            if !attempt(n) {
                end.fetch_min(n, Ordering::SeqCst);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    end.into_inner()
}

/// A test for each kind of request that one of them, or the device from there on, fails in every
/// place. The function is called with the kind, and whether all fail that come after.
#[macro_export]
macro_rules! tests_of_failing_requests {
    ($fail_every:ident) => {
        #[test]
        fn a_read_that_fails_loses_nothing() {
            $fail_every(rbtrfs_testdev::Op::Read, false);
        }

        #[test]
        fn a_device_that_reads_no_more_loses_nothing() {
            $fail_every(rbtrfs_testdev::Op::Read, true);
        }

        #[test]
        fn a_write_that_fails_loses_nothing() {
            $fail_every(rbtrfs_testdev::Op::Write, false);
        }

        #[test]
        fn a_device_that_writes_no_more_loses_nothing() {
            $fail_every(rbtrfs_testdev::Op::Write, true);
        }

        #[test]
        fn a_flush_that_fails_loses_nothing() {
            $fail_every(rbtrfs_testdev::Op::Flush, false);
        }

        #[test]
        fn a_device_that_flushes_no_more_loses_nothing() {
            $fail_every(rbtrfs_testdev::Op::Flush, true);
        }
    };
}
