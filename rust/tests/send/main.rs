// SPDX-License-Identifier: GPL-2.0
//! Send against streams that the C driver made of the same volume, and with everything around it failing.
//!
//! `volume.zst` and `streams.txt` were recorded by `tools/selftests/record_send.py`, which says what is in them; those
//! in `changes`, for incremental streams, by `record_changes.py` there.

use kernel::prelude::*;
use kernel::sync::Arc;
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_engine::send::{self, flags, SendArgs, Sink};
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::{FaultDevice, MemDevice, Op};
use std::vec::Vec;

mod changes;
mod damage;
mod faults;
mod hostile;
mod recorded;

const BLOCK: usize = 4096;

/// The volume recorded for full streams.
fn volume() -> MemDevice {
    unpack(include_bytes!("volume.zst"))
}

/// A recorded volume.
fn unpack(packed: &[u8]) -> MemDevice {
    let (size, frame) = packed.split_at(8);
    let mut blocks = vec![0; u64::from_le_bytes(size.try_into().unwrap()) as usize];
    let len = kernel::platform::zstd(frame, &mut blocks).unwrap();
    assert_eq!(len, blocks.len());
    let device = MemDevice::new(112 << 20);
    for entry in blocks.chunks_exact(8 + BLOCK) {
        let (number, block) = entry.split_at(8);
        let number = u64::from_le_bytes(number.try_into().unwrap());
        device.copy_in(number * BLOCK as u64, block);
    }
    device
}

/// A stream that was recorded: a line of `streams.txt`, or of a list in `changes`.
struct Recorded {
    root: u64,
    parent: Option<u64>,
    flags: u64,
    version: u32,
    size: usize,
    hash: u64,
    clones: Vec<u64>,
}

impl Recorded {
    /// The fields of a line behind the parent's: tree, flags, version, size, hash, clone sources.
    fn new(parent: Option<u64>, fields: &[&str]) -> Self {
        Recorded {
            root: fields[0].parse().unwrap(),
            parent,
            flags: fields[1].parse().unwrap(),
            version: fields[2].parse().unwrap(),
            size: fields[3].parse().unwrap(),
            hash: u64::from_str_radix(fields[4], 16).unwrap(),
            clones: fields[5..].iter().map(|id| id.parse().unwrap()).collect(),
        }
    }

    fn args(&self) -> SendArgs<'_> {
        SendArgs {
            root: self.root,
            parent: self.parent,
            clones: &self.clones,
            flags: self.flags,
            version: self.version,
        }
    }
}

fn recorded() -> Vec<Recorded> {
    let lines = include_str!("streams.txt").lines();
    lines
        .map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            Recorded::new(None, &fields)
        })
        .collect()
}

/// What is sent, and of which volume.
struct Subject {
    volume: MemDevice,
    wanted: Recorded,
}

/// A full send and an incremental one, with much in them.
fn subjects() -> [Subject; 2] {
    let full = Subject {
        volume: volume(),
        wanted: richest(),
    };
    [full, changes::richest()]
}

/// The recorded stream with the most in it.
fn richest() -> Recorded {
    let streams = recorded().into_iter();
    streams
        .filter(|stream| stream.flags & flags::NO_FILE_DATA == 0)
        .max_by_key(|stream| (stream.clones.len(), stream.root))
        .unwrap()
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn open(device: Arc<dyn BlockDevice>) -> Result<Arc<Fs>> {
    let options = OpenOptions {
        read_only: true,
        ..OpenOptions::default()
    };
    Fs::open(device, &options)
}

/// Keeps the stream, or fails from some write on.
#[derive(Default)]
struct Memory {
    bytes: Vec<u8>,
    writes: usize,
    fail_after: Option<usize>,
}

impl Sink for Memory {
    fn write(&mut self, bytes: &[u8]) -> Result {
        if self.fail_after.is_some_and(|n| self.writes >= n) {
            return Err(EPIPE);
        }
        self.writes += 1;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

fn stream_of(fs: &Fs, args: &SendArgs<'_>) -> Result<Vec<u8>> {
    let mut out = Memory::default();
    send::run(fs.reader()?, args, &mut out)?;
    Ok(out.bytes)
}
