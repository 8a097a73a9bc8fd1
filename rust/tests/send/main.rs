// SPDX-License-Identifier: GPL-2.0
//! Send against streams that the C driver made of the same volume, and with everything around it
//! failing.

use kernel::prelude::*;
use kernel::sync::Arc;
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_engine::send::{self, flags, SendArgs, Sink};
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::recorded::{self as recordings, hash, Stream};
use rbtrfs_testdev::{Counts, FaultDevice, MemDevice, Op};
use std::vec::Vec;

mod changes;
mod damage;
mod faults;
mod hostile;
mod recorded;

const BLOCK: usize = 4096;

/// The volume recorded for full streams.
const FULL: &str = "full";

fn volume() -> MemDevice {
    recordings::volume(FULL)
}

fn recorded() -> Vec<Stream> {
    recordings::streams(FULL)
}

/// Sends what was recorded, and compares; the volume has to be the one it was recorded of.
fn check(fs: &Fs, wanted: &Stream) {
    let stream = stream_of(fs, &wanted.args()).unwrap();
    let what = format!(
        "{}: root {} parent {:?} flags {} version {} clones {:?}",
        wanted.name, wanted.root, wanted.parent, wanted.flags, wanted.version, wanted.clones
    );
    assert_eq!(stream.len(), wanted.size, "size, {what}");
    assert_eq!(hash(&stream), wanted.hash, "hash, {what}");
}

/// What is sent, and of which volume.
struct Subject {
    volume: MemDevice,
    wanted: Stream,
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
fn richest() -> Stream {
    let streams = recorded().into_iter();
    streams
        .filter(|stream| stream.flags & flags::NO_FILE_DATA == 0)
        .max_by_key(|stream| (stream.clones.len(), stream.root))
        .unwrap()
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
