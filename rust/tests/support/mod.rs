// SPDX-License-Identifier: GPL-2.0
//! What the tests on real images share: making one with `mkfs.btrfs`, changing it, and asking
//! `btrfs check` about it.

#![allow(dead_code)]

pub mod contents;
pub mod cut;
pub mod every;
pub mod proved;

use kernel::prelude::*;
use kernel::sync::Arc;
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_engine::format::crc::name_hash;
use rbtrfs_engine::format::inode::InodeItem;
use rbtrfs_engine::format::root::RootItem;
use rbtrfs_engine::format::{item_type, objectid, tree_id, DiskKey, Key};
use rbtrfs_engine::trans::transaction::{Reserve, Transaction};
use rbtrfs_engine::tree::check::check_tree;
use rbtrfs_engine::tree::{edit, EditContext, Nodes};
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::{FileDevice, MemDevice};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::vec::Vec;
use zerocopy::{FromBytes, IntoBytes};

/// Every kind of volume that can be written to.
pub const KINDS: [&[&str]; 6] = [
    &[],
    &["-n", "4096", "-m", "single", "--csum", "xxhash"],
    &["-n", "4096", "-O", "^skinny-metadata", "-m", "dup"],
    &["-n", "16384", "-d", "dup", "-m", "dup"],
    &["-n", "16384", "-R", "^free-space-tree", "--csum", "blake2"],
    &["-n", "65536", "-O", "^no-holes", "--csum", "sha256"],
];

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

    /// What is wrong with an image according to `btrfs check`.
    pub fn check(&self, image: &MemDevice) -> core::result::Result<(), String> {
        self.check_by(image, "original")
    }

    fn check_by(&self, image: &MemDevice, mode: &str) -> core::result::Result<(), String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = self.path(&format!("checked-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        image.write_to(&path).unwrap();
        let result = check_by(&path, mode);
        std::fs::remove_file(&path).unwrap();
        result
    }

    /// As [`Self::assert_clean`], by the other one of `btrfs check`'s two ways.
    #[track_caller]
    pub fn assert_clean_lowmem(&self, image: &MemDevice) {
        if let Err(text) = self.check_by(image, "lowmem") {
            panic!("btrfs check --mode=lowmem: {text}");
        }
    }

    #[track_caller]
    pub fn assert_clean(&self, image: &MemDevice) {
        if let Err(text) = self.check(image) {
            panic!("btrfs check: {text}");
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What is wrong with the image in a file according to `btrfs check`.
pub fn check(path: &Path) -> core::result::Result<(), String> {
    check_by(path, "original")
}

fn check_by(path: &Path, mode: &str) -> core::result::Result<(), String> {
    let output = Command::new("btrfs")
        .args(["check", "--check-data-csum", "--mode", mode])
        .arg(path)
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
pub fn assert_clean(path: &Path) {
    if let Err(text) = check(path) {
        panic!("btrfs check: {text}");
    }
}

/// The number of folders that [`make_image`] makes, and of files in each; every fourth file is
/// empty.
pub const DIRS: usize = 4;
pub const FILES: usize = 40;

/// Fills a folder with small and large files, so that there are inline and other extents, checksums
/// and directories.
fn fill(dir: &Path) {
    for d in 0..DIRS {
        let sub = dir.join(format!("dir{d}"));
        std::fs::create_dir_all(&sub).unwrap();
        for f in 0..FILES {
            let len = match f % 4 {
                0 => 100 + f,
                1 => 5000 + 100 * f,
                2 => 70_000,
                _ => 0,
            };
            let byte = (d * FILES + f) as u8;
            std::fs::write(sub.join(format!("file-{f:03}")), vec![byte; len]).unwrap();
        }
    }
}

/// Makes an image with `mkfs.btrfs OPTIONS`, holding a few files.
pub fn make_image(scratch: &Scratch, options: &[&str]) -> PathBuf {
    let dir = scratch.path("content");
    if !dir.exists() {
        fill(&dir);
    }
    let path = scratch.path("image");
    let mut all: Vec<&OsStr> = vec!["--rootdir".as_ref(), dir.as_ref()];
    all.extend(options.iter().map(OsStr::new));
    mkfs(&path, 256 << 20, &all);
    path
}

fn mkfs(path: &Path, size: u64, options: &[&OsStr]) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    drop(file);
    let output = Command::new("mkfs.btrfs")
        .arg("-q")
        .args(options)
        .arg(path)
        .output()
        .expect("these tests need mkfs.btrfs");
    assert!(output.status.success(), "{output:?}");
}

/// Makes an image in memory that is as small as can be, with `mkfs.btrfs OPTIONS`, holding no
/// files.
pub fn make_small(scratch: &Scratch, options: &[&str]) -> MemDevice {
    let path = scratch.path("image");
    let options: Vec<&OsStr> = options.iter().map(OsStr::new).collect();
    mkfs(&path, 128 << 20, &options);
    let image = MemDevice::from_file(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    image
}

/// The same in memory.
pub fn make_mem(scratch: &Scratch, options: &[&str]) -> MemDevice {
    let path = make_image(scratch, options);
    let image = MemDevice::from_file(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    image
}

/// A device that the engine and the test both hold.
pub fn share<D: BlockDevice + 'static>(device: D) -> Arc<D> {
    Arc::new(device, GFP_KERNEL).unwrap()
}

pub fn open<D: BlockDevice + 'static>(device: &Arc<D>) -> Result<Arc<Fs>> {
    let device: Arc<dyn BlockDevice> = device.clone();
    Fs::open(device, &OpenOptions::default())
}

/// Opens the image in a file for writing.
pub fn open_image(path: &Path) -> Arc<Fs> {
    open(&share(FileDevice::open(path, true).unwrap())).unwrap()
}

pub fn begin(fs: &Fs) -> Transaction<'_> {
    fs.begin(Reserve::default()).unwrap()
}

/// A key in the root tree that is nobody's: a temporary item.
pub fn key(n: u64) -> Key {
    Key::new(objectid::BALANCE, item_type::TEMPORARY_ITEM, 1000 + n)
}

/// All trees of the last commit, but those that are being deleted: these are not whole.
pub fn trees(fs: &Fs) -> Vec<u64> {
    let reader = fs.reader().unwrap();
    let mut cursor = reader.cursor(reader.root(tree_id::ROOT).unwrap());
    cursor.seek(&Key::MIN).unwrap();
    let mut ids = vec![tree_id::ROOT, tree_id::CHUNK];
    while let Some((key, bytes)) = cursor.item() {
        if key.typ == item_type::ROOT_ITEM && RootItem::parse(bytes).unwrap().refs.get() > 0 {
            ids.push(key.objectid);
        }
        cursor.next().unwrap();
    }
    ids
}

/// The first keys of all leaves of a tree of the last commit.
pub fn leaves(fs: &Fs, tree: u64) -> Vec<Key> {
    let reader = fs.reader().unwrap();
    let mut keys = vec![];
    let mut stack = vec![reader.root(tree).unwrap().into()];
    while let Some(ptr) = stack.pop() {
        let node = reader.node(&ptr).unwrap();
        if node.is_leaf() {
            keys.extend(node.key(0));
            continue;
        }
        for slot in 0..node.nritems() as usize {
            stack.push(node.child_ptr(slot, tree).unwrap());
        }
    }
    keys
}

/// Copies every leaf of every tree, in one transaction.
pub fn cow_everything(fs: &Fs) {
    let mut trans = begin(fs);
    for tree in trees(fs) {
        for key in leaves(fs, tree) {
            edit::cow_to(&mut trans, tree, &key, 0).unwrap();
        }
    }
    trans.commit().unwrap();
}

/// Reads every block of every tree of the last commit, and returns the number of items.
#[track_caller]
pub fn read_everything(fs: &Fs) -> u64 {
    let reader = fs.reader().unwrap();
    let mut items = 0;
    for tree in trees(fs) {
        let root = reader.root(tree).unwrap();
        let summary = check_tree(&reader, root, reader.generation(), &mut |problem| {
            panic!("{problem}");
        });
        items += summary.unwrap().items;
    }
    items
}

/// Makes a snapshot of the top-level subvolume as `name` in its root directory, the way the C
/// driver does.
pub fn snapshot(trans: &mut Transaction<'_>, id: u64, name: &str) {
    let transid = trans.transid();
    let mut item = trans.root_item(tree_id::FS).unwrap();
    item.uuid = [id as u8; 16];
    item.refs = 1.into();
    item.otransid = transid.into();
    item.ctransid = transid.into();
    let root_key = Key::new(id, item_type::ROOT_ITEM, transid);
    trans.snapshot_root(tree_id::FS, &root_key, item).unwrap();

    let dir = objectid::FIRST_FREE;
    let index = id;
    let len = name.len() as u16;
    let root_ref = [
        &dir.to_le_bytes()[..],
        &index.to_le_bytes(),
        &len.to_le_bytes(),
        name.as_bytes(),
    ]
    .concat();
    for key in [
        Key::new(tree_id::FS, item_type::ROOT_REF, id),
        Key::new(id, item_type::ROOT_BACKREF, tree_id::FS),
    ] {
        edit::insert(trans, tree_id::ROOT, &key, &root_ref).unwrap();
    }
    let location = DiskKey::from(Key::new(id, item_type::ROOT_ITEM, u64::MAX));
    let entry = [
        location.as_bytes(),
        &transid.to_le_bytes(),
        &[0, 0],
        &len.to_le_bytes(),
        &[2],
        name.as_bytes(),
    ]
    .concat();
    for key in [
        Key::new(dir, item_type::DIR_ITEM, name_hash(name.as_bytes())),
        Key::new(dir, item_type::DIR_INDEX, index),
    ] {
        edit::insert(trans, tree_id::FS, &key, &entry).unwrap();
    }
    change_inode(trans, dir, |item| {
        item.size = (item.size.get() + 2 * name.len() as u64).into();
    });
}

/// Changes an inode of the top-level subvolume.
pub fn change_inode(trans: &mut Transaction<'_>, ino: u64, change: impl FnOnce(&mut InodeItem)) {
    let key = Key::new(ino, item_type::INODE_ITEM, 0);
    edit::update_in_place(trans, tree_id::FS, &key, |bytes| {
        let (mut item, _) = InodeItem::read_from_prefix(bytes).map_err(|_| EUCLEAN)?;
        change(&mut item);
        bytes.copy_from_slice(item.as_bytes());
        Ok(())
    })
    .unwrap();
}
