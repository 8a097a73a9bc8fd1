// SPDX-License-Identifier: GPL-2.0
//! Scrubs as these tests start them, and where things are.

use crate::support::*;
use kernel::sync::Arc;
use rbtrfs_engine::format::crc::checksum;
use rbtrfs_engine::format::{self, item_type, tree_id, Key};
use rbtrfs_engine::scrub::{scrub, Outcome, ScrubArgs};
use rbtrfs_engine::state::ScrubProgress;
use rbtrfs_engine::subvol::file_extent::{self, Kind};
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::MemDevice;
use std::vec::Vec;

pub const DUP: &[&str] = &["-n", "16384", "-d", "dup", "-m", "dup"];
pub const SINGLE: &[&str] = &["-n", "16384", "-d", "single", "-m", "single"];

pub const EVERYTHING: ScrubArgs = ScrubArgs {
    devid: 1,
    start: 0,
    end: u64::MAX,
    read_only: false,
};

pub const READ_ONLY: ScrubArgs = ScrubArgs {
    read_only: true,
    ..EVERYTHING
};

pub fn run(fs: &Fs, args: &ScrubArgs) -> Outcome {
    scrub(fs, args, &|| false)
}

/// A scrub that comes to its end.
#[track_caller]
pub fn run_all(fs: &Fs, args: &ScrubArgs) -> ScrubProgress {
    let outcome = run(fs, args);
    assert_eq!(outcome.result, Ok(()));
    outcome.progress
}

/// The copies of `len` bytes at a logical address, in physical bytes.
pub fn copies(fs: &Fs, logical: u64, len: u64) -> Vec<u64> {
    let chunks = fs.chunk_map();
    let mirrors = chunks.mirrors(logical, len).unwrap();
    mirrors.iter().collect()
}

/// The inode and the extent's logical address of the first file with an extent of its own.
pub fn first_file(fs: &Fs) -> (u64, u64) {
    let reader = fs.reader().unwrap();
    let mut cursor = reader.cursor(reader.root(tree_id::FS).unwrap());
    cursor.seek(&Key::MIN).unwrap();
    while let Some((key, bytes)) = cursor.item() {
        if key.typ == item_type::EXTENT_DATA {
            let part = file_extent::parse(&key, bytes, fs.geometry.sectorsize).unwrap();
            if let Kind::Regular(extent) = part.kind {
                return (key.objectid, extent.disk_bytenr);
            }
        }
        cursor.next().unwrap();
    }
    panic!("there is no file");
}

/// The root block of a tree.
pub fn root_block(fs: &Fs, tree: u64) -> u64 {
    fs.reader().unwrap().root(tree).unwrap().bytenr
}

/// Changes a tree block at a physical address and gives it the right checksum again.
pub fn forge(image: &MemDevice, physical: u64, len: usize, change: impl Fn(&mut [u8])) {
    let mut bytes = vec![0; len];
    image.copy_out(physical, &mut bytes);
    change(&mut bytes);
    let sum = checksum(&bytes[32..]).to_le_bytes();
    bytes[..4].copy_from_slice(&sum);
    image.copy_in(physical, &bytes);
}

/// What the extent tree says that is allocated, by its own items: bytes of data and of tree blocks,
/// each with all copies.
pub fn allocated(fs: &Fs) -> (u64, u64) {
    let reader = fs.reader().unwrap();
    let mut cursor = reader.cursor(reader.root(tree_id::EXTENT).unwrap());
    cursor.seek(&Key::MIN).unwrap();
    let (mut data, mut blocks) = (0, 0);
    while let Some((key, bytes)) = cursor.item() {
        let len = match key.typ {
            item_type::METADATA_ITEM => u64::from(fs.geometry.nodesize),
            item_type::EXTENT_ITEM => key.offset,
            _ => 0,
        };
        if len != 0 {
            let count = copies(fs, key.objectid, len).len() as u64;
            let flags: zerocopy::little_endian::U64 = format::read_at(bytes, 16).unwrap();
            if flags.get() & 1 != 0 {
                data += len * count;
            } else {
                blocks += len * count;
            }
        }
        cursor.next().unwrap();
    }
    (data, blocks)
}

/// A volume on which both the test and the engine have a hand.
pub fn volume(name: &str, options: &[&str]) -> (Scratch, Arc<MemDevice>, Arc<Fs>) {
    let scratch = Scratch::new(name);
    let image = share(make_mem(&scratch, options));
    let fs = open(&image).unwrap();
    (scratch, image, fs)
}
