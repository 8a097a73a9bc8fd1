// SPDX-License-Identifier: GPL-2.0
//! The labels that security modules give new files, stored as extended attributes.

use super::iget::Unmade;
use super::inode::Inode;
use crate::bindings;
use kernel::error::{from_result, to_result};
use kernel::prelude::*;

/// Names and values.
pub(super) struct Labels(KVec<(KVec<u8>, KVec<u8>)>);

impl Labels {
    /// Those of an inode that is to be made in `dir`, with this name if it gets one.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and those of the security modules.
    pub(super) fn of(new: &Unmade<'_>, dir: &Inode, name: Option<&[u8]>) -> Result<Self> {
        let mut labels = Self(KVec::new());
        let (name, len) = match name {
            Some(name) => (
                name.as_ptr(),
                u32::try_from(name.len()).map_err(|_| ENAMETOOLONG)?,
            ),
            None => (core::ptr::null(), 0),
        };
        // SAFETY: Both inodes are valid and the name is a live slice, or null. The callback takes
        // the pointer for what it is.
        to_result(unsafe {
            bindings::rbtrfs_init_security(
                new.as_ptr(),
                dir.as_ptr(),
                name,
                len,
                Some(collect),
                (&raw mut labels).cast(),
            )
        })?;
        Ok(labels)
    }

    /// Calls `each` with the name and the value of each.
    pub(super) fn each<'a>(&'a self, each: &mut dyn FnMut(&'a [u8], &'a [u8]) -> Result) -> Result {
        for (name, value) in &self.0 {
            each(name, value)?;
        }
        Ok(())
    }

    fn push(&mut self, suffix: &CStr, value: &[u8]) -> Result {
        let mut name = KVec::new();
        name.extend_from_slice(b"security.", GFP_KERNEL)?;
        name.extend_from_slice(suffix.to_bytes(), GFP_KERNEL)?;
        let mut copy = KVec::new();
        copy.extend_from_slice(value, GFP_KERNEL)?;
        Ok(self.0.push((name, copy), GFP_KERNEL)?)
    }
}

/// `initxattrs`: takes what the security modules want stored.
///
/// # Safety
///
/// `xattrs` ends with one without a name, and `labels` points to [`Labels`].
unsafe extern "C" fn collect(
    _inode: *mut bindings::inode,
    xattrs: *const bindings::xattr,
    labels: *mut kernel::ffi::c_void,
) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract.
    let labels = unsafe { &mut *labels.cast::<Labels>() };
    from_result(|| {
        let mut next = xattrs;
        loop {
            // SAFETY: The last one was not passed yet.
            let xattr = unsafe { &*next };
            if xattr.name.is_null() {
                return Ok(0);
            }
            // SAFETY: Names are terminated, and values have that many bytes.
            let (name, value) = unsafe {
                (
                    CStr::from_char_ptr(xattr.name),
                    core::slice::from_raw_parts(xattr.value.cast::<u8>(), xattr.value_len),
                )
            };
            labels.push(name, value)?;
            // SAFETY: This was not the last one.
            next = unsafe { next.add(1) };
        }
    })
}
