// SPDX-License-Identifier: GPL-2.0
//! The copies of the superblock.

use crate::device::superblock::{check_copies, CopyFault};
use crate::fs_err;
use crate::trans::transaction::Reserve;
use crate::volume::Fs;
use kernel::prelude::*;

/// Counts the copies that are not those of the last commit, with a line in the log for each.
///
/// # Errors
///
/// `ENOMEM`; of a commit that is waited for.
pub(super) fn count_bad(fs: &Fs) -> Result<u64> {
    let mut bad = check(fs)?;
    if !bad.is_empty() && !fs.is_read_only() {
        // A commit may be writing them right now. With the writer's mutex none does.
        let _writer = fs.lock_idle()?;
        bad = check(fs)?;
    }
    for (physical, fault) in bad.iter() {
        fs_err!(fs, "scrub: super block at physical {} {}", physical, fault);
    }
    Ok(bad.len() as u64)
}

fn check(fs: &Fs) -> Result<KVec<(u64, CopyFault)>> {
    let reader = fs.reader()?;
    check_copies(&*fs.device, reader.superblock())
}

/// Writes all copies anew, by a commit.
///
/// # Errors
///
/// Those of a commit.
pub(super) fn rewrite(fs: &Fs) -> Result {
    let mut trans = fs.begin(Reserve::default())?;
    trans.mark_changed();
    trans.commit()
}
