// SPDX-License-Identifier: GPL-2.0
//! Extended attributes and ACLs.

use super::attributes::{id, now, take_over_times};
use super::inode::Inode;
use super::lock::Exclusive;
use super::table::Table;
use crate::bindings;
use crate::subvol;
use crate::subvol::write::{self, check_property, has_properties, set_xattr, XattrMode};
use kernel::error::{from_result, to_result};
use kernel::prelude::*;
use kernel::str::as_char_ptr_in_const_context;

/// Copies the attribute `name` to `buffer`, or tells its size where that is empty.
fn read(inode: &Inode, name: &CStr, buffer: &mut [u8]) -> Result<usize> {
    let (view, root) = inode.tree()?;
    let ino = inode.info().ino;
    subvol::xattr::get(&*view, root, ino, name.to_bytes(), |value| {
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
        // SAFETY: The VFS passes the handler's suffix of a terminated name, which holds the prefix,
        // too.
        let full = unsafe { CStr::from_char_ptr(bindings::xattr_full_name(handler, name)) };
        // SAFETY: The VFS passes an inode that it holds, and a buffer of that size.
        let len = unsafe { read(Inode::from_raw(inode), full, buffer_of(buffer, size)) }?;
        i32::try_from(len).map_err(|_| EUCLEAN)
    })
}

/// Sets the attribute `name`, or removes it if there is no value.
fn store(inode: &Inode, name: &[u8], value: Option<&[u8]>, mode: XattrMode) -> Result {
    let item = set_xattr(inode.fs(), id(inode), name, value, mode, now(&[inode]))?;
    if name.starts_with(b"btrfs.") {
        inode.set_flags(item.flags.get());
    }
    take_over_times(inode, &item, false);
    Ok(())
}

/// Whether attributes may be changed.
fn check(inode: &Inode) -> Result {
    inode.subvolume().check_writable()
}

/// `xattr_handler::set`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of ours, which is locked.
unsafe extern "C" fn set(
    handler: *const bindings::xattr_handler,
    _idmap: *mut bindings::mnt_idmap,
    _dentry: *mut bindings::dentry,
    inode: *mut bindings::inode,
    name: *const kernel::ffi::c_char,
    value: *const kernel::ffi::c_void,
    size: usize,
    flags: kernel::ffi::c_int,
) -> kernel::ffi::c_int {
    from_result(|| {
        // SAFETY: The VFS passes an inode that it holds, and the handler's suffix of a terminated
        // name, which holds the prefix, too.
        let (inode, full) = unsafe {
            let full = CStr::from_char_ptr(bindings::xattr_full_name(handler, name));
            (Inode::from_raw(inode), full.to_bytes())
        };
        check(inode)?;
        let value = if value.is_null() {
            None
        } else if size == 0 {
            Some(&[][..])
        } else {
            // SAFETY: The VFS passes a buffer of that size.
            Some(unsafe { core::slice::from_raw_parts(value.cast::<u8>(), size) })
        };
        if full.starts_with(b"btrfs.") {
            check_property(full, value.unwrap_or_default(), inode.info().flags())?;
            if !has_properties(inode.mode()) {
                return Ok(0);
            }
        }
        let mode = match flags as u32 {
            bindings::XATTR_CREATE => XattrMode::Create,
            bindings::XATTR_REPLACE => XattrMode::Replace,
            _ => XattrMode::Set,
        };
        store(inode, full, value, mode)?;
        Ok(0)
    })
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

/// Writes all names, each with its terminator, or tells how many bytes they take where `buffer` is
/// empty.
fn list_names(inode: &Inode, buffer: &mut [u8]) -> Result<usize> {
    let (view, root) = inode.tree()?;
    let ino = inode.info().ino;
    let mut used: usize = 0;
    subvol::xattr::for_each(&*view, root, ino, &mut |entry| {
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
    let name = match acl_name(typ) {
        Ok(name) => name,
        Err(e) => return e.to_ptr(),
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

/// The attribute that an ACL of this type is stored as.
fn acl_name(typ: kernel::ffi::c_int) -> Result<&'static CStr> {
    match typ as u32 {
        bindings::ACL_TYPE_ACCESS => Ok(c"system.posix_acl_access"),
        bindings::ACL_TYPE_DEFAULT => Ok(c"system.posix_acl_default"),
        _ => Err(EINVAL),
    }
}

fn stored_acl(inode: &Inode, name: &CStr) -> Result<Option<KVec<u8>>> {
    let size = match read(inode, name, &mut []) {
        Ok(0) => return Ok(None),
        Ok(size) => size,
        Err(e) if e == ENODATA => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut value = KVec::zeroed(size, GFP_KERNEL)?;
    let len = read(inode, name, &mut value)?;
    value.truncate(len);
    Ok(Some(value))
}

/// An ACL as it is stored.
///
/// # Safety
///
/// `acl` is valid.
unsafe fn encode_acl(acl: *const bindings::posix_acl) -> Result<KVec<u8>> {
    let mut size = 0;
    // SAFETY: By this function's contract; the bytes come from kmalloc.
    let bytes = unsafe {
        bindings::posix_acl_to_xattr(
            &raw mut bindings::init_user_ns,
            acl,
            &mut size,
            bindings::GFP_KERNEL,
        )
    };
    if bytes.is_null() {
        return Err(ENOMEM);
    }
    // SAFETY: The function allocated that many bytes for us, and filled them in.
    Ok(unsafe { KVec::from_raw_parts(bytes.cast(), size, size) })
}

/// `inode_operations::set_acl`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of ours, which is locked.
pub(super) unsafe extern "C" fn set_acl(
    idmap: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    mut acl: *mut bindings::posix_acl,
    typ: kernel::ffi::c_int,
) -> kernel::ffi::c_int {
    from_result(|| {
        // SAFETY: The VFS passes a dentry that it holds.
        let inode = unsafe { Inode::of_dentry(dentry) };
        check(inode)?;
        let name = acl_name(typ)?;
        let is_access = typ as u32 == bindings::ACL_TYPE_ACCESS;
        if !is_access && !inode.is_dir() {
            return if acl.is_null() { Ok(0) } else { Err(EACCES) };
        }
        let mut mode = inode.mode() as bindings::umode_t;
        if is_access && !acl.is_null() {
            // The part of an ACL that a mode can express goes there.
            // SAFETY: The arguments are the VFS's own.
            to_result(unsafe {
                bindings::posix_acl_update_mode(idmap, inode.as_ptr(), &mut mode, &mut acl)
            })?;
        }
        let value = if acl.is_null() {
            None
        } else {
            // SAFETY: The VFS passes a valid one.
            Some(unsafe { encode_acl(acl) }?)
        };
        let (name, value) = (name.to_bytes(), value.as_deref());
        // Of an ACL that says no more than a mode, nothing is stored.
        let item = write::set_acl(
            inode.fs(),
            id(inode),
            name,
            value,
            mode.into(),
            now(&[inode]),
        )?;
        // SAFETY: The inode is valid, and locked.
        unsafe {
            (*inode.as_ptr()).i_mode = mode;
            bindings::set_cached_acl(inode.as_ptr(), typ, acl);
        }
        take_over_times(inode, &item, false);
        Ok(0)
    })
}

/// A counted reference to an ACL, or none.
struct Acl(*mut bindings::posix_acl);

impl Acl {
    fn encoded(&self) -> Result<Option<KVec<u8>>> {
        if self.0.is_null() {
            return Ok(None);
        }
        // SAFETY: The reference keeps it.
        unsafe { encode_acl(self.0) }.map(Some)
    }
}

impl Drop for Acl {
    fn drop(&mut self) {
        // SAFETY: The reference is ours, or the pointer null, which the function takes.
        unsafe { bindings::rbtrfs_acl_release(self.0) }
    }
}

/// The ACLs that a new inode gets from its directory, as they are stored.
pub(super) struct Inherited {
    access: Option<KVec<u8>>,
    default: Option<KVec<u8>>,
}

impl Inherited {
    /// Those of a new inode in `dir`. Its mode becomes what they, or the caller's umask, leave of
    /// it.
    pub(super) fn from_dir(dir: Exclusive<'_>, mode: &mut bindings::umode_t) -> Result<Self> {
        let (mut default, mut access) = (Acl(core::ptr::null_mut()), Acl(core::ptr::null_mut()));
        // SAFETY: The directory is valid; the references that are written become ours.
        to_result(unsafe {
            bindings::posix_acl_create(dir.as_ptr(), mode, &mut default.0, &mut access.0)
        })?;
        Ok(Self {
            access: access.encoded()?,
            default: default.encoded()?,
        })
    }

    /// Calls `each` with the name and the value of each.
    pub(super) fn each<'a>(&'a self, each: &mut dyn FnMut(&'a [u8], &'a [u8]) -> Result) -> Result {
        if let Some(value) = &self.access {
            each(b"system.posix_acl_access", value)?;
        }
        if let Some(value) = &self.default {
            each(b"system.posix_acl_default", value)?;
        }
        Ok(())
    }
}
