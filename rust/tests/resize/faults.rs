// SPDX-License-Identifier: GPL-2.0
//! Resizing while memory or the device fails, or the power, at every single place: the volume has
//! the old size or the new one, holds the same files, and `btrfs check` accepts it.

use crate::sizes::{ask, size, volume};
use crate::support::cut::every_cut;
use crate::support::every::every;
use crate::support::proved::Proved;
use crate::support::*;
use kernel::fault;
use kernel::prelude::*;
use rbtrfs_engine::balance::relocate::relocate_block_group;
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::{FaultDevice, MemDevice, Op, RecordingDevice};
use std::vec::Vec;

const MIB: u64 = 1 << 20;

/// A volume whose metadata lies beyond what it is shrunk to.
fn start(name: &str) -> (Scratch, MemDevice) {
    let (scratch, image) = volume(name, &["-n", "4096", "-m", "single"]);
    let fs = open(&image).unwrap();
    // Each goes to the first place that is free, and at last behind.
    for _ in 0..6 {
        let mut trans = begin(&fs);
        rbtrfs_engine::space::chunk_alloc::create_chunk(&mut trans, 4).unwrap();
        trans.commit().unwrap();
    }
    let old: Vec<u64> = fs
        .chunk_map()
        .iter()
        .filter(|chunk| chunk.flags & 4 != 0)
        .map(|chunk| chunk.logical)
        .collect();
    for start in &old[..old.len() - 1] {
        relocate_block_group(&fs, *start, &|| Ok(())).unwrap();
    }
    begin(&fs).cancel();
    let ends = fs.chunk_map();
    let end = ends.iter().map(|chunk| chunk.first + chunk.length).max();
    assert!(end.unwrap() > 300 * MIB, "{end:?}");
    drop(fs);
    let image = (*image).clone();
    (scratch, image)
}

fn shrink(fs: &Fs) -> Result {
    ask(fs, "300m")
}

fn is_old_or_new(fs: &Fs) {
    assert!([512 * MIB, 300 * MIB].contains(&size(fs)));
}

#[test]
fn lack_of_memory_loses_nothing() {
    let (_scratch, start) = start("resize-memory");
    let proved = Proved::new("resize-memory-proved", &start);
    let total = every("allocation", |n| {
        let image = share(start.clone());
        let fs = open(&image).unwrap();
        fault::fail_alloc_after(n);
        let result = shrink(&fs);
        let reached = fault::count() > n;
        fault::clear();
        is_old_or_new(&fs);
        if let Err(error) = result {
            assert_eq!(error, ENOMEM);
            assert!(reached);
            if !fs.is_read_only() {
                shrink(&fs).unwrap();
                ask(&fs, "max").unwrap();
            }
        }
        proved.assert_holds(&image);
        reached
    });
    println!("{total} allocations, {} states", proved.checked());
    assert!(total > 100, "{total}");
}

fn fail_every(op: Op, all: bool) {
    let (_scratch, start) = start(&format!("resize-{op:?}-{all}"));
    let proved = Proved::new(&format!("resize-{op:?}-{all}-proved"), &start);
    let total = every("request", |n| {
        let image = share(start.clone());
        let device = share(FaultDevice::new(image.clone()));
        let fs = open(&device).unwrap();
        device.fail(op, n, all);
        let result = shrink(&fs);
        let reached = device.counts().of(op) > n;
        device.clear();
        is_old_or_new(&fs);
        if let Err(error) = result {
            assert!(reached, "{error:?}");
        }
        proved.assert_holds(&image);
        reached
    });
    assert!(total >= 2, "{total}");
}

crate::tests_of_failing_requests!(fail_every);

#[test]
fn a_power_cut_leaves_the_old_size_or_the_new_one() {
    let (_scratch, start) = start("resize-cut");
    let proved = Proved::new("resize-cut-proved", &start);
    let device = share(RecordingDevice::new(start));
    let fs = open(&device).unwrap();
    shrink(&fs).unwrap();
    ask(&fs, "max").unwrap();
    drop(fs);
    let cuts = every_cut(&device, 4, |_, image| {
        let fs = open(&share(image.clone())).unwrap();
        assert!([512 * MIB, 300 * MIB, 1024 * MIB].contains(&size(&fs)));
        proved.assert_holds(image);
    });
    println!("{cuts} cuts, {} states", proved.checked());
}
