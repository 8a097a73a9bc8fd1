// SPDX-License-Identifier: GPL-2.0
//! Full send against streams that the C driver made of the same volume, and with everything around it failing.
//!
//! `volume.zst` and `streams.txt` were recorded by `tools/selftests/record_send.py`, which says what is in them.

use kernel::prelude::*;
use kernel::sync::Arc;
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_engine::send::{self, flags, SendArgs, Sink};
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::{FaultDevice, MemDevice, Op};
use std::vec::Vec;

mod damage;
mod faults;
mod recorded;

const BLOCK: usize = 4096;

/// The recorded volume.
fn volume() -> MemDevice {
    let packed = include_bytes!("volume.zst");
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

/// A line of `streams.txt`.
struct Recorded {
    root: u64,
    flags: u64,
    version: u32,
    size: usize,
    hash: u64,
    clones: Vec<u64>,
}

impl Recorded {
    fn args(&self) -> SendArgs<'_> {
        SendArgs {
            root: self.root,
            parent: None,
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
            Recorded {
                root: fields[0].parse().unwrap(),
                flags: fields[1].parse().unwrap(),
                version: fields[2].parse().unwrap(),
                size: fields[3].parse().unwrap(),
                hash: u64::from_str_radix(fields[4], 16).unwrap(),
                clones: fields[5..].iter().map(|id| id.parse().unwrap()).collect(),
            }
        })
        .collect()
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
