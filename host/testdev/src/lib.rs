// SPDX-License-Identifier: GPL-2.0
//! Block devices for the engine on the host: images in files and in memory, devices that fail or
//! tear when a test says so, and one that remembers what was written, to be looked at as a power
//! cut would have left it. And the damaged volumes of other people's tests, and the volumes that
//! streams were recorded of.

#![forbid(unsafe_code)]

pub mod corpus;
pub mod exercise;
mod fault;
mod file;
mod mem;
pub mod mutate;
pub mod recorded;
mod recording;

pub use fault::{Counts, FaultDevice, Op};
pub use file::FileDevice;
pub use mem::MemDevice;
pub use recording::{Event, RecordingDevice};

use kernel::error::Result;
use kernel::prelude::EINVAL;
use rbtrfs_engine::device::block_device::SECTOR;

/// Checks that `len` bytes at `offset` are whole sectors of a device of `size` bytes.
fn check(offset: u64, len: usize, size: u64) -> Result {
    let end = offset.checked_add(len as u64).ok_or(EINVAL)?;
    if offset % SECTOR != 0 || len as u64 % SECTOR != 0 || end > size {
        return Err(EINVAL);
    }
    Ok(())
}
