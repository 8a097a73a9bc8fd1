// SPDX-License-Identifier: GPL-2.0
//! The tree log: what an fsync wrote beside the last commit, so that it need not wait for the next
//! one.
//!
//! The superblock's `log_root` leads to a tree of root items, one for each subvolume that has a log
//! tree. A log tree holds copies of the items of those inodes that were synced, the checksums of
//! their data, and for directories the ranges of `DIR_INDEX` for which the log tells all there is.
//! A mount replays a log before anything else writes to the volume, in one transaction: so either
//! the commit has all of it and no log, or the log is there for the next mount. The result is that
//! of the C driver's `btrfs_recover_log_trees()`.
//!
//! [`tree`] reads log trees, [`space`] takes the space that they need, and [`replay`] goes through
//! their items, with the help of [`inode`], [`dir`], [`link`], [`xattr`] and [`extent`], one for
//! each kind of item.

mod dir;
mod extent;
mod inode;
mod link;
mod replay;
mod space;
mod tree;
mod write;
mod xattr;

pub use write::sync_inode;

use crate::device::BlockDevice;
use crate::volume::{Fs, OpenOptions};
use crate::{fs_err, fs_info, fs_warn};
use kernel::prelude::*;
use kernel::sync::Arc;

/// What to do about a log that a volume has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Replay it, on a volume that is opened read-only as well.
    Yes,
    /// Leave it. The volume is read-only, and what was synced last is missing.
    No,
}

/// Opens the volume on a device, as [`Fs::open`] does, and replays its log.
///
/// # Errors
///
/// Those of [`Fs::open`]. `EIO`, after a line in the log, for a log on a device that cannot be
/// written to, `EIO` or `EUCLEAN` for a log that is damaged, `ENOMEM`, and those of a commit. The
/// volume is then as it was, and its log can be replayed by the next attempt.
pub fn open(
    device: Arc<dyn BlockDevice>,
    options: &OpenOptions,
    replay: Replay,
) -> Result<Arc<Fs>> {
    let is_read_only = device.is_read_only();
    let fs = Fs::open(device, options)?;
    if !fs.has_log() {
        return Ok(fs);
    }
    if replay == Replay::No {
        fs_warn!(
            fs,
            "the log tree is not replayed, what was fsynced last is missing"
        );
        return Ok(fs);
    }
    if is_read_only {
        fs_err!(fs, "log replay required on RO media");
        return Err(EIO);
    }
    fs_info!(fs, "start tree-log replay");
    match replay::replay(&fs) {
        Ok(()) => fs.set_read_only(options.read_only)?,
        // Something that is not supported forbids writing to the volume; what it is was said.
        Err(EROFS) => fs_warn!(
            fs,
            "mounting read-only, the log tree is not replayed, what was fsynced last is missing"
        ),
        Err(error) => {
            fs_err!(
                fs,
                "failed to recover log trees with error: {}",
                error.to_errno()
            );
            return Err(error);
        }
    }
    Ok(fs)
}
