// SPDX-License-Identifier: GPL-2.0
//! Directories: look-up, across the borders of subvolumes, and listing.

use super::inode::{self, iget, stand_in, Inode, InodeRef, ROOT_DIR};
use super::super_block::SuperBlock;
use super::table::Table;
use super::{file, ioctl};
use crate::bindings;
use crate::format::dir::{file_type, NAME_LEN};
use crate::format::root::RootRef;
use crate::format::{self, item_type, tree_id, Key};
use crate::subvol;
use crate::tree::TreeRoot;
use crate::volume::Reader;
use kernel::error::from_result;
use kernel::prelude::*;

/// The inode that `name` leads to in `parent`, or `None`.
fn lookup_name(parent: &Inode, name: &[u8]) -> Result<Option<InodeRef>> {
    if name.len() > NAME_LEN {
        return Err(ENAMETOOLONG);
    }
    if parent.is_stand_in() {
        return Ok(None);
    }
    let (reader, root) = parent.tree()?;
    let ino = parent.info().ino;
    let Some(target) = subvol::dir::lookup(&reader, root, ino, name)? else {
        return Ok(None);
    };
    let sb = parent.super_block();
    let location = target.location;
    let inode = match location.typ {
        item_type::INODE_ITEM => {
            let inode = iget(sb, &reader, root, location.objectid)?;
            // The dcache moves a directory that turns up in a second place. On a sound volume no directory
            // has two parents, so ask the child whether this is its own.
            if inode.is_dir() && !is_child(&reader, root, location.objectid, ino)? {
                return Err(damaged(
                    sb,
                    parent,
                    "is not the parent that its child names",
                ));
            }
            inode
        }
        item_type::ROOT_ITEM => {
            match enter_subvolume(sb, &reader, root.id, ino, name, location.objectid)? {
                Some(inode) => inode,
                None => stand_in(parent)?,
            }
        }
        _ => return Err(damaged(sb, parent, "has an entry that leads to no inode")),
    };
    if target.typ != file_type_of(inode.mode()) {
        return Err(damaged(
            sb,
            parent,
            "has an entry of another type than its inode",
        ));
    }
    Ok(Some(inode))
}

fn damaged(sb: &SuperBlock, dir: &Inode, what: &str) -> Error {
    crate::fs_err!(
        sb.volume().fs(),
        "directory {} of tree {} {}",
        dir.info().ino,
        dir.info().tree,
        what
    );
    EUCLEAN
}

fn is_child(reader: &Reader, root: TreeRoot, child: u64, parent: u64) -> Result<bool> {
    let mut found = false;
    subvol::inode::for_each_name(reader, root, child, &mut |name| {
        found = name.parent == parent;
        Ok(!found)
    })?;
    Ok(found)
}

/// The root directory of subvolume `child`, if the entry `name` of directory `dir` in the tree `parent` is
/// where the root tree says that it is.
fn enter_subvolume(
    sb: &SuperBlock,
    reader: &Reader,
    parent: u64,
    dir: u64,
    name: &[u8],
    child: u64,
) -> Result<Option<InodeRef>> {
    let mut cursor = reader.cursor(reader.root(tree_id::ROOT)?);
    if !cursor.seek(&Key::new(parent, item_type::ROOT_REF, child))? {
        return Ok(None);
    }
    let (_, data) = cursor.item().ok_or(EUCLEAN)?;
    let place: RootRef = format::read(data)?;
    let len = usize::from(place.name_len.get());
    if place.dirid.get() != dir || format::slice(data, size_of::<RootRef>(), len)? != name {
        return Ok(None);
    }
    if !tree_id::is_fs_tree(child) {
        return Ok(None);
    }
    let root = match reader.root(child) {
        Ok(root) => root,
        Err(e) if e == ENOENT => return Ok(None),
        Err(e) => return Err(e),
    };
    iget(sb, reader, root, ROOT_DIR).map(Some)
}

/// The type that a directory entry for an inode of this mode has.
fn file_type_of(mode: u32) -> u8 {
    match mode & inode::S_IFMT {
        inode::S_IFREG => file_type::REG_FILE,
        inode::S_IFDIR => file_type::DIR,
        inode::S_IFLNK => file_type::SYMLINK,
        bindings::S_IFCHR => file_type::CHRDEV,
        bindings::S_IFBLK => file_type::BLKDEV,
        bindings::S_IFIFO => file_type::FIFO,
        bindings::S_IFSOCK => file_type::SOCK,
        _ => file_type::UNKNOWN,
    }
}

/// `inode_operations::lookup`.
///
/// # Safety
///
/// As the VFS calls it: `dir` is a directory of ours, locked, and `dentry` an unhashed dentry in it.
unsafe extern "C" fn lookup(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    _flags: kernel::ffi::c_uint,
) -> *mut bindings::dentry {
    // SAFETY: By this function's contract.
    let parent = unsafe { Inode::from_raw(dir) };
    let mut len = 0;
    // SAFETY: The name of a dentry under look-up does not change while its directory is locked, and it is not
    // used once the dentry was spliced.
    let name = unsafe {
        let name = bindings::rbtrfs_d_name(dentry, &mut len);
        core::slice::from_raw_parts(name, len as usize)
    };
    let inode = match lookup_name(parent, name) {
        Ok(Some(inode)) => inode.into_raw(),
        Ok(None) => core::ptr::null_mut(),
        Err(e) => return e.to_ptr(),
    };
    // SAFETY: The dentry is the VFS's, the inode reference ours to give, and of the same superblock.
    unsafe { bindings::d_splice_alias(inode, dentry) }
}

/// The `DT_*` type for a `BTRFS_FT_*` one: the same numbers as those of file modes.
fn dirent_type(typ: u8) -> u32 {
    match typ {
        file_type::REG_FILE => bindings::DT_REG,
        file_type::DIR => bindings::DT_DIR,
        file_type::CHRDEV => bindings::DT_CHR,
        file_type::BLKDEV => bindings::DT_BLK,
        file_type::FIFO => bindings::DT_FIFO,
        file_type::SOCK => bindings::DT_SOCK,
        file_type::SYMLINK => bindings::DT_LNK,
        _ => bindings::DT_UNKNOWN,
    }
}

/// The first `DIR_INDEX`, and so the first position behind `.` and `..`.
const FIRST_INDEX: i64 = 2;

/// Hands the entries from the context's position on to it. Positions are `DIR_INDEX`es, which belong to an
/// entry for as long as it exists.
///
/// # Safety
///
/// `ctx` is the context of a running `iterate_shared` call.
unsafe fn emit(dir: &Inode, ctx: *mut bindings::dir_context) -> Result {
    if dir.is_stand_in() {
        return Ok(());
    }
    // SAFETY: By this function's contract.
    let position = unsafe { (*ctx).pos }.max(FIRST_INDEX);
    let from = u64::try_from(position).map_err(|_| EINVAL)?;
    let (reader, root) = dir.tree()?;
    subvol::dir::iterate(&reader, root, dir.info().ino, from, &mut |index, entry| {
        // A position is signed, and the one behind the entry must exist.
        let next = index
            .checked_add(1)
            .and_then(|next| i64::try_from(next).ok())
            .ok_or(EUCLEAN)?;
        let len = i32::try_from(entry.name.len()).map_err(|_| EUCLEAN)?;
        // SAFETY: By this function's contract; the name is a live slice.
        unsafe {
            (*ctx).pos = next - 1;
            if !bindings::rbtrfs_dir_emit(
                ctx,
                entry.name.as_ptr().cast(),
                len,
                entry.location.objectid,
                dirent_type(entry.typ),
            ) {
                return Ok(false);
            }
            (*ctx).pos = next;
        }
        Ok(true)
    })
}

/// `file_operations::iterate_shared`.
///
/// # Safety
///
/// As the VFS calls it, for an open directory of ours.
unsafe extern "C" fn iterate_shared(
    file: *mut bindings::file,
    ctx: *mut bindings::dir_context,
) -> kernel::ffi::c_int {
    // SAFETY: The VFS passes both.
    if !unsafe { bindings::rbtrfs_dir_emit_dots(file, ctx) } {
        return 0;
    }
    // SAFETY: The VFS passes a file that is open, and a context.
    from_result(|| unsafe { emit(Inode::of_file(file), ctx) }.map(|()| 0))
}

pub(super) static INODE_OPERATIONS: Table<bindings::inode_operations> =
    Table::new(bindings::inode_operations {
        lookup: Some(lookup),
        ..inode::COMMON
    });

pub(super) static FILE_OPERATIONS: Table<bindings::file_operations> =
    Table::new(bindings::file_operations {
        llseek: Some(bindings::generic_file_llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(iterate_shared),
        fsync: Some(file::fsync),
        unlocked_ioctl: Some(ioctl::unlocked_ioctl),
        #[cfg(CONFIG_COMPAT)]
        compat_ioctl: Some(ioctl::compat_ioctl),
        ..pin_init::zeroed()
    });
