// SPDX-License-Identifier: GPL-2.0
//! Logs that are not what was written: a clear line and an error, and nothing is changed.

use crate::support::*;
use crate::{captured, mount, recorded, LOGGED};
use kernel::prelude::*;
use rbtrfs_engine::log::{self, Replay};
use rbtrfs_engine::volume::OpenOptions;
use std::process::Command;
use std::vec::Vec;

/// Each copy of the superblock's log root is damaged.
#[test]
fn a_damaged_log_is_an_error_and_can_be_zeroed() {
    let (image, expected) = recorded(LOGGED[0]);
    let mirrors = {
        let fs = open(&share(image.clone())).unwrap();
        let log_root = fs.reader().unwrap().superblock().log_root.get();
        let nodesize = u64::from(fs.geometry.nodesize);
        fs.chunk_map().mirrors(log_root, nodesize).unwrap()
    };
    let all: Vec<u64> = mirrors.iter().collect();
    assert_eq!(all.len(), 2, "metadata is dup");
    // One bad copy does not matter.
    let device = share(image.clone());
    device.flip(all[0] + 200);
    let (fs, _) = captured(|| mount(&device).unwrap());
    assert_eq!(crate::listing::listing(&fs), expected);
    drop(fs);

    let device = share(image.clone());
    for physical in &all {
        device.flip(physical + 200);
    }
    let before = device.fingerprint(&image);
    let (result, text) = captured(|| mount(&device).map(|_| ()));
    assert_eq!(result, Err(EIO));
    assert!(text.contains("checksum verify failed"), "{text}");
    assert!(text.contains("failed to recover log trees"), "{text}");
    assert_eq!(device.fingerprint(&image), before);
    let read_only = OpenOptions {
        read_only: true,
        ..OpenOptions::default()
    };
    let (fs, _) = captured(|| log::open(device.clone(), &read_only, Replay::No));
    read_everything(&fs.unwrap());

    let scratch = Scratch::new("log-zeroed");
    let path = scratch.path("image");
    device.write_to(&path).unwrap();
    let status = Command::new("btrfs")
        .args(["rescue", "zero-log"])
        .arg(&path)
        .output()
        .expect("these tests need btrfs-progs")
        .status;
    assert!(status.success());
    let fs = open_image(&path);
    assert!(!fs.has_log() && !fs.is_read_only());
    cow_everything(&fs);
    drop(fs);
    assert_clean(&path);
}

/// A tree that is not a log's is not taken for one.
#[test]
fn a_log_root_that_is_another_tree_is_refused() {
    let (image, _) = recorded(LOGGED[0]);
    let device = share(image.clone());
    let mut sb = rbtrfs_engine::device::superblock::read_newest(&*device, false).unwrap();
    sb.log_root = sb.root;
    sb.log_root_level = sb.root_level;
    rbtrfs_engine::device::superblock::write_copies(&*device, &mut sb).unwrap();
    let before = device.fingerprint(&image);
    let (result, text) = captured(|| mount(&device).map(|_| ()));
    assert!(matches!(result, Err(EIO | EUCLEAN)), "{text}");
    assert!(text.contains("corrupt log tree"), "{text}");
    assert_eq!(device.fingerprint(&image), before);
}
