// SPDX-License-Identifier: GPL-2.0
//! Every single allocation, read, and write of the stream fails: an error or the same stream, never
//! anything else.

use super::*;
use kernel::fault;
use std::string::String;
use support::contents::packed;
use support::every::every;

#[path = "../support/mod.rs"]
mod support;

fn device(image: &MemDevice) -> Arc<dyn BlockDevice> {
    Arc::new(image.clone(), GFP_KERNEL).unwrap()
}

/// A volume and what is sent from it.
type Case<'a> = (MemDevice, SendArgs<'a>);

/// Streams of a small volume with a little of everything, full and incremental, and the richest of
/// the recorded ones.
fn cases(richest: &Stream) -> [Case<'_>; 6] {
    let tiny = packed("tiny");
    let args = SendArgs {
        root: 259,
        parent: None,
        clones: &[],
        flags: 0,
        version: 1,
    };
    let clones = SendArgs {
        clones: &[258],
        ..args
    };
    let compressed = SendArgs {
        version: 2,
        flags: flags::VERSION | flags::COMPRESSED,
        ..args
    };
    let incremental = SendArgs {
        parent: Some(258),
        ..args
    };
    let backwards = SendArgs {
        root: 258,
        parent: Some(259),
        ..compressed
    };
    [
        (tiny.clone(), args),
        (tiny.clone(), clones),
        (tiny.clone(), compressed),
        (tiny.clone(), incremental),
        (tiny, backwards),
        (volume(), richest.args()),
    ]
}

/// What became of a stream is the stream, one as good whose data comes without clones, or the start
/// of one and an error.
fn judge(result: Result, out: &[u8], good: &[u8], log: &[String], error: Error) {
    let without_clones = log.join("").contains("sending its data");
    match result {
        Ok(()) => assert!(out == good || without_clones, "{log:?}"),
        Err(found) => {
            assert_eq!(found, error, "{log:?}");
            assert!(good.starts_with(out) || without_clones, "{log:?}");
        }
    }
}

#[test]
fn every_allocation_fails() {
    for (image, args) in cases(&richest()) {
        let good = stream_of(&open(device(&image)).unwrap(), &args).unwrap();
        let total = every("allocation", |n| {
            let mut out = Memory::default();
            // Mounting allocates, too.
            let device = device(&image);
            fault::fail_alloc_after(n);
            let (result, log) = kernel::log::capture(|| {
                let fs = open(device)?;
                send::run(fs.reader()?, &args, &mut out)
            });
            let reached = fault::count() > n;
            fault::clear();
            assert!(reached || result.is_ok());
            judge(result, &out.bytes, &good, &log, ENOMEM);
            reached
        });
        println!("{total} allocations");
        assert!(total > 150, "{total}");
    }
}

#[test]
fn every_read_fails() {
    for (image, args) in cases(&richest()) {
        let good = stream_of(&open(device(&image)).unwrap(), &args).unwrap();
        for all in [false, true] {
            let total = every("read", |n| {
                let mut out = Memory::default();
                let device = Arc::new(FaultDevice::new(device(&image)), GFP_KERNEL).unwrap();
                let shared: Arc<dyn BlockDevice> = device.clone();
                let fs = open(shared).unwrap();
                device.fail(Op::Read, n, all);
                let (result, log) =
                    kernel::log::capture(|| send::run(fs.reader()?, &args, &mut out));
                let reached = device.counts().reads > n;
                assert!(reached || result.is_ok());
                assert!(result.is_ok() || !log.is_empty());
                judge(result, &out.bytes, &good, &log, EIO);
                reached
            });
            println!("{total} reads");
            assert!(total > 5, "{total}");
        }
    }
}

#[test]
fn the_other_end_goes_away() {
    for subject in subjects() {
        other_end_goes_away(subject);
    }
}

fn other_end_goes_away(Subject { volume, wanted }: Subject) {
    let fs = open(Arc::new(volume, GFP_KERNEL).unwrap()).unwrap();
    let good = stream_of(&fs, &wanted.args()).unwrap();
    let mut n = 0;
    loop {
        let mut out = Memory {
            fail_after: Some(n),
            ..Memory::default()
        };
        match send::run(fs.reader().unwrap(), &wanted.args(), &mut out) {
            Ok(()) => break,
            Err(error) => assert_eq!(error, EPIPE),
        }
        assert!(good.starts_with(&out.bytes));
        assert_eq!(out.writes, n);
        n += 1;
    }
    assert!(n > 3, "a stream of {} bytes in {n} writes", good.len());
    // Small commands are gathered.
    assert!(
        good.len() / n > 16 << 10,
        "{} bytes in {n} writes",
        good.len()
    );
}
