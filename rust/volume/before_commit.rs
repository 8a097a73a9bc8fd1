// SPDX-License-Identifier: GPL-2.0
//! What has to be written back before a commit.
//!
//! A file that was truncated to 0 and written anew is empty in the running transaction until its
//! data is written back. The page cache knows which files these are, and the engine knows when a
//! commit comes. Commits that the engine makes by itself, for want of memory or space, come while
//! locks are held that writeback needs, and do without.

use super::fs::Fs;
use kernel::sync::Arc;

/// Data in memory that a commit must not leave behind.
pub trait BeforeCommit: Send + Sync {
    /// Writes it back, and waits until it is in the running transaction. Errors are the files' own.
    fn write_back(&self);
}

/// What is asked before each commit, if there is anything to ask.
pub(super) type Asked = Option<Arc<dyn BeforeCommit>>;

impl Fs {
    /// Sets what is asked before each commit, or that there is nothing to ask. Waits for a call
    /// under way.
    pub fn set_before_commit(&self, new: Asked) {
        let before = core::mem::replace(&mut *self.before_commit.lock(), new);
        drop(before);
    }

    /// Writes back what the next commit must not leave behind. The mutex is held meanwhile: a
    /// commit that is asked for by another task comes after the data as well. The caller holds
    /// nothing that writing back a file may wait for.
    pub fn write_back_before_commit(&self) {
        if let Some(before) = self.before_commit.lock().as_ref() {
            before.write_back();
        }
    }
}
