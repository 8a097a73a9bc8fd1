// SPDX-License-Identifier: GPL-2.0
//! Odd and damaged volumes of btrfs-progs' tests: balance ends in an error or in success, and what
//! `btrfs check` accepted before it accepts afterwards.

use crate::contents::EVERYTHING;
use crate::support::Scratch;
use kernel::prelude::*;
use rbtrfs_engine::balance::relocate::relocate_block_group;
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::{corpus, FileDevice};
use std::path::Path;
use std::process::Command;
use std::string::String;
use std::vec::Vec;

fn is_accepted(image: &Path) -> bool {
    // Not the data: dumps of metadata have none.
    let output = Command::new("btrfs").arg("check").arg(image).output();
    output
        .expect("these images need btrfs-progs")
        .status
        .success()
}

/// Relocates every block group that can be. The number of those, or why the volume cannot be
/// balanced at all.
fn balance(image: &Path) -> Result<(usize, Vec<Error>)> {
    let device = FileDevice::open(image, true).unwrap();
    let device: kernel::sync::Arc<dyn BlockDevice> =
        kernel::sync::Arc::new(device, GFP_KERNEL).unwrap();
    let fs = Fs::open(device, &OpenOptions::default())?;
    drop(fs.begin(Default::default())?);
    let chunks = fs.chunk_map();
    let starts: Vec<u64> = chunks
        .iter()
        .filter(|chunk| chunk.flags & EVERYTHING != 0)
        .map(|chunk| chunk.logical)
        .collect();
    let mut errors = vec![];
    let mut done = 0;
    for start in starts.into_iter().rev() {
        match relocate_block_group(&fs, start, &|| Ok(())) {
            Ok(()) => done += 1,
            Err(error) => errors.push(error),
        }
    }
    Ok((done, errors))
}

fn try_all(folder: &str) -> Vec<(String, usize)> {
    let Some(images) = corpus::images(folder) else {
        return vec![];
    };
    let scratch = Scratch::new(&format!("balance-{folder}"));
    let mut balanced = vec![];
    for path in images {
        let image = scratch.path("image");
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        corpus::unpack(&path, &image);
        let accepted = is_accepted(&image);
        let outcome = balance(&image);
        eprintln!("{name}: accepted {accepted}, {outcome:?}");
        if let Ok((done, errors)) = outcome {
            if accepted {
                assert!(is_accepted(&image), "{name}");
                // Data that a dump does not hold has wrong checksums.
                let fine = |e: &Error| *e == EIO && !name.contains(".raw") || *e == ENOSPC;
                assert!(errors.iter().all(fine), "{name}: {errors:?}");
            }
            balanced.push((name, done));
        }
    }
    balanced
}

#[test]
fn volumes_of_the_fuzzers() {
    try_all("fuzz");
}

#[test]
fn volumes_of_the_checkers_tests() {
    let balanced = try_all("fsck");
    if balanced.is_empty() {
        return;
    }
    for shape in ["shared_block_ref", "keyed_block_ref", "shared_data_ref"] {
        let done = balanced
            .iter()
            .filter(|(name, _)| name.starts_with("020-extent-ref-cases") && name.contains(shape))
            .map(|(_, done)| done)
            .sum::<usize>();
        assert!(done > 0, "{shape}: {balanced:?}");
    }
}
