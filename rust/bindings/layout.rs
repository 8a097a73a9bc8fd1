// SPDX-License-Identifier: GPL-2.0
//! Whether the C compiler and bindgen, which parses with another one, see the same structures.

use super::*;
use core::mem::offset_of;
use kernel::prelude::*;

/// In the order of `rbtrfs_layouts`.
const LAYOUTS: [usize; RBTRFS_LAYOUTS as usize] = [
    size_of::<inode>(),
    offset_of!(inode, i_op),
    offset_of!(inode, i_mapping),
    offset_of!(inode, i_generation),
    size_of::<super_block>(),
    offset_of!(super_block, s_fs_info),
    offset_of!(super_block, s_id),
    size_of::<file>(),
    size_of::<inode_operations>(),
    size_of::<file_operations>(),
    size_of::<super_operations>(),
    size_of::<address_space_operations>(),
    size_of::<export_operations>(),
    size_of::<fs_context>(),
    offset_of!(fs_context, sb_flags),
    size_of::<kstat>(),
    size_of::<kstatfs>(),
    size_of::<bio>(),
    size_of::<iomap_ops>(),
    size_of::<iomap_iter>(),
    size_of::<iomap_write_ops>(),
    size_of::<iomap_writeback_ops>(),
    size_of::<iomap_writepage_ctx>(),
    size_of::<iomap_read_folio_ctx>(),
    size_of::<iattr>(),
];

/// Compares the layouts. The module's initialiser calls this before it uses any.
///
/// # Errors
///
/// `ENOEXEC`, with a line in the log, if the module was built against headers that it does not fit.
pub(crate) fn agree() -> Result {
    let mut found = [0usize; LAYOUTS.len()];
    // SAFETY: There is space for as many sizes as the function writes.
    unsafe { rbtrfs_layouts(found.as_mut_ptr()) };
    for (i, (expected, found)) in LAYOUTS.iter().zip(found.iter()).enumerate() {
        if expected != found {
            pr_err!("structure layout {i} is {expected} in Rust and {found} in C\n");
            return Err(kernel::error::code::ENOEXEC);
        }
    }
    Ok(())
}
