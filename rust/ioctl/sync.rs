// SPDX-License-Identifier: GPL-2.0
//! `SYNC`, `START_SYNC` and `WAIT_SYNC`.

use crate::vfs::{OpenFile, UserArg};
use kernel::prelude::*;

/// Writes back what is dirty, commits, and lets the cleaner look for deleted subvolumes.
pub(super) fn sync(file: &OpenFile<'_>) -> Result {
    let fs = file.fs();
    fs.check_failed()?;
    if fs.is_read_only() {
        return Ok(());
    }
    file.write_back_all()?;
    fs.commit()?;
    file.wake_cleaner();
    Ok(())
}

/// Commits, and tells the transaction: there is nothing left to be waited for.
pub(super) fn start(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let fs = file.fs();
    fs.check_failed()?;
    if !fs.is_read_only() {
        fs.commit()?;
    }
    if arg.is_null() {
        return Ok(());
    }
    arg.write(&fs.generation())
}

/// Waits for a transaction, or for the present one.
pub(super) fn wait(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let fs = file.fs();
    let transid = if arg.is_null() { 0 } else { arg.read::<u64>()? };
    if transid > fs.generation().saturating_add(1) {
        return Err(EINVAL);
    }
    if !fs.is_read_only() && (transid == 0 || transid > fs.generation()) {
        fs.commit()?;
    }
    Ok(())
}
