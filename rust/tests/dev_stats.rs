// SPDX-License-Identifier: GPL-2.0
//! The device's error counts: what is counted, and that commits keep it.

mod images;

use images::{device, make_in_memory, Scratch};
use kernel::sync::Arc;
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_engine::trans::transaction::Reserve;
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::{FaultDevice, Op};
use std::process::Command;

fn open(image: Arc<dyn BlockDevice>) -> Arc<Fs> {
    Fs::open(image, &OpenOptions::default()).unwrap()
}

fn commit(fs: &Fs) {
    let mut trans = fs.begin(Reserve::default()).unwrap();
    trans.mark_changed();
    trans.commit().unwrap();
}

#[test]
fn counts_outlive_the_mount() {
    let image = make_in_memory(&[]);
    let image = Arc::new(image, kernel::prelude::GFP_KERNEL).unwrap();
    let faults = FaultDevice::new(image.clone());
    let faults = Arc::new(faults, kernel::prelude::GFP_KERNEL).unwrap();
    let fs = open(faults.clone());
    assert_eq!(fs.stats.get(), [0; 5]);
    let mut buf = vec![0; 4096];
    faults.fail_after(Op::Read, 1);
    fs.device.read(65536, &mut buf).unwrap();
    assert!(fs.device.read(65536, &mut buf).is_err());
    // A request that makes no sense says nothing of the device.
    assert!(fs.device.read(u64::MAX - 511, &mut buf).is_err());
    assert!(fs.device.read(1, &mut buf).is_err());
    faults.fail_after(Op::Flush, 0);
    assert!(fs.device.flush().is_err());
    assert_eq!(fs.stats.get(), [0, 1, 1, 0, 0]);
    faults.clear();
    commit(&fs);
    drop(fs);

    let fs = open(image.clone());
    assert_eq!(fs.stats.get(), [0, 1, 1, 0, 0]);
    assert_eq!(fs.stats.reset(), [0, 1, 1, 0, 0]);
    assert_eq!(fs.stats.get(), [0; 5]);
    drop(fs);
    // Nothing was committed.
    let fs = open(image.clone());
    assert_eq!(fs.stats.get(), [0, 1, 1, 0, 0]);
    fs.stats.reset();
    commit(&fs);
    drop(fs);
    assert_eq!(open(image.clone()).stats.get(), [0; 5]);

    let scratch = Scratch::new();
    let path = scratch.path("checked");
    image.write_to(&path).unwrap();
    let check = Command::new("btrfs")
        .arg("check")
        .arg(&path)
        .output()
        .unwrap();
    assert!(check.status.success(), "{check:?}");
}

#[test]
fn a_commit_that_fails() {
    let image = make_in_memory(&[]);
    let faults = FaultDevice::new(device(image));
    let faults = Arc::new(faults, kernel::prelude::GFP_KERNEL).unwrap();
    let fs = open(faults.clone());
    let mut trans = fs.begin(Reserve::default()).unwrap();
    trans.mark_changed();
    faults.fail_after(Op::Write, 0);
    assert!(trans.commit().is_err());
    assert_eq!(fs.stats.get(), [1, 0, 0, 0, 0]);
    assert_eq!(fs.commits.times().commits, 0);
}
