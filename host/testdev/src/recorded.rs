// SPDX-License-Identifier: GPL-2.0
//! Volumes and the send streams that the C driver made of them, recorded by
//! `tools/selftests/record_streams.py`, which says what is in the files.

use crate::MemDevice;
use rbtrfs_engine::send::SendArgs;
use std::path::PathBuf;

const BLOCK: usize = 4096;
const SIZE: u64 = 1 << 30;

/// A stream: what was sent how, and what came out.
#[derive(Clone)]
pub struct Stream {
    /// The case or the seed that the subvolumes are of.
    pub name: String,
    /// The tree that was sent.
    pub root: u64,
    /// The tree that only the differences to were sent.
    pub parent: Option<u64>,
    /// The flags.
    pub flags: u64,
    /// The version.
    pub version: u32,
    /// How many bytes it has.
    pub size: usize,
    /// Their hash, as [`hash`] makes it.
    pub hash: u64,
    /// The trees to clone from.
    pub clones: Vec<u64>,
}

impl Stream {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let name = fields.next()?.into();
        let parent = Some(fields.next()?.parse().ok()?).filter(|id| *id != 0);
        Some(Stream {
            name,
            parent,
            root: fields.next()?.parse().ok()?,
            flags: fields.next()?.parse().ok()?,
            version: fields.next()?.parse().ok()?,
            size: fields.next()?.parse().ok()?,
            hash: u64::from_str_radix(fields.next()?, 16).ok()?,
            clones: fields.map(|id| id.parse().ok()).collect::<Option<_>>()?,
        })
    }

    /// What makes the engine send it.
    pub fn args(&self) -> SendArgs<'_> {
        SendArgs {
            root: self.root,
            parent: self.parent,
            clones: &self.clones,
            flags: self.flags,
            version: self.version,
        }
    }
}

/// FNV-1a.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../rust/tests/send/streams"
    ))
}

/// The names of what was recorded, sorted.
///
/// # Panics
///
/// Without the recordings, as in all that follows.
pub fn names() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).expect("the recorded streams");
    let mut names: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.unwrap().file_name();
            Some(name.to_str()?.strip_suffix(".txt")?.to_owned())
        })
        .collect();
    names.sort();
    names
}

/// The streams of a recorded volume.
pub fn streams(name: &str) -> Vec<Stream> {
    let list = std::fs::read_to_string(folder().join(format!("{name}.txt"))).unwrap();
    let streams = list
        .lines()
        .map(|line| Stream::parse(line).expect("a line as the recorder writes it"));
    streams.collect()
}

/// A recorded volume.
pub fn volume(name: &str) -> MemDevice {
    let packed = std::fs::read(folder().join(format!("{name}.zst"))).unwrap();
    let (size, frame) = packed.split_at(8);
    let mut blocks = vec![0; u64::from_le_bytes(size.try_into().unwrap()) as usize];
    let len = kernel::platform::zstd(frame, &mut blocks).unwrap();
    assert_eq!(len, blocks.len());
    let device = MemDevice::new(SIZE);
    for entry in blocks.chunks_exact(8 + BLOCK) {
        let (number, block) = entry.split_at(8);
        let number = u64::from_le_bytes(number.try_into().unwrap());
        device.copy_in(number * BLOCK as u64, block);
    }
    device
}
