// SPDX-License-Identifier: GPL-2.0
//! The damaged and odd volumes of btrfs-progs' tests, which are no part of the sources.
//!
//! They are in the folder that `RBTRFS_IMAGES` names, by default `../shared/images` beside the
//! checkout. Where that is absent, the tests that need them are skipped, and `qemu/test` counts
//! them as such.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The images in a folder of the collection, sorted; `None`, and the test is noted as skipped,
/// without the collection.
///
/// # Panics
///
/// For a collection that cannot be read.
pub fn images(folder: &str) -> Option<Vec<PathBuf>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/images");
    let path = std::env::var_os("RBTRFS_IMAGES").map_or(beside, PathBuf::from);
    if !path.is_dir() {
        skip("no damaged images beside the checkout");
        return None;
    }
    let entries = std::fs::read_dir(path.join(folder)).expect("the collection of images");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no images in {folder}");
    Some(paths)
}

/// Notes that the calling test does nothing, and why: for who reads its output, and in the file
/// that `RBTRFS_SKIPPED` names.
///
/// # Panics
///
/// If that file cannot be written.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test"));
    eprint!("SKIP: {line}");
    if let Some(path) = std::env::var_os("RBTRFS_SKIPPED") {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// Brings an image, packed and dumped in one way or another, into a file as a volume.
///
/// # Panics
///
/// Without the tools, `xz` and `btrfs-image`, and when they fail.
pub fn unpack(image: &Path, to: &Path) {
    let name = image.file_name().unwrap().to_str().unwrap();
    let dump = to.with_extension("dump");
    let plain = if name.contains(".img") { &dump } else { to };
    if name.ends_with(".xz") {
        let mut xz = Command::new("xz");
        xz.arg("-dc")
            .arg(image)
            .stdout(File::create(plain).unwrap());
        assert!(
            xz.status().expect("these images need xz").success(),
            "{name}"
        );
    } else {
        std::fs::copy(image, plain).unwrap();
    }
    if !name.contains(".img") {
        return;
    }
    let _ = std::fs::remove_file(to);
    let mut restore = Command::new("btrfs-image");
    restore.arg("-r").arg(&dump).arg(to);
    restore.stdout(Stdio::null()).stderr(Stdio::null());
    let restored = restore.status().expect("these images need btrfs-image");
    assert!(restored.success(), "{name}");
}
