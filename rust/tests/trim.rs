// SPDX-License-Identifier: GPL-2.0
//! FITRIM: all that is free is discarded, and nothing that anybody needs.

mod support;

use kernel::fault;
use kernel::prelude::*;
use kernel::sync::Arc;
use rbtrfs_engine::format::tree_id;
use rbtrfs_engine::trim::{trim, TrimRange};
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::{Event, FileDevice, MemDevice, RecordingDevice};
use std::cell::Cell;
use std::vec::Vec;
use support::contents::contents_now;
use support::cut::every_cut;
use support::every::every;
use support::proved::Proved;
use support::*;

const ALL: TrimRange = TrimRange {
    start: 0,
    len: u64::MAX,
    minlen: 0,
};

fn run(fs: &Fs, range: &TrimRange) -> Result<u64> {
    let (result, trimmed) = trim(fs, range, &|| false);
    result.map(|()| trimmed)
}

/// What was discarded, in bytes of the device.
fn discarded(device: &RecordingDevice) -> Vec<(u64, u64)> {
    let events = device.events();
    let discards = events.iter().filter_map(|event| match event {
        Event::Discard { offset, len } => Some((*offset, *len)),
        _ => None,
    });
    discards.collect()
}

fn volume(name: &str, options: &[&str]) -> (Scratch, Arc<RecordingDevice>, Arc<Fs>) {
    let scratch = Scratch::new(name);
    let device = share(RecordingDevice::new(make_mem(&scratch, options)));
    let fs = open(&device).unwrap();
    (scratch, device, fs)
}

#[test]
fn all_that_is_free_goes_and_nothing_else() {
    for (number, options) in KINDS.iter().enumerate() {
        let (scratch, device, fs) = volume(&format!("trim-{number}"), options);
        // There is something freed, and something that is new.
        cow_everything(&fs);
        let before = contents_now(&fs);
        let trimmed = run(&fs, &ALL).unwrap();
        let ranges = discarded(&device);
        assert_eq!(ranges.iter().map(|(_, len)| len).sum::<u64>(), trimmed);
        // Each byte once, none of them of a superblock or at the start.
        let mut sorted = ranges.clone();
        sorted.sort_unstable();
        assert!(sorted
            .windows(2)
            .all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
        assert!(sorted[0].0 >= 1 << 20);
        let superblock = 64 << 20;
        assert!(!sorted
            .iter()
            .any(|(at, len)| *at < superblock + 4096 && superblock < at + len));
        // All but what is in use, with all copies, and less than a hundredth of the device.
        let (_, used) = support_used(&fs);
        let rest = fs.device.size() - trimmed - used;
        assert!(
            rest < fs.device.size() / 50,
            "{rest} of {trimmed}, {used} used"
        );
        assert_eq!(contents_now(&fs), before);
        drop(fs);
        scratch.assert_clean(&device.image());
        let fs = open(&device).unwrap();
        assert_eq!(contents_now(&fs), before);
        // All of it can be used again.
        cow_everything(&fs);
        drop(fs);
        scratch.assert_clean(&device.image());
    }
}

/// Bytes in use in all block groups, and the same with all copies.
fn support_used(fs: &Fs) -> (u64, u64) {
    use rbtrfs_engine::space::space_info::SpaceContext;
    let trans = begin(fs);
    let groups = trans.space().block_groups();
    let used: u64 = groups.iter().map(|group| group.used()).sum();
    let copies = groups.iter().map(|group| {
        let copies = if group.flags & (1 << 5) != 0 { 2 } else { 1 };
        group.used() * copies
    });
    let all = copies.sum();
    trans.cancel();
    (used, all)
}

#[test]
fn what_a_reader_or_the_running_transaction_needs_stays() {
    let (scratch, device, fs) = volume("trim-readers", KINDS[0]);
    let reader = fs.reader().unwrap();
    cow_everything(&fs);
    run(&fs, &ALL).unwrap();
    // Nothing is in memory: the old blocks are on the device still.
    fs.cache.shrink(0);
    for tree in trees(&fs) {
        let mut cursor = reader.cursor(reader.root(tree).unwrap());
        cursor.seek(&rbtrfs_engine::format::Key::MIN).unwrap();
        while cursor.next().unwrap() {}
    }
    drop(reader);
    run(&fs, &ALL).unwrap();
    drop(fs);
    scratch.assert_clean(&device.image());
}

#[test]
fn ranges_and_bad_ones() {
    let (_scratch, device, fs) = volume("trim-ranges", KINDS[0]);
    let of = |start, len, minlen| run(&fs, &TrimRange { start, len, minlen });
    assert_eq!(of(0, 4095, 0), Err(EINVAL));
    assert_eq!(of(u64::MAX, u64::MAX, 0), Err(EINVAL));
    assert_eq!(of(u64::MAX - 4096, 8192, 0), Err(EINVAL));
    assert!(discarded(&device).is_empty());
    // What is in no chunk goes whatever the range.
    let holes = of(0, 4096, 0).unwrap();
    let all = of(0, u64::MAX, 0).unwrap();
    let large = of(0, u64::MAX, 1 << 20).unwrap();
    assert!(
        holes > 0 && holes < large && large < all,
        "{holes} {large} {all}"
    );
    fs.set_read_only(true).unwrap();
    assert_eq!(of(0, u64::MAX, 0), Err(EROFS));
    let scratch = Scratch::new("trim-never");
    let path = make_image(&scratch, &[]);
    let fs = open(&share(FileDevice::open(&path, true).unwrap())).unwrap();
    assert_eq!(run(&fs, &ALL), Err(EOPNOTSUPP));
}

#[test]
fn a_signal_ends_it() {
    let (_scratch, device, fs) = volume("trim-signal", KINDS[0]);
    let calls = Cell::new(0);
    let (result, trimmed) = trim(&fs, &ALL, &|| {
        calls.set(calls.get() + 1);
        calls.get() > 2
    });
    assert_eq!(result, Err(EINTR));
    let sum: u64 = discarded(&device).iter().map(|(_, len)| len).sum();
    assert_eq!(trimmed, sum);
    assert!(trimmed > 0);
}

#[test]
fn lack_of_memory_loses_nothing() {
    let scratch = Scratch::new("trim-memory");
    let start = make_small_with_files(&scratch);
    let proved = Proved::new("trim-memory-proved", &start);
    let total = every("allocation", |n| {
        let image = share(start.clone());
        let fs = open(&image).unwrap();
        fault::fail_alloc_after(n);
        let result = run(&fs, &ALL);
        let reached = fault::count() > n;
        fault::clear();
        assert!(matches!(result, Ok(_) | Err(ENOMEM)), "{result:?}");
        assert!(!fs.is_read_only());
        // What was taken out of use is in use again.
        let mut trans = begin(&fs);
        while rbtrfs_engine::space::chunk_alloc::create_chunk(&mut trans, 1).is_ok() {}
        trans.cancel();
        run(&fs, &ALL).unwrap();
        cow_everything(&fs);
        proved.assert_holds(&image);
        reached
    });
    assert!(total > 5, "{total}");
}

fn make_small_with_files(scratch: &Scratch) -> MemDevice {
    make_mem(scratch, &["-n", "4096", "-m", "single"])
}

#[test]
fn a_power_cut_finds_all_that_it_needs() {
    let scratch = Scratch::new("trim-cut");
    let start = make_small_with_files(&scratch);
    let proved = Proved::new("trim-cut-proved", &start);
    let device = share(RecordingDevice::new(start));
    let fs = open(&device).unwrap();
    // Commits free blocks, and what they freed goes as soon as it may.
    for _ in 0..3 {
        let leaf = leaves(&fs, tree_id::FS)[0];
        let mut trans = begin(&fs);
        rbtrfs_engine::tree::edit::cow_to(&mut trans, tree_id::FS, &leaf, 0).unwrap();
        trans.commit().unwrap();
        run(&fs, &ALL).unwrap();
    }
    drop(fs);
    assert!(discarded(&device).len() > 10);
    let cuts = every_cut(&device, 4, |_, image| proved.assert_holds(image));
    println!("{cuts} cuts, {} states", proved.checked());
}

#[test]
fn what_is_reserved_stays() {
    let (_scratch, _device, fs) = volume("trim-reserved", KINDS[0]);
    // Nearly all that is free is promised to a writer.
    let mut reservation = fs.reserve_data(4096).unwrap();
    for step in [1 << 24, 1 << 20, 1 << 16, 4096] {
        while let Ok(more) = fs.reserve_data(step) {
            reservation.merge(more);
        }
    }
    assert!(reservation.bytes() > 1 << 24);
    // All that can be taken is, and the writer gets its space all the same.
    let mut taken = Vec::new();
    while let Some(piece) = fs.take_free((0, u64::MAX), 0, u64::MAX).unwrap() {
        taken.push(piece);
    }
    let mut written = Vec::new();
    while reservation.bytes() != 0 {
        let want = reservation.bytes();
        written.push(fs.alloc_data(Some(&mut reservation), want).unwrap());
    }
    drop((taken, written));
    cow_everything(&fs);
}
