// SPDX-License-Identifier: GPL-2.0
//! Odd and damaged volumes of btrfs-progs' tests: balance ends in an error or in success, and what `btrfs check`
//! accepted before it accepts afterwards.

use crate::contents::EVERYTHING;
use crate::support::Scratch;
use kernel::prelude::*;
use rbtrfs_engine::balance::relocate::relocate_block_group;
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::FileDevice;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::string::String;
use std::vec::Vec;

fn run(program: &str, arg: &[&str], from: &Path, to: Option<&Path>) -> bool {
    let mut command = Command::new(program);
    command.args(arg).arg(from).stderr(Stdio::null());
    match to {
        Some(to) => command.stdout(std::fs::File::create(to).unwrap()),
        None => command.stdout(Stdio::null()),
    };
    command
        .status()
        .unwrap_or_else(|_| panic!("these images need {program}"))
        .success()
}

/// Brings an image into a file; false if the tools refuse it.
fn unpack(image: &Path, to: &Path) -> bool {
    let name = image.file_name().unwrap().to_string_lossy().into_owned();
    let plain = to.with_extension("plain");
    if name.ends_with(".xz") {
        assert!(run("xz", &["-dc"], image, Some(&plain)));
    } else {
        std::fs::copy(image, &plain).unwrap();
    }
    let _ = std::fs::remove_file(to);
    if !name.contains(".img") {
        std::fs::rename(&plain, to).unwrap();
        return true;
    }
    let status = Command::new("btrfs-image")
        .arg("-r")
        .arg(&plain)
        .arg(to)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .status();
    status.expect("these images need btrfs-image").success()
}

fn is_accepted(image: &Path) -> bool {
    // Not the data: dumps of metadata have none.
    run("btrfs", &["check"], image, None)
}

/// Relocates every block group that can be. The number of those, or why the volume cannot be balanced at all.
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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/images")
        .join(folder);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("SKIP: no damaged images beside the checkout");
        return vec![];
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let scratch = Scratch::new(&format!(
        "balance-{}",
        folder.file_name().unwrap().to_string_lossy()
    ));
    let mut balanced = vec![];
    for path in paths {
        let image = scratch.path("image");
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !unpack(&path, &image) {
            continue;
        }
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
