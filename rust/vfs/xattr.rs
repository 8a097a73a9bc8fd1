// SPDX-License-Identifier: GPL-2.0
//! Extended attributes and ACLs.

use super::inode::Inode;
use super::table::Table;
use crate::bindings;
use crate::subvol;
use kernel::error::from_result;
use kernel::prelude::*;
use kernel::str::as_char_ptr_in_const_context;

/// Copies the attribute `name` to `buffer`, or tells its size where that is empty.
fn read(inode: &Inode, name: &CStr, buffer: &mut [u8]) -> Result<usize> {
    if inode.is_stand_in() {
        return Err(ENODATA);
    }
    let (reader, root) = inode.tree()?;
    let ino = inode.info().ino;
    subvol::xattr::get(&reader, root, ino, name.to_bytes(), |value| {
        if !buffer.is_empty() {
            buffer
                .get_mut(..value.len())
                .ok_or(ERANGE)?
                .copy_from_slice(value);
        }
        Ok(value.len())
    })
}

/// # Safety
///
/// `buffer` is valid for writes of `size` bytes, or `size` is 0, for `'a`.
unsafe fn buffer_of<'a>(buffer: *mut kernel::ffi::c_void, size: usize) -> &'a mut [u8] {
    if size == 0 || buffer.is_null() {
        return &mut [];
    }
    // SAFETY: By this function's contract. The memory is the VFS's own, and was initialised by it.
    unsafe { core::slice::from_raw_parts_mut(buffer.cast(), size) }
}

/// `xattr_handler::get`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of ours.
unsafe extern "C" fn get(
    handler: *const bindings::xattr_handler,
    _dentry: *mut bindings::dentry,
    inode: *mut bindings::inode,
    name: *const kernel::ffi::c_char,
    buffer: *mut kernel::ffi::c_void,
    size: usize,
) -> kernel::ffi::c_int {
    from_result(|| {
        // SAFETY: The VFS passes the handler's suffix of a terminated name, which holds the prefix, too.
        let full = unsafe { CStr::from_char_ptr(bindings::xattr_full_name(handler, name)) };
        // SAFETY: The VFS passes an inode that it holds, and a buffer of that size.
        let len = unsafe { read(Inode::from_raw(inode), full, buffer_of(buffer, size)) }?;
        i32::try_from(len).map_err(|_| EUCLEAN)
    })
}

/// `xattr_handler::set`.
///
/// # Safety
///
/// None is needed: the arguments are not looked at.
unsafe extern "C" fn set(
    _handler: *const bindings::xattr_handler,
    _idmap: *mut bindings::mnt_idmap,
    _dentry: *mut bindings::dentry,
    _inode: *mut bindings::inode,
    _name: *const kernel::ffi::c_char,
    _value: *const kernel::ffi::c_void,
    _size: usize,
    _flags: kernel::ffi::c_int,
) -> kernel::ffi::c_int {
    EROFS.to_errno()
}

const fn handler(prefix: &'static CStr) -> bindings::xattr_handler {
    bindings::xattr_handler {
        prefix: as_char_ptr_in_const_context(prefix),
        get: Some(get),
        set: Some(set),
        ..pin_init::zeroed()
    }
}

/// A table of handlers as `super_block::s_xattr` wants it: pointers up to a null.
#[repr(transparent)]
pub(super) struct Handlers([*const bindings::xattr_handler; 5]);

// SAFETY: The pointers are to statics that nobody changes.
unsafe impl Sync for Handlers {}

impl Handlers {
    pub(super) fn as_ptr(&self) -> *const *const bindings::xattr_handler {
        self.0.as_ptr()
    }
}

static SECURITY: Table<bindings::xattr_handler> = Table::new(handler(c"security."));
static TRUSTED: Table<bindings::xattr_handler> = Table::new(handler(c"trusted."));
static USER: Table<bindings::xattr_handler> = Table::new(handler(c"user."));
static BTRFS: Table<bindings::xattr_handler> = Table::new(handler(c"btrfs."));

pub(super) static HANDLERS: Handlers = Handlers([
    SECURITY.as_ptr(),
    TRUSTED.as_ptr(),
    USER.as_ptr(),
    BTRFS.as_ptr(),
    core::ptr::null(),
]);

/// Writes all names, each with its terminator, or tells how many bytes they take where `buffer` is empty.
fn list_names(inode: &Inode, buffer: &mut [u8]) -> Result<usize> {
    if inode.is_stand_in() {
        return Ok(0);
    }
    let (reader, root) = inode.tree()?;
    let ino = inode.info().ino;
    let mut used: usize = 0;
    subvol::xattr::for_each(&reader, root, ino, &mut |entry| {
        let end = used.checked_add(entry.name.len()).ok_or(ERANGE)?;
        let next = end.checked_add(1).ok_or(ERANGE)?;
        if !buffer.is_empty() {
            buffer
                .get_mut(used..end)
                .ok_or(ERANGE)?
                .copy_from_slice(entry.name);
            *buffer.get_mut(end).ok_or(ERANGE)? = 0;
        }
        used = next;
        Ok(true)
    })?;
    Ok(used)
}

/// `inode_operations::listxattr`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of ours.
pub(super) unsafe extern "C" fn list(
    dentry: *mut bindings::dentry,
    buffer: *mut kernel::ffi::c_char,
    size: usize,
) -> isize {
    // SAFETY: The VFS passes a dentry that it holds, and a buffer of that size.
    let result = unsafe { list_names(Inode::of_dentry(dentry), buffer_of(buffer.cast(), size)) };
    match result {
        Ok(len) => isize::try_from(len).unwrap_or(isize::MAX),
        Err(e) => e.to_errno() as isize,
    }
}

/// `inode_operations::get_inode_acl`. The VFS caches the answer.
///
/// # Safety
///
/// As the VFS calls it, for an inode of ours.
pub(super) unsafe extern "C" fn get_inode_acl(
    inode: *mut bindings::inode,
    typ: kernel::ffi::c_int,
    rcu: bool,
) -> *mut bindings::posix_acl {
    // A walk under RCU cannot wait for the disk.
    if rcu {
        return ECHILD.to_ptr();
    }
    let name = match typ as u32 {
        bindings::ACL_TYPE_ACCESS => c"system.posix_acl_access",
        bindings::ACL_TYPE_DEFAULT => c"system.posix_acl_default",
        _ => return EINVAL.to_ptr(),
    };
    // SAFETY: The VFS passes an inode that it holds.
    match stored_acl(unsafe { Inode::from_raw(inode) }, name) {
        Ok(Some(value)) => {
            // SAFETY: The value is a live buffer of that length, which is checked as it is parsed.
            unsafe {
                bindings::posix_acl_from_xattr(
                    &raw mut bindings::init_user_ns,
                    value.as_ptr().cast(),
                    value.len(),
                )
            }
        }
        Ok(None) => core::ptr::null_mut(),
        Err(e) => e.to_ptr(),
    }
}

fn stored_acl(inode: &Inode, name: &CStr) -> Result<Option<KVec<u8>>> {
    let size = match read(inode, name, &mut []) {
        Ok(0) => return Ok(None),
        Ok(size) => size,
        Err(e) if e == ENODATA => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut value = KVec::from_elem(0, size, GFP_KERNEL)?;
    let len = read(inode, name, &mut value)?;
    value.truncate(len);
    Ok(Some(value))
}

/// `inode_operations::set_acl`.
///
/// # Safety
///
/// None is needed: the arguments are not looked at.
pub(super) unsafe extern "C" fn set_acl(
    _idmap: *mut bindings::mnt_idmap,
    _dentry: *mut bindings::dentry,
    _acl: *mut bindings::posix_acl,
    _typ: kernel::ffi::c_int,
) -> kernel::ffi::c_int {
    EROFS.to_errno()
}
