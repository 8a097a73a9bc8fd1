// SPDX-License-Identifier: GPL-2.0
//! Abort: a transaction that ends without a commit.
//!
//! Nothing that a transaction does is visible before its superblock is written, so there is nothing
//! to undo on disk. In memory its blocks and roots are its own and go with it, and block groups,
//! free space and chunks are read again by the next transaction. That one comes only after a new
//! mount if anything had been changed: a change that failed half way, or a device that failed to
//! write, is for an administrator to look at first.

use super::transaction::TransactionHandle;
use super::tree_log::LogState;
use crate::volume::fs::Fs;
use kernel::prelude::*;

impl TransactionHandle<'_> {
    /// Whether there is anything to commit or to undo.
    pub(super) fn is_changed(&self) -> bool {
        self.changed || self.carried
    }

    /// Undoes in memory what the transaction did there.
    pub(super) fn roll_back(&mut self) {
        self.finished = true;
        self.writer.space.rolled_back();
        self.writer.log = LogState::None;
        self.fs.nothing_runs();
    }
}

/// Gives up the transaction that has this hold because of `error`.
pub(super) fn abort(handle: &mut TransactionHandle<'_>, error: Error) {
    if handle.finished {
        return;
    }
    if !handle.is_changed() && !handle.writer.space.is_dirty() {
        handle.finished = true;
        return;
    }
    handle.roll_back();
    if !handle.is_changed() {
        return;
    }
    fail(handle.fs, handle.transid, error);
}

/// Turns the volume read-only because transaction `transid` failed.
pub(crate) fn fail(fs: &Fs, transid: u64, error: Error) {
    crate::fs_err!(
        fs,
        "Transaction {transid} aborted (error {})",
        error.to_errno()
    );
    pr_crit!(
        "BTRFS: error (device {}) in commit of transaction {}: errno={}\n",
        fs.name(),
        transid,
        error.to_errno()
    );
    fs.force_read_only(error);
    crate::fs_info!(fs, "forced readonly");
}

impl Drop for TransactionHandle<'_> {
    fn drop(&mut self) {
        // Whoever drops a transaction has the error; for the volume it is an I/O error.
        abort(self, EIO);
    }
}
