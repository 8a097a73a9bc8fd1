// SPDX-License-Identifier: GPL-2.0
//! Real images for tests that only read: new ones of `mkfs.btrfs`, and the damaged ones of btrfs-progs' tests.

#![allow(dead_code)]

use kernel::prelude::GFP_KERNEL;
use kernel::sync::Arc;
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_testdev::MemDevice;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of its own for one test; gone with it.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "rbtrfs-read-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether a tool is there. A test that has to do without says so.
pub fn have(tool: &str) -> bool {
    let found = Command::new(tool)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        eprintln!("SKIP: {tool} is not installed");
    }
    found
}

/// An image with some hundred files, made by `mkfs.btrfs` with `options`; `None` where that is not installed, or is
/// too old for the options.
pub fn make(scratch: &Scratch, options: &[&str]) -> Option<PathBuf> {
    if !have("mkfs.btrfs") {
        return None;
    }
    let content = scratch.path("content");
    if !content.exists() {
        for d in 0..6u32 {
            let dir = content.join(format!("directory-{d}"));
            std::fs::create_dir_all(&dir).unwrap();
            for f in 0..60u32 {
                let len = [80, 3000, 9000, 0, 70_000][f as usize % 5];
                let byte = (d * 60 + f) as u8;
                std::fs::write(dir.join(format!("file-{f:04}")), vec![byte; len]).unwrap();
            }
        }
    }
    let image = scratch.path("image");
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(256 << 20).unwrap();
    let output = Command::new("mkfs.btrfs")
        .arg("-q")
        .arg("--rootdir")
        .arg(&content)
        .args(options)
        .arg(&image)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("unrecognized") {
        eprintln!("SKIP: this mkfs.btrfs does not know {options:?}: {errors}");
        return None;
    }
    assert!(output.status.success(), "mkfs.btrfs {options:?}: {errors}");
    Some(image)
}

/// As [`make`], in memory.
pub fn make_in_memory(options: &[&str]) -> Option<MemDevice> {
    let scratch = Scratch::new();
    let image = make(&scratch, options)?;
    Some(MemDevice::from_file(image).unwrap())
}

pub fn device(device: impl BlockDevice + 'static) -> Arc<dyn BlockDevice> {
    Arc::new(device, GFP_KERNEL).unwrap()
}

/// The folder of damaged images, `None` where it is absent.
pub fn corpus() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/images");
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIP: no damaged images beside the checkout");
    None
}

/// The images in a folder, sorted.
pub fn images_in(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

/// Unpacks and restores an image of the corpus; `None` if a tool for that is missing or refuses it.
pub fn unpack(scratch: &Scratch, packed: &Path) -> Option<PathBuf> {
    let name = packed.file_name().unwrap().to_str().unwrap();
    let mut path = packed.to_path_buf();
    if let Some(stem) = name.strip_suffix(".xz") {
        if !have("xz") {
            return None;
        }
        let unpacked = scratch.path(stem);
        let status = Command::new("xz")
            .args(["-d", "-c"])
            .arg(packed)
            .stdout(std::fs::File::create(&unpacked).unwrap())
            .status()
            .unwrap();
        assert!(status.success(), "xz -d {name}");
        path = unpacked;
    }
    if path.extension().is_some_and(|e| e == "img") {
        if !have("btrfs-image") {
            return None;
        }
        let restored = scratch.path("restored");
        let _ = std::fs::remove_file(&restored);
        let output = Command::new("btrfs-image")
            .arg("-r")
            .arg(&path)
            .arg(&restored)
            .output()
            .unwrap();
        if !output.status.success() {
            eprintln!("SKIP: btrfs-image -r refuses {name}");
            return None;
        }
        path = restored;
    }
    Some(path)
}
