// SPDX-License-Identifier: GPL-2.0
//! A bad copy is written over with the good one, on a volume that may be written to.

mod images;

use images::{device, make_in_memory};
use kernel::sync::Arc;
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_engine::format::inode::InodeItem;
use rbtrfs_engine::format::{self, item_type, tree_id, Key};
use rbtrfs_engine::subvol::data::read_file;
use rbtrfs_engine::subvol::file_extent::{self, Kind};
use rbtrfs_engine::tree::{NodePtr, Nodes};
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::{FaultDevice, MemDevice, Op};
use std::vec::Vec;

const DUP: &[&str] = &["-n", "4096", "-m", "dup", "-d", "dup"];

fn open(image: Arc<dyn BlockDevice>, read_only: bool) -> Arc<Fs> {
    let options = OpenOptions {
        read_only,
        ..OpenOptions::default()
    };
    Fs::open(image, &options).unwrap()
}

/// A file's inode and size, and the logical address of its first extent.
fn large_file(fs: &Fs) -> (u64, usize, u64) {
    let reader = fs.reader().unwrap();
    let mut cursor = reader.cursor(reader.root(tree_id::FS).unwrap());
    cursor.seek(&Key::MIN).unwrap();
    let mut size = 0;
    while let Some((key, bytes)) = cursor.item() {
        if key.typ == item_type::INODE_ITEM {
            size = format::read::<InodeItem>(bytes).unwrap().size.get() as usize;
        }
        if key.typ == item_type::EXTENT_DATA {
            let part = file_extent::parse(&key, bytes, fs.geometry.sectorsize).unwrap();
            if let (Kind::Regular(extent), 70_000) = (part.kind, size) {
                return (key.objectid, size, extent.disk_bytenr);
            }
        }
        cursor.next().unwrap();
    }
    panic!("there is no large file");
}

fn read(fs: &Fs, ino: u64, size: usize) -> kernel::error::Result<Vec<u8>> {
    let reader = fs.reader()?;
    let mut bytes = vec![0; size];
    let len = read_file(&reader, reader.root(tree_id::FS)?, ino, 0, &mut bytes)?;
    assert_eq!(len, size);
    Ok(bytes)
}

fn copies(fs: &Fs, logical: u64) -> Vec<u64> {
    let chunks = fs.chunk_map();
    let mirrors = chunks.mirrors(logical, 4096).unwrap();
    mirrors.iter().collect()
}

fn at(image: &MemDevice, place: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    image.copy_out(place, &mut bytes);
    bytes
}

#[test]
fn data() {
    let image = make_in_memory(DUP);
    let image = Arc::new(image, kernel::prelude::GFP_KERNEL).unwrap();
    let fs = open(image.clone(), true);
    let (ino, size, logical) = large_file(&fs);
    let expected = read(&fs, ino, size).unwrap();
    let place = copies(&fs, logical + 8192)[0];
    let good = at(&image, place);
    image.flip(place + 100);
    // Read-only: the data is read, the copy stays bad.
    assert_eq!(read(&fs, ino, size).unwrap(), expected);
    assert_ne!(at(&image, place), good);
    assert_eq!(fs.stats.get(), [0, 0, 0, 1, 0]);
    drop(fs);

    let fs = open(image.clone(), false);
    assert_eq!(read(&fs, ino, size).unwrap(), expected);
    assert_eq!(at(&image, place), good);
    assert_eq!(fs.stats.get(), [0, 0, 0, 1, 0]);
    // There is nothing left to be counted.
    assert_eq!(read(&fs, ino, size).unwrap(), expected);
    assert_eq!(fs.stats.get(), [0, 0, 0, 1, 0]);
    // A remount read-only forbids it again.
    fs.set_read_only(true).unwrap();
    image.flip(place + 100);
    assert_eq!(read(&fs, ino, size).unwrap(), expected);
    assert_ne!(at(&image, place), good);
}

#[test]
fn both_copies_of_data_are_bad() {
    let image = make_in_memory(DUP);
    let image = Arc::new(image, kernel::prelude::GFP_KERNEL).unwrap();
    let fs = open(image.clone(), false);
    let (ino, size, logical) = large_file(&fs);
    let before: Vec<_> = copies(&fs, logical)
        .into_iter()
        .map(|place| {
            image.flip(place);
            (place, at(&image, place))
        })
        .collect();
    assert!(read(&fs, ino, size).is_err());
    for (place, bytes) in before {
        assert_eq!(at(&image, place), bytes);
    }
    assert_eq!(fs.stats.get(), [0, 0, 0, 2, 0]);
}

#[test]
fn nodes() {
    let image = make_in_memory(DUP);
    let image = Arc::new(image, kernel::prelude::GFP_KERNEL).unwrap();
    for read_only in [true, false] {
        let fs = open(image.clone(), read_only);
        let reader = fs.reader().unwrap();
        let root = reader.root(tree_id::CSUM).unwrap();
        let ptr = NodePtr {
            bytenr: root.bytenr,
            generation: root.generation,
            level: root.level,
            tree: root.id,
            first_key: None,
        };
        let place = copies(&fs, root.bytenr)[0];
        let good = at(&image, place);
        image.flip(place + 200);
        fs.cache.forget(root.bytenr);
        reader.node(&ptr).unwrap();
        assert_eq!(at(&image, place) == good, !read_only);
        // As it was, for the next round.
        image.copy_in(place, &good);
    }
}

#[test]
fn a_read_that_fails() {
    let image = make_in_memory(DUP);
    let faults = Arc::new(FaultDevice::new(device(image)), kernel::prelude::GFP_KERNEL).unwrap();
    let fs = open(faults.clone(), false);
    let (ino, size, _) = large_file(&fs);
    let expected = read(&fs, ino, size).unwrap();
    faults.fail_after(Op::Read, 0);
    assert_eq!(read(&fs, ino, size).unwrap(), expected);
    // The device was asked again, and did not fail: there is nothing to be repaired.
    assert_eq!(fs.stats.get(), [0, 1, 0, 0, 0]);
    assert_eq!(faults.counts().writes, 0);
}
