// SPDX-License-Identifier: GPL-2.0
//! `SYNC`, `START_SYNC` and `WAIT_SYNC`.
//!
//! Each change of the volume is a transaction of its own, committed before its caller returns, so that what was done
//! before one of these commands is on disk already.

use crate::vfs::{OpenFile, UserArg};
use kernel::prelude::*;

pub(super) fn sync(file: &OpenFile<'_>) -> Result {
    file.fs().check_failed()
}

/// Tells the transaction to wait for: the last commit.
pub(super) fn start(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let fs = file.fs();
    fs.check_failed()?;
    let transid = fs.reader()?.generation();
    if arg.is_null() {
        return Ok(());
    }
    arg.write(&transid)
}

/// Waits for a transaction, or for the present one.
pub(super) fn wait(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let transid = if arg.is_null() { 0 } else { arg.read::<u64>()? };
    if transid > file.fs().reader()?.generation() {
        return Err(EINVAL);
    }
    Ok(())
}
