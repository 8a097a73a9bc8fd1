// SPDX-License-Identifier: GPL-2.0
//! How scrubs begin and end: one at a time, cancelled, interrupted, resumed.

use crate::places::*;
use kernel::prelude::*;
use rbtrfs_engine::scrub::{scrub, ScrubArgs};
use rbtrfs_engine::state::ScrubProgress;
use std::cell::Cell;

#[test]
fn what_was_interrupted_is_resumed_where_it_was() {
    let (_scratch, _image, fs) = volume("scrub-resumed", DUP);
    let whole = run_all(&fs, &EVERYTHING);
    // Each time it gets a little further.
    let (mut sum, mut start, mut runs) = (ScrubProgress::default(), 0, 0);
    loop {
        let calls = Cell::new(0);
        let args = ScrubArgs {
            start,
            ..EVERYTHING
        };
        let outcome = scrub(&fs, &args, &|| {
            calls.set(calls.get() + 1);
            calls.get() > 2
        });
        let part = outcome.progress;
        sum.data_bytes_scrubbed += part.data_bytes_scrubbed;
        sum.tree_bytes_scrubbed += part.tree_bytes_scrubbed;
        sum.data_extents_scrubbed += part.data_extents_scrubbed;
        sum.tree_extents_scrubbed += part.tree_extents_scrubbed;
        sum.last_physical = part.last_physical;
        runs += 1;
        match outcome.result {
            Ok(()) => break,
            Err(error) => assert_eq!(error, EINTR),
        }
        assert!(part.last_physical > start);
        start = part.last_physical;
    }
    assert!(runs > 3, "{runs}");
    assert_eq!(sum, whole);
}

#[test]
fn a_signal_ends_it() {
    let (_scratch, _image, fs) = volume("scrub-signal", DUP);
    let task = kernel::platform::signal::current();
    task.send(false);
    let outcome = run(&fs, &EVERYTHING);
    task.clear();
    assert_eq!(outcome.result, Err(EINTR));
    assert_eq!(outcome.progress, ScrubProgress::default());
    assert_eq!(fs.state.scrub_progress(), Err(ENOTCONN));
}

#[test]
fn one_at_a_time_and_others_may_look_and_cancel() {
    let (_scratch, _image, fs) = volume("scrub-cancel", DUP);
    assert_eq!(fs.state.cancel_scrub(), Err(ENOTCONN));
    assert_eq!(fs.state.scrub_progress(), Err(ENOTCONN));
    let calls = Cell::new(0);
    let outcome = std::thread::scope(|scope| {
        let canceler = Cell::new(None);
        let outcome = scrub(&fs, &EVERYTHING, &|| {
            calls.set(calls.get() + 1);
            assert_eq!(run(&fs, &EVERYTHING).result, Err(EINPROGRESS));
            let progress = fs.state.scrub_progress().unwrap();
            if calls.get() == 6 {
                assert!(progress.last_physical > 0);
                canceler.set(Some(scope.spawn(|| fs.state.cancel_scrub())));
            }
            // Nothing but the cancel ends it from here on.
            calls.get() > 6 && {
                calls.set(6);
                std::thread::yield_now();
                false
            }
        });
        let canceler = canceler.take().expect("the scrub has enough windows");
        assert_eq!(canceler.join().unwrap(), Ok(()));
        outcome
    });
    // The cancel may come after the last window.
    assert!(matches!(outcome.result, Err(ECANCELED) | Ok(())));
    assert_eq!(fs.state.scrub_progress(), Err(ENOTCONN));
}

#[test]
fn what_is_asked_for_must_be_there() {
    let (_scratch, _image, fs) = volume("scrub-nodev", DUP);
    let args = ScrubArgs {
        devid: 2,
        start: 4096,
        ..EVERYTHING
    };
    let outcome = run(&fs, &args);
    assert_eq!(outcome.result, Err(ENODEV));
    assert_eq!(outcome.progress.last_physical, 4096);
    fs.force_read_only(EIO);
    assert_eq!(run(&fs, &READ_ONLY).result, Err(EROFS));
}
