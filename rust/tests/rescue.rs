// SPDX-License-Identifier: GPL-2.0
//! The options `rescue=` and `nobarrier`: what a damaged volume still gives, and what is left out
//! while writing.

#[path = "support/mod.rs"]
mod support;

use kernel::prelude::*;
use kernel::sync::Arc;
use rbtrfs_engine::balance::committed_usage::usage;
use rbtrfs_engine::device::superblock::{read_newest, write_copies};
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_engine::format::inode::InodeItem;
use rbtrfs_engine::format::{self, item_type, tree_id, Key};
use rbtrfs_engine::mount::Rescue;
use rbtrfs_engine::subvol::data::read_file;
use rbtrfs_engine::subvol::file_extent::{self, Kind};
use rbtrfs_engine::tree::Nodes;
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::{Event, MemDevice, RecordingDevice};
use std::vec::Vec;
use support::*;

const SINGLE: &[&str] = &["-m", "single", "-d", "single"];

/// Nothing is rescued.
const NONE: Rescue = Rescue {
    no_log_replay: false,
    use_backup_root: false,
    ignore_bad_roots: false,
    ignore_data_checksums: false,
    ignore_metadata_checksums: false,
    ignore_super_flags: false,
};

fn open_with(image: &MemDevice, rescue: Rescue) -> Result<Arc<Fs>> {
    let options = OpenOptions {
        read_only: true,
        rescue,
        ..OpenOptions::default()
    };
    let device: Arc<dyn BlockDevice> = share(image.clone());
    kernel::log::capture(|| Fs::open(device, &options)).0
}

/// A file of 70,000 bytes, and where its first extent is on the device.
fn large_file(fs: &Fs) -> (u64, u64) {
    let reader = fs.reader().unwrap();
    let mut cursor = reader.cursor(reader.root(tree_id::FS).unwrap());
    cursor.seek(&Key::MIN).unwrap();
    let mut size = 0;
    while let Some((key, bytes)) = cursor.item() {
        if key.typ == item_type::INODE_ITEM {
            size = format::read::<InodeItem>(bytes).unwrap().size.get();
        }
        if key.typ == item_type::EXTENT_DATA && size == 70_000 {
            let part = file_extent::parse(&key, bytes, fs.geometry.sectorsize).unwrap();
            if let Kind::Regular(extent) = part.kind {
                let chunks = fs.chunk_map();
                let mirrors = chunks.mirrors(extent.disk_bytenr, 4096).unwrap();
                return (key.objectid, mirrors.first());
            }
        }
        cursor.next().unwrap();
    }
    panic!("there is no large file");
}

fn read(fs: &Fs, ino: u64) -> Result<Vec<u8>> {
    let reader = fs.reader()?;
    let mut bytes = vec![0; 70_000];
    let root = reader.root(tree_id::FS)?;
    kernel::log::capture(|| read_file(&reader, root, ino, 0, &mut bytes)).0?;
    Ok(bytes)
}

/// Where the copies of a tree's root are on the device.
fn root_copies(fs: &Fs, tree: u64) -> Vec<u64> {
    let reader = fs.reader().unwrap();
    let node = reader.node(&reader.root(tree).unwrap().into()).unwrap();
    let len = node.bytes().len() as u64;
    let chunks = fs.chunk_map();
    chunks.mirrors(node.bytenr(), len).unwrap().iter().collect()
}

#[test]
fn data_whose_checksums_do_not_match() {
    let scratch = Scratch::new("rescue-data");
    let image = make_mem(&scratch, SINGLE);
    let fs = open_with(&image, NONE).unwrap();
    let (ino, place) = large_file(&fs);
    let good = read(&fs, ino).unwrap();
    image.flip(place + 100);
    let mut bad = good.clone();
    bad[100] = !bad[100];
    let fs = open_with(&image, NONE).unwrap();
    assert_eq!(read(&fs, ino).err(), Some(EIO));
    // A remount changes it in both directions.
    let rescue = Rescue {
        ignore_data_checksums: true,
        ..NONE
    };
    fs.set_rescue(&rescue);
    assert!(read(&fs, ino).unwrap() == bad);
    fs.set_rescue(&NONE);
    assert_eq!(read(&fs, ino).err(), Some(EIO));
    let fs = open_with(&image, rescue).unwrap();
    assert!(read(&fs, ino).unwrap() == bad);
}

#[test]
fn nodes_whose_checksums_do_not_match() {
    let scratch = Scratch::new("rescue-nodes");
    let image = make_mem(&scratch, SINGLE);
    let fs = open_with(&image, NONE).unwrap();
    let (ino, _) = large_file(&fs);
    let good = read(&fs, ino).unwrap();
    for copy in root_copies(&fs, tree_id::FS) {
        image.flip(copy);
    }
    drop(fs);
    assert_eq!(open_with(&image, NONE).err(), Some(EIO));
    let rescue = Rescue {
        ignore_metadata_checksums: true,
        ..NONE
    };
    let fs = open_with(&image, rescue).unwrap();
    assert!(read(&fs, ino).unwrap() == good);
    // All else is checked all the same: the address in the header.
    for copy in root_copies(&fs, tree_id::FS) {
        image.flip(copy + 48);
    }
    drop(fs);
    assert_eq!(open_with(&image, rescue).err(), Some(EIO));
}

#[test]
fn trees_that_cannot_be_read() {
    let scratch = Scratch::new("rescue-roots");
    let whole = make_mem(&scratch, SINGLE);
    let rescue = Rescue {
        ignore_bad_roots: true,
        ..NONE
    };
    let fs = open_with(&whole, NONE).unwrap();
    let (ino, _) = large_file(&fs);
    let good = read(&fs, ino).unwrap();
    for tree in [
        tree_id::EXTENT,
        tree_id::DEV,
        tree_id::CSUM,
        tree_id::FREE_SPACE,
    ] {
        let image = whole.clone();
        for copy in root_copies(&fs, tree) {
            image.flip(copy);
        }
        assert_eq!(open_with(&image, NONE).err(), Some(EIO), "tree {tree}");
        let rescued = open_with(&image, rescue).unwrap();
        assert!(read(&rescued, ino).unwrap() == good, "tree {tree}");
        // What is free is not known without the extent tree: nothing counts as free.
        let sums = usage(&rescued).unwrap();
        let is_full = sums.iter().all(|sum| sum.used == sum.total);
        assert_eq!(is_full, tree == tree_id::EXTENT, "tree {tree}");
    }
    let image = whole.clone();
    for copy in root_copies(&fs, tree_id::FS) {
        image.flip(copy);
    }
    assert_eq!(open_with(&image, rescue).err(), Some(EIO));
}

#[test]
fn flags_of_the_superblock_that_are_not_known() {
    let scratch = Scratch::new("rescue-flags");
    let image = make_mem(&scratch, SINGLE);
    let mut sb = read_newest(&image, false).unwrap();
    sb.flags = (sb.flags.get() | (1 << 40)).into();
    write_copies(&image, &mut sb).unwrap();
    assert_eq!(open_with(&image, NONE).err(), Some(EINVAL));
    let rescue = Rescue {
        ignore_super_flags: true,
        ..NONE
    };
    assert!(open_with(&image, rescue).is_ok());
}

/// Without barriers nothing is flushed, and nothing is written through the device's cache.
#[test]
fn barriers_can_be_left_out() {
    let scratch = Scratch::new("barriers");
    let device = share(RecordingDevice::new(make_mem(&scratch, &[])));
    let count = || {
        let events = device.events();
        let is_ordered =
            |event: &&Event| matches!(event, Event::Flush | Event::Write { fua: true, .. });
        (events.iter().filter(is_ordered).count(), events.len())
    };
    let options = OpenOptions {
        barrier: false,
        ..OpenOptions::default()
    };
    let as_device: Arc<dyn BlockDevice> = device.clone();
    let fs = Fs::open(as_device, &options).unwrap();
    cow_everything(&fs);
    let (ordered, all) = count();
    assert_eq!(ordered, 0);
    assert!(all > 0);
    fs.set_barrier(true);
    cow_everything(&fs);
    let (ordered, _) = count();
    assert!(
        ordered >= 2,
        "a flush and a superblock that is written through"
    );
    fs.set_barrier(false);
    cow_everything(&fs);
    assert_eq!(count().0, ordered);
}
