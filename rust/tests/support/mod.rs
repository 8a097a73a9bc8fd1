// SPDX-License-Identifier: GPL-2.0
//! What the tests on real images share: making one with `mkfs.btrfs`, and asking `btrfs check` about it.

#![allow(dead_code)]

use kernel::prelude::*;
use kernel::sync::Arc;
use rbtrfs_engine::device::{BlockDevice, WriteIo};
use rbtrfs_engine::format::crc::name_hash;
use rbtrfs_engine::format::inode::InodeItem;
use rbtrfs_engine::format::{item_type, tree_id, DiskKey, Key};
use rbtrfs_engine::tree::{edit, EditContext};
use rbtrfs_engine::volume::transaction::Transaction;
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::FileDevice;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::vec::Vec;
use zerocopy::{FromBytes, IntoBytes};

/// A folder of its own for one test; gone with it.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rbtrfs-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
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

/// Fills a folder with small and large files, so that there are inline and other extents, checksums and directories.
fn fill(dir: &Path) {
    for d in 0..4 {
        let sub = dir.join(format!("dir{d}"));
        std::fs::create_dir_all(&sub).unwrap();
        for f in 0..40 {
            let len = match f % 4 {
                0 => 100 + f,
                1 => 5000 + 100 * f,
                2 => 70_000,
                _ => 0,
            };
            let byte = (d * 40 + f) as u8;
            std::fs::write(sub.join(format!("file-{f:03}")), vec![byte; len]).unwrap();
        }
    }
}

/// Makes an image with `mkfs.btrfs OPTIONS`, holding a few hundred files.
pub fn make_image(scratch: &Scratch, options: &[&str]) -> PathBuf {
    let dir = scratch.path("content");
    if !dir.exists() {
        fill(&dir);
    }
    let image = scratch.path("image");
    let _ = std::fs::remove_file(&image);
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(256 << 20).unwrap();
    drop(file);
    let output = Command::new("mkfs.btrfs")
        .arg("-q")
        .arg("--rootdir")
        .arg(&dir)
        .args(options)
        .arg(&image)
        .output()
        .expect("these tests need mkfs.btrfs");
    assert!(output.status.success(), "{output:?}");
    image
}

/// What is wrong with an image according to `btrfs check`.
pub fn check(image: &Path) -> core::result::Result<(), String> {
    let output = Command::new("btrfs")
        .args(["check", "--check-data-csum"])
        .arg(image)
        .output()
        .expect("these tests need btrfs-progs");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() && text.contains("no error found") {
        Ok(())
    } else {
        Err(text)
    }
}

#[track_caller]
pub fn assert_clean(image: &Path) {
    if let Err(text) = check(image) {
        panic!("btrfs check: {text}");
    }
}

/// What happened on a device.
#[derive(Clone)]
pub enum Event {
    Write { offset: u64, bytes: Vec<u8> },
    Flush,
}

/// What the n-th operation of a kind should do.
#[derive(Clone, Copy, Default)]
pub struct Fail {
    pub read: Option<usize>,
    pub write: Option<usize>,
    pub flush: Option<usize>,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    fail: Fail,
    reads: usize,
    writes: usize,
    flushes: usize,
    drop_writes: bool,
}

/// An image file that records what is written to it and fails on demand.
pub struct Device {
    inner: FileDevice,
    state: Mutex<State>,
}

impl Device {
    pub fn open(image: &Path) -> Arc<Device> {
        let device = Device {
            inner: FileDevice::open(image, true).unwrap(),
            state: Mutex::default(),
        };
        Arc::new(device, GFP_KERNEL).unwrap()
    }

    /// Keeps writes from reaching the file: they are only recorded, and read back from there.
    pub fn keep_file(&self) {
        self.state.lock().unwrap().drop_writes = true;
    }

    pub fn fail(&self, fail: Fail) {
        let mut state = self.state.lock().unwrap();
        state.fail = fail;
        (state.reads, state.writes, state.flushes) = (0, 0, 0);
    }

    /// Operations since the last [`Self::fail`]: reads, writes, flushes.
    pub fn counts(&self) -> (usize, usize, usize) {
        let state = self.state.lock().unwrap();
        (state.reads, state.writes, state.flushes)
    }

    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.state.lock().unwrap().events)
    }

    fn put(&self, offset: u64, buf: &[u8]) -> Result {
        let mut state = self.state.lock().unwrap();
        let n = state.writes;
        state.writes += 1;
        if state.fail.write == Some(n) {
            return Err(EIO);
        }
        state.events.push(Event::Write {
            offset,
            bytes: buf.to_vec(),
        });
        if state.drop_writes {
            return Ok(());
        }
        self.inner.write(offset, buf)
    }

    fn sync(&self) -> Result {
        let mut state = self.state.lock().unwrap();
        let n = state.flushes;
        state.flushes += 1;
        if state.fail.flush == Some(n) {
            return Err(EIO);
        }
        state.events.push(Event::Flush);
        Ok(())
    }
}

impl BlockDevice for Device {
    fn name(&self) -> &str {
        "test"
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result {
        let mut state = self.state.lock().unwrap();
        let n = state.reads;
        state.reads += 1;
        if state.fail.read == Some(n) {
            return Err(EIO);
        }
        drop(state);
        self.inner.read(offset, buf)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result {
        self.put(offset, buf)
    }

    fn write_many(&self, ios: &[WriteIo<'_>]) -> Result {
        let mut all = Ok(());
        for io in ios {
            all = all.and(self.put(io.offset, io.buf));
        }
        all
    }

    fn write_fua(&self, offset: u64, buf: &[u8]) -> Result {
        self.put(offset, buf)?;
        self.state.lock().unwrap().events.push(Event::Flush);
        Ok(())
    }

    fn flush(&self) -> Result {
        self.sync()
    }

    fn discard(&self, _offset: u64, _len: u64) -> Result {
        Err(EOPNOTSUPP)
    }
}

pub fn open(device: &Arc<Device>) -> Result<Arc<Fs>> {
    let device: Arc<dyn BlockDevice> = device.clone();
    Fs::open(device, &OpenOptions::default())
}

/// Opens an image for writing, through nothing but the file.
pub fn open_image(image: &Path) -> Arc<Fs> {
    open(&Device::open(image)).unwrap()
}

/// Makes a snapshot of the top-level subvolume as `name` in its root directory, the way the C driver does.
pub fn snapshot(trans: &mut Transaction<'_>, id: u64, name: &str) {
    let transid = trans.transid();
    let mut item = trans.root_item(tree_id::FS).unwrap();
    item.uuid = [id as u8; 16];
    item.refs = 1.into();
    item.otransid = transid.into();
    item.ctransid = transid.into();
    trans
        .snapshot_root(tree_id::FS, &Key::new(id, item_type::ROOT_ITEM, transid), item)
        .unwrap();

    let dir = 256;
    let index = id;
    let mut root_ref = std::vec![];
    root_ref.extend_from_slice(&u64::to_le_bytes(dir));
    root_ref.extend_from_slice(&index.to_le_bytes());
    root_ref.extend_from_slice(&(name.len() as u16).to_le_bytes());
    root_ref.extend_from_slice(name.as_bytes());
    for key in [
        Key::new(tree_id::FS, item_type::ROOT_REF, id),
        Key::new(id, item_type::ROOT_BACKREF, tree_id::FS),
    ] {
        edit::insert(trans, tree_id::ROOT, &key, &root_ref).unwrap();
    }
    let location = DiskKey::from(Key::new(id, item_type::ROOT_ITEM, u64::MAX));
    let mut entry = std::vec::Vec::from(location.as_bytes());
    entry.extend_from_slice(&transid.to_le_bytes());
    entry.extend_from_slice(&0u16.to_le_bytes());
    entry.extend_from_slice(&(name.len() as u16).to_le_bytes());
    entry.push(2);
    entry.extend_from_slice(name.as_bytes());
    for key in [
        Key::new(dir, item_type::DIR_ITEM, name_hash(name.as_bytes())),
        Key::new(dir, item_type::DIR_INDEX, index),
    ] {
        edit::insert(trans, tree_id::FS, &key, &entry).unwrap();
    }
    let inode = Key::new(dir, item_type::INODE_ITEM, 0);
    edit::update_in_place(trans, tree_id::FS, &inode, |bytes| {
        let (mut item, _) = InodeItem::read_from_prefix(bytes).map_err(|_| EUCLEAN)?;
        item.size = (item.size.get() + 2 * name.len() as u64).into();
        bytes.copy_from_slice(item.as_bytes());
        Ok(())
    })
    .unwrap();
}
