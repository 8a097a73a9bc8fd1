// SPDX-License-Identifier: GPL-2.0
//! Logs that the C driver wrote, replayed: the tree that they leave, and what becomes of a replay
//! that is cut off, or fails.

mod damage;
mod faults;
mod listing;
mod replay;
#[path = "../support/mod.rs"]
mod support;

use crate::support::contents::packed;
use kernel::prelude::*;
use kernel::sync::Arc;
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_engine::log::{self, Replay};
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::MemDevice;
use std::path::Path;
use std::string::String;

/// The volumes of `rust/tests/images` that have a log.
pub const LOGGED: [&str; 3] = ["log-dup", "log-holes", "log-links"];

/// Opens a volume for writing as a mount does, with its log replayed.
pub fn mount<D: BlockDevice + 'static>(device: &Arc<D>) -> Result<Arc<Fs>> {
    let device: Arc<dyn BlockDevice> = device.clone();
    log::open(device, &OpenOptions::default(), Replay::Yes)
}

/// What a function returns, and what it had to say.
pub fn captured<T>(what: impl FnOnce() -> T) -> (T, String) {
    let (result, lines) = kernel::log::capture(what);
    (result, lines.join("\n"))
}

/// A volume, and what is in it once the C driver has replayed its log.
pub fn recorded(name: &str) -> (MemDevice, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/images/{name}.txt"));
    (packed(name), std::fs::read_to_string(path).unwrap())
}
