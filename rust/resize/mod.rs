// SPDX-License-Identifier: GPL-2.0
//! Giving the volume another size on its device.
//!
//! The size is in the device item and in the superblock, which one commit changes together. To
//! shrink the volume, nothing is allocated beyond the new end from the start on, what lies there is
//! relocated, and that commit comes last: a power cut leaves the old size or the new one.

mod args;
mod shrink;

use crate::fs_info;
use crate::space::dev_extent;
use crate::state::{ExclusiveToken, Operation, Refusal};
use crate::trans::transaction::Reserve;
use crate::volume::Fs;
use args::ResizeArgs;
use kernel::prelude::*;

/// No volume can be made smaller, in bytes.
const MIN_SIZE: u64 = 256 << 20;

/// Does what `text`, as `btrfs filesystem resize` passes it, asks for: `[DEVID:]SIZE`,
/// `[DEVID:]+SIZE`, `[DEVID:]-SIZE`, `[DEVID:]max`, or `cancel`.
///
/// # Errors
///
/// [`Refusal::Exclusive`] while another exclusive operation runs, or a balance is paused.
/// `ECANCELED` once a resize that ran was cancelled, for the one who asked for that as well;
/// `ENOTCONN` if none runs. `EINVAL` for text that is no size, and for less than 256 MiB; `ENODEV`
/// for another device; `EFBIG` beyond the device; `EPERM` on a read-only one; `EROFS`. To shrink:
/// `EAGAIN` while sends run, `ENOSPC` if what lies beyond the new end has no space before it, and
/// those of relocation. What had moved by then stays moved.
pub fn resize(fs: &Fs, text: &[u8]) -> core::result::Result<(), Refusal> {
    if text == b"cancel" {
        fs.state.cancel_exclusive(Operation::Resize)?;
        return Err(Refusal::Error(ECANCELED));
    }
    let token = fs.state.begin_exclusive(Operation::Resize)?;
    Ok(resize_exclusively(fs, text, &token)?)
}

fn resize_exclusively(fs: &Fs, text: &[u8], token: &ExclusiveToken<'_>) -> Result {
    let args = ResizeArgs::parse(text)?;
    if args.names_device {
        fs_info!(fs, "resizing devid {}", args.devid);
    }
    let (devid, old) = {
        let reader = fs.reader()?;
        let device = &reader.superblock().dev_item;
        (device.devid.get(), device.total_bytes.get())
    };
    if args.devid != devid {
        fs_info!(fs, "resizer unable to find device {}", args.devid);
        return Err(ENODEV);
    }
    if fs.device.is_read_only() {
        fs_info!(fs, "resizer unable to apply on readonly device {}", devid);
        return Err(EPERM);
    }
    fs.check_writable()?;
    let new = args.size.of(old, fs.device.size())?;
    if new < MIN_SIZE {
        return Err(EINVAL);
    }
    if new > fs.device.size() {
        return Err(EFBIG);
    }
    let new = new - new % fs.geometry.sectorsize;
    if new == old {
        return Ok(());
    }
    if new < old {
        shrink::make_way(fs, new, token)?;
    } else {
        write_size(fs, new)?;
    }
    fs_info!(
        fs,
        "resize device /dev/{} (devid {}) from {} to {}",
        fs.name(),
        devid,
        old,
        new
    );
    Ok(())
}

/// Commits another size, in bytes.
///
/// # Errors
///
/// Those of changing the chunk tree and of a commit.
fn write_size(fs: &Fs, size: u64) -> Result {
    let mut trans = fs.begin(Reserve::default())?;
    trans.mark_changed();
    let written = dev_extent::write_total_bytes(&mut trans, size);
    if let Err(error) = written.and_then(|()| trans.settle()) {
        trans.cancel();
        return Err(error);
    }
    trans.commit()?;
    // Chunks of the transaction itself were held against the old size.
    let mut writer = fs.writer.lock();
    writer.space_mut().devices.set_total_bytes(size);
    fs.refresh_reservations(writer.space_mut());
    Ok(())
}
