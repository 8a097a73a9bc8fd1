// SPDX-License-Identifier: GPL-2.0
//! What forbids writing to a volume that can be read.

use super::fs::Fs;
use crate::format::{item_type, tree_id, Key};
use crate::fs_err;
use crate::trans::reader::Reader;
use crate::trans::transaction::Reserve;
use kernel::prelude::*;

impl Fs {
    /// Proves that no change will fail for what the volume holds: what is not kept up here is
    /// looked for, and all is read that a transaction needs before it can allocate space. For the
    /// mount, and the remount that allows writing: neither may say that a volume is writable which
    /// is not.
    ///
    /// # Errors
    ///
    /// `EROFS`, after a line in the log; `ENOMEM`, and errors of reading the tree of roots.
    pub(super) fn prove_writable(&self) -> Result {
        check(&self.reader()?)?;
        let started = self
            .lock_idle()
            .and_then(|writer| self.start(writer, Reserve::default()));
        match started {
            Ok(trans) => {
                trans.cancel();
                Ok(())
            }
            Err(e) if e == EROFS || e == ENOMEM => Err(e),
            Err(e) => {
                let errno = e.to_errno();
                fs_err!(
                    self,
                    "block groups or free space are damaged, error {errno}"
                );
                Err(EROFS)
            }
        }
    }
}

/// Whether the volume may be written to, as far as its contents tell.
///
/// # Errors
///
/// `EROFS`, after a line in the log, for a volume with relocation trees or quotas, which are not
/// kept up here; errors of reading.
pub(super) fn check(base: &Reader) -> Result {
    let fs = base.fs();
    let mut cursor = base.cursor(base.root(tree_id::ROOT)?);
    cursor.seek(&Key::new(tree_id::TREE_RELOC, item_type::ROOT_ITEM, 0))?;
    if let Some((key, _)) = cursor.item() {
        if key.is(tree_id::TREE_RELOC, item_type::ROOT_ITEM) {
            fs_err!(
                fs,
                "relocation of tree {} was interrupted; mount with the kernel's btrfs to finish it",
                key.offset
            );
            return Err(EROFS);
        }
    }
    if base.root(tree_id::QUOTA).is_ok() {
        fs_err!(fs, "quotas are enabled, and not supported for writing");
        return Err(EROFS);
    }
    Ok(())
}
