// SPDX-License-Identifier: GPL-2.0
//! Abort: a transaction that ends without a commit.
//!
//! Nothing that a transaction does is visible before its superblock is written, so there is nothing to undo on disk.
//! In memory its blocks and roots are its own and go with it, and block groups, free space and chunks are read again
//! by the next transaction. That one comes only after a new mount if anything had been changed: a change that failed
//! half way, or a device that failed to write, is for an administrator to look at first.

use super::space::SpaceContext;
use super::transaction::Transaction;
use crate::tree::EditContext;
use kernel::prelude::*;

/// Gives up `trans` because of `error`.
pub(super) fn abort(trans: &mut Transaction<'_>, error: Error) {
    if trans.finished {
        return;
    }
    if !trans.changed && !trans.space().is_dirty() {
        trans.finished = true;
        return;
    }
    trans.roll_back();
    if !trans.changed {
        return;
    }
    let fs = trans.fs();
    crate::fs_err!(
        fs,
        "Transaction {} aborted (error {})",
        trans.transid(),
        error.to_errno()
    );
    pr_crit!(
        "BTRFS: error (device {}) in commit of transaction {}: errno={}\n",
        fs.name(),
        trans.transid(),
        error.to_errno()
    );
    fs.force_read_only();
    crate::fs_info!(fs, "forced readonly");
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // Whoever drops a transaction has the error; for the volume it is an I/O error.
        abort(self, EIO);
    }
}
