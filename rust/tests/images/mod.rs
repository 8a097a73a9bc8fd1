// SPDX-License-Identifier: GPL-2.0
//! Real images for tests that only read: new ones of `mkfs.btrfs`.

#![allow(dead_code)]

use kernel::prelude::GFP_KERNEL;
use kernel::sync::Arc;
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_testdev::MemDevice;
use std::path::PathBuf;
use std::process::Command;
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

/// An image with some hundred files, made by `mkfs.btrfs` with `options`.
pub fn make(scratch: &Scratch, options: &[&str]) -> PathBuf {
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
        .expect("these tests need mkfs.btrfs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "mkfs.btrfs {options:?}: {errors}");
    image
}

/// As [`make`], in memory.
pub fn make_in_memory(options: &[&str]) -> MemDevice {
    let scratch = Scratch::new();
    MemDevice::from_file(make(&scratch, options)).unwrap()
}

pub fn device(device: impl BlockDevice + 'static) -> Arc<dyn BlockDevice> {
    Arc::new(device, GFP_KERNEL).unwrap()
}
