// SPDX-License-Identifier: GPL-2.0
//! File handles, as `name_to_handle_at` and NFS use them: the C driver's, so that a handle names
//! the same file under either.

use super::iget::iget;
use super::inode::{running_view, Inode, ROOT_DIR};
use super::subvol_path;
use super::super_block::SuperBlock;
use super::table::Table;
use crate::bindings;
use crate::format::dir::NAME_LEN;
use crate::format::tree_id;
use crate::subvol;
use kernel::error::{from_err_ptr, from_result};
use kernel::prelude::*;

/// `FILEID_BTRFS_WITHOUT_PARENT`, and the two with a parent in the same or in another subvolume.
const WITHOUT_PARENT: i32 = 0x4d;
const WITH_PARENT: i32 = 0x4e;
const WITH_PARENT_ROOT: i32 = 0x4f;
const FILEID_INVALID: i32 = 0xff;

/// Lengths of the three kinds, in words of four bytes.
const WORDS: usize = 5;
const WORDS_PARENT: usize = 8;
const WORDS_PARENT_ROOT: usize = 10;

fn put_u64(words: &mut [u32], at: usize, value: u64) {
    if let Some([low, high]) = words.get_mut(at..at + 2) {
        *low = value as u32;
        *high = (value >> 32) as u32;
    }
}

fn get_u64(words: &[u32], at: usize) -> Option<u64> {
    match words.get(at..at + 2) {
        Some([low, high]) => Some(u64::from(*low) | u64::from(*high) << 32),
        _ => None,
    }
}

fn generation(inode: &Inode) -> u32 {
    // SAFETY: The inode is valid, and the field does not change.
    unsafe { (*inode.as_ptr()).i_generation }
}

/// Which kind of handle, and how many words it takes.
fn kind(inode: &Inode, parent: Option<&Inode>) -> (i32, usize) {
    match parent {
        None => (WITHOUT_PARENT, WORDS),
        Some(parent) if parent.info().tree == inode.info().tree => (WITH_PARENT, WORDS_PARENT),
        Some(_) => (WITH_PARENT_ROOT, WORDS_PARENT_ROOT),
    }
}

fn encode(inode: &Inode, parent: Option<&Inode>, words: &mut [u32]) {
    put_u64(words, 0, inode.info().ino);
    put_u64(words, 2, inode.info().tree);
    if let Some(word) = words.get_mut(4) {
        *word = generation(inode);
    }
    if let Some(parent) = parent {
        put_u64(words, 5, parent.info().ino);
        if let Some(word) = words.get_mut(7) {
            *word = generation(parent);
        }
        put_u64(words, 8, parent.info().tree);
    }
}

/// `export_operations::encode_fh`.
///
/// # Safety
///
/// As the VFS calls it: `max_len` words may be written to `handle`, and the inodes are of ours.
unsafe extern "C" fn encode_fh(
    inode: *mut bindings::inode,
    handle: *mut u32,
    max_len: *mut kernel::ffi::c_int,
    parent: *mut bindings::inode,
) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract; the parent may be null.
    let (inode, parent, handle_words) = unsafe {
        let parent = (!parent.is_null()).then(|| Inode::from_raw(parent));
        (Inode::from_raw(inode), parent, *max_len)
    };
    if inode.is_stub() {
        return FILEID_INVALID;
    }
    let (kind, words) = kind(inode, parent);
    // SAFETY: By this function's contract.
    unsafe { *max_len = words as i32 };
    if usize::try_from(handle_words).unwrap_or(0) < words {
        return FILEID_INVALID;
    }
    // SAFETY: There is space for that many words, as just checked.
    let handle = unsafe { core::slice::from_raw_parts_mut(handle, words) };
    encode(inode, parent, handle);
    kind
}

/// The dentry of an inode, if it still is the one that the handle was made of.
fn dentry_of(
    sb: &SuperBlock,
    tree: u64,
    ino: u64,
    generation_wanted: Option<u32>,
) -> Result<*mut bindings::dentry> {
    if ino < ROOT_DIR || !tree_id::is_fs_tree(tree) {
        return Err(ESTALE);
    }
    let stale = |e: Error| if e == ENOENT { ESTALE } else { e };
    let inode = iget(sb, tree, ino).map_err(stale)?;
    if inode.subvolume().is_deleted() {
        // It is there for those who have it open, and nobody else gets to it.
        return Err(ESTALE);
    }
    if generation_wanted.is_some_and(|wanted| wanted != generation(&inode)) {
        return Err(ESTALE);
    }
    // SAFETY: The function takes the reference over, and reports failure in its result.
    Ok(unsafe { bindings::d_obtain_alias(inode.into_raw()) })
}

fn into_ptr(result: Result<*mut bindings::dentry>) -> *mut bindings::dentry {
    result.unwrap_or_else(|e| e.to_ptr())
}

/// # Safety
///
/// `fid` holds `len` words.
unsafe fn words<'a>(fid: *const kernel::ffi::c_void, len: kernel::ffi::c_int) -> &'a [u32] {
    let len = usize::try_from(len).unwrap_or(0);
    // SAFETY: By this function's contract.
    unsafe { core::slice::from_raw_parts(fid.cast(), len) }
}

fn expected_words(kind: i32) -> Option<usize> {
    match kind {
        WITHOUT_PARENT => Some(WORDS),
        WITH_PARENT => Some(WORDS_PARENT),
        WITH_PARENT_ROOT => Some(WORDS_PARENT_ROOT),
        _ => None,
    }
}

/// `export_operations::fh_to_dentry`.
///
/// # Safety
///
/// As the VFS calls it: `fid` holds `len` words, and the superblock is of ours.
unsafe extern "C" fn fh_to_dentry(
    sb: *mut bindings::super_block,
    fid: *mut bindings::fid,
    len: kernel::ffi::c_int,
    kind: kernel::ffi::c_int,
) -> *mut bindings::dentry {
    // SAFETY: By this function's contract.
    let (sb, words) = unsafe { (SuperBlock::from_raw(sb), words(fid.cast(), len)) };
    if expected_words(kind).is_none_or(|expected| words.len() < expected) {
        return core::ptr::null_mut();
    }
    match (get_u64(words, 0), get_u64(words, 2), words.get(4)) {
        (Some(ino), Some(tree), Some(wanted)) => into_ptr(dentry_of(sb, tree, ino, Some(*wanted))),
        _ => core::ptr::null_mut(),
    }
}

/// `export_operations::fh_to_parent`.
///
/// # Safety
///
/// As [`fh_to_dentry`].
unsafe extern "C" fn fh_to_parent(
    sb: *mut bindings::super_block,
    fid: *mut bindings::fid,
    len: kernel::ffi::c_int,
    kind: kernel::ffi::c_int,
) -> *mut bindings::dentry {
    // SAFETY: By this function's contract.
    let (sb, words) = unsafe { (SuperBlock::from_raw(sb), words(fid.cast(), len)) };
    let tree = match kind {
        WITH_PARENT if words.len() >= WORDS_PARENT => get_u64(words, 2),
        WITH_PARENT_ROOT if words.len() >= WORDS_PARENT_ROOT => get_u64(words, 8),
        _ => None,
    };
    match (get_u64(words, 5), tree, words.get(7)) {
        (Some(ino), Some(tree), Some(wanted)) => into_ptr(dentry_of(sb, tree, ino, Some(*wanted))),
        _ => core::ptr::null_mut(),
    }
}

/// The directory that holds subvolume `tree`, as a dentry whose reference is the caller's, and its
/// name there.
///
/// # Errors
///
/// `ENOENT` if there is no such subvolume or it has no name; what reading gives.
pub(super) fn place_of_subvolume(
    sb: &SuperBlock,
    tree: u64,
) -> Result<(*mut bindings::dentry, KVec<u8>)> {
    let (parent, dir, name) = {
        let view = running_view(sb.volume().fs(), &[tree_id::ROOT])?;
        subvol_path::place(&*view, tree)?
    };
    let dentry = from_err_ptr(dentry_of(sb, parent, dir, None)?)?;
    Ok((dentry, name))
}

/// The directory that a directory is in, across the border of its subvolume.
fn parent_of(child: &Inode) -> Result<*mut bindings::dentry> {
    let sb = child.super_block();
    let info = child.info();
    if info.ino == ROOT_DIR {
        let (tree, dir, _) = {
            let view = running_view(sb.volume().fs(), &[tree_id::ROOT])?;
            subvol_path::place(&*view, info.tree)?
        };
        return dentry_of(sb, tree, dir, None);
    }
    let mut parent = None;
    {
        let (view, root) = child.tree()?;
        subvol::inode::for_each_name(&*view, root, info.ino, &mut |name| {
            parent = Some(name.parent);
            Ok(false)
        })?;
    }
    dentry_of(sb, info.tree, parent.ok_or(ENOENT)?, None)
}

/// `export_operations::get_parent`.
///
/// # Safety
///
/// As the VFS calls it, for a directory of ours.
unsafe extern "C" fn get_parent(child: *mut bindings::dentry) -> *mut bindings::dentry {
    // SAFETY: The VFS passes a dentry that it holds.
    into_ptr(parent_of(unsafe { Inode::of_dentry(child) }))
}

/// The name that `child` has in `parent`, of names beside each other the first. The VFS would look
/// for the number of the child in a listing, which for the root directory of a subvolume is not
/// there.
fn name_in(parent: &Inode, child: &Inode) -> Result<KVec<u8>> {
    let (tree, dir) = (parent.info().tree, parent.info().ino);
    if child.info().ino == ROOT_DIR {
        let view = running_view(child.fs(), &[tree_id::ROOT])?;
        let (holder, holding, name) = subvol_path::place(&*view, child.info().tree)?;
        return if (holder, holding) == (tree, dir) {
            Ok(name)
        } else {
            Err(ENOENT)
        };
    }
    if child.info().tree != tree {
        return Err(ENOENT);
    }
    let mut found = None;
    let (view, root) = child.tree()?;
    subvol::inode::for_each_name(&*view, root, child.info().ino, &mut |name| {
        if name.parent != dir {
            return Ok(true);
        }
        let mut copy = KVec::with_capacity(name.name.len(), GFP_KERNEL)?;
        copy.extend_from_slice(name.name, GFP_KERNEL)?;
        found = Some(copy);
        Ok(false)
    })?;
    found.ok_or(ENOENT)
}

/// `export_operations::get_name`.
///
/// # Safety
///
/// As the VFS calls it, for dentries of ours, with space for [`NAME_LEN`] bytes and a terminator.
unsafe extern "C" fn get_name(
    parent: *mut bindings::dentry,
    name: *mut kernel::ffi::c_char,
    child: *mut bindings::dentry,
) -> kernel::ffi::c_int {
    from_result(|| {
        // SAFETY: The VFS passes dentries that it holds.
        let found = unsafe { name_in(Inode::of_dentry(parent), Inode::of_dentry(child)) }?;
        if found.len() > NAME_LEN {
            return Err(EUCLEAN);
        }
        // SAFETY: There is space, as just checked.
        unsafe {
            core::ptr::copy_nonoverlapping(found.as_ptr(), name.cast(), found.len());
            *name.add(found.len()) = 0;
        }
        Ok(0)
    })
}

pub(super) static OPERATIONS: Table<bindings::export_operations> =
    Table::new(bindings::export_operations {
        encode_fh: Some(encode_fh),
        fh_to_dentry: Some(fh_to_dentry),
        fh_to_parent: Some(fh_to_parent),
        get_parent: Some(get_parent),
        get_name: Some(get_name),
        ..pin_init::zeroed()
    });
