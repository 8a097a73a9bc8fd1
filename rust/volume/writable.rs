// SPDX-License-Identifier: GPL-2.0
//! What forbids writing to a volume that can be read.

use crate::format::{item_type, tree_id, Key};
use crate::trans::reader::Reader;
use kernel::prelude::*;

/// Whether the volume may be written to, as far as its contents tell.
///
/// # Errors
///
/// `EROFS`, after a line in the log, for a volume with relocation trees or quotas, which are not
/// kept up here; errors of reading.
pub(crate) fn check(base: &Reader) -> Result {
    let fs = base.fs();
    let mut cursor = base.cursor(base.root(tree_id::ROOT)?);
    cursor.seek(&Key::new(tree_id::TREE_RELOC, item_type::ROOT_ITEM, 0))?;
    if let Some((key, _)) = cursor.item() {
        if key.is(tree_id::TREE_RELOC, item_type::ROOT_ITEM) {
            crate::fs_err!(
                fs,
                "relocation of tree {} was interrupted; mount with the kernel's btrfs to finish it",
                key.offset
            );
            return Err(EROFS);
        }
    }
    if base.root(tree_id::QUOTA).is_ok() {
        crate::fs_err!(fs, "quotas are enabled, and not supported for writing");
        return Err(EROFS);
    }
    Ok(())
}
