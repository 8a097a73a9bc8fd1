// SPDX-License-Identifier: GPL-2.0
//! The n-th allocation, read, or write of the stream fails: an error or the same stream, never anything else.

use super::*;
use kernel::fault;

/// Every failure from the first to the last would take long; these are spread over all of them.
fn spread(count: u64) -> impl Iterator<Item = u64> {
    let step = (count / 150).max(1);
    (0..count.min(40)).chain((40..count).step_by(step as usize))
}

#[test]
fn an_allocation_fails() {
    for subject in subjects() {
        allocation_fails(subject);
    }
}

fn allocation_fails(Subject { volume, wanted }: Subject) {
    let device: Arc<dyn BlockDevice> = Arc::new(volume, GFP_KERNEL).unwrap();
    let fs = open(device.clone()).unwrap();
    let good = stream_of(&fs, &wanted.args()).unwrap();
    fault::clear();
    stream_of(&fs, &wanted.args()).unwrap();
    let count = fault::count();
    assert!(count > 100);
    let mut failed = 0;
    for n in spread(count) {
        let mut out = Memory::default();
        let reader = fs.reader().unwrap();
        fault::fail_alloc_after(n);
        let result = send::run(reader, &wanted.args(), &mut out);
        fault::clear();
        match result {
            Ok(()) => assert_eq!(fnv(&out.bytes), fnv(&good), "allocation {n}"),
            Err(error) => {
                assert_eq!(error, ENOMEM, "allocation {n}");
                assert!(good.starts_with(&out.bytes), "allocation {n}");
                failed += 1;
            }
        }
    }
    assert!(failed > 0);
}

#[test]
fn a_read_fails() {
    for subject in subjects() {
        read_fails(subject);
    }
}

fn read_fails(Subject { volume, wanted }: Subject) {
    let good = {
        let fs = open(Arc::new(volume.clone(), GFP_KERNEL).unwrap()).unwrap();
        stream_of(&fs, &wanted.args()).unwrap()
    };
    let inner: Arc<dyn BlockDevice> = Arc::new(volume, GFP_KERNEL).unwrap();
    let device = Arc::new(FaultDevice::new(inner), GFP_KERNEL).unwrap();
    let reads = {
        let fs = open(device.clone()).unwrap();
        device.clear();
        stream_of(&fs, &wanted.args()).unwrap();
        device.counts().reads
    };
    assert!(reads > 10);
    for n in 0..reads {
        device.clear();
        // A cache that is still empty, so that everything is read again.
        let fs = open(device.clone()).unwrap();
        device.fail_after(Op::Read, n);
        let (result, log) = kernel::log::capture(|| {
            let mut out = Memory::default();
            let result = send::run(fs.reader()?, &wanted.args(), &mut out);
            result.map(|()| out.bytes)
        });
        match result {
            // What cannot be looked up is not cloned: a stream that is as good, and longer.
            Ok(stream) => assert!(
                stream == good || log.join("").contains("sending its data"),
                "read {n}"
            ),
            Err(error) => {
                assert_eq!(error, EIO, "read {n}");
                assert!(!log.is_empty(), "read {n}");
            }
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
