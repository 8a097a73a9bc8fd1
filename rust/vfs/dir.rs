// SPDX-License-Identifier: GPL-2.0
//! Directories: look-up, across the borders of subvolumes, and listing.

use super::iget::iget;
use super::inode::{self, running_view, Inode, InodeRef, ROOT_DIR};
use super::super_block::SuperBlock;
use super::table::Table;
use super::{attributes, fsync, ioctl, namespace, stub};
use crate::bindings;
use crate::format::dir::{file_type, NAME_LEN};
use crate::format::root::RootRef;
use crate::format::{self, item_type, tree_id, Key};
use crate::subvol;
use crate::trans::View;
use crate::tree::Cursor;
use kernel::error::from_result;
use kernel::prelude::*;

/// The name of a dentry.
///
/// # Safety
///
/// Nobody renames the dentry for `'a`, as its directory is locked.
pub(super) unsafe fn name_of<'a>(dentry: *const bindings::dentry) -> &'a [u8] {
    let mut len = 0;
    // SAFETY: By this function's contract.
    unsafe {
        let name = bindings::rbtrfs_d_name(dentry, &mut len);
        core::slice::from_raw_parts(name, len as usize)
    }
}

/// Where `name` leads to in `parent`; of subvolumes, only to the root of one that is where the root
/// tree says.
fn find(parent: &Inode, name: &[u8]) -> Result<Option<Found>> {
    let (tree, ino) = (parent.info().tree, parent.info().ino);
    let view = running_view(parent.fs(), &[tree])?;
    let target = subvol::dir::lookup(&*view, view.tree_root(tree)?, ino, name)?;
    Ok(target.map(|target| Found {
        location: target.location,
        typ: target.typ,
    }))
}

/// What an entry says.
struct Found {
    location: Key,
    typ: u8,
}

/// The inode that `name` leads to in `parent`, or `None`.
fn lookup_name(parent: &Inode, name: &[u8]) -> Result<Option<InodeRef>> {
    if name.len() > NAME_LEN {
        return Err(ENAMETOOLONG);
    }
    let Some(target) = find(parent, name)? else {
        return Ok(None);
    };
    let sb = parent.super_block();
    let location = target.location;
    let inode = match location.typ {
        item_type::INODE_ITEM => {
            let inode = iget(sb, parent.info().tree, location.objectid)?;
            // The dcache moves a directory that turns up in a second place. On a sound volume no
            // directory has two parents, so ask the child whether this is its own.
            if inode.is_dir() && !is_child(&inode, parent.info().ino)? {
                return Err(damaged(
                    sb,
                    parent,
                    "is not the parent that its child names",
                ));
            }
            inode
        }
        item_type::ROOT_ITEM => match enter_subvolume(parent, name, location.objectid)? {
            Some(inode) => inode,
            None => stub::new(parent)?,
        },
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

fn is_child(child: &Inode, parent: u64) -> Result<bool> {
    let (view, root) = child.tree()?;
    let mut found = false;
    subvol::inode::for_each_name(&*view, root, child.info().ino, &mut |name| {
        found = name.parent == parent;
        Ok(!found)
    })?;
    Ok(found)
}

/// The root directory of subvolume `child`, if the entry `name` of the directory `parent` is where
/// the root tree says that it is.
fn enter_subvolume(parent: &Inode, name: &[u8], child: u64) -> Result<Option<InodeRef>> {
    if !tree_id::is_fs_tree(child) || !is_place_of(parent, name, child)? {
        return Ok(None);
    }
    match iget(parent.super_block(), child, ROOT_DIR) {
        Ok(root) => Ok(Some(root)),
        Err(e) if e == ENOENT => Ok(None),
        Err(e) => Err(e),
    }
}

fn is_place_of(parent: &Inode, name: &[u8], child: u64) -> Result<bool> {
    let view = running_view(parent.fs(), &[tree_id::ROOT])?;
    let mut cursor = Cursor::new(&*view, view.tree_root(tree_id::ROOT)?);
    let key = Key::new(parent.info().tree, item_type::ROOT_REF, child);
    if !cursor.seek(&key)? {
        return Ok(false);
    }
    let (_, data) = cursor.item().ok_or(EUCLEAN)?;
    let place: RootRef = format::read(data)?;
    let len = usize::from(place.name_len.get());
    Ok(place.dirid.get() == parent.info().ino
        && format::slice(data, size_of::<RootRef>(), len)? == name)
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
/// As the VFS calls it: `dir` is a directory of ours, locked, and `dentry` an unhashed dentry in
/// it.
unsafe extern "C" fn lookup(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    _flags: kernel::ffi::c_uint,
) -> *mut bindings::dentry {
    // SAFETY: By this function's contract.
    let parent = unsafe { Inode::from_raw(dir) };
    // SAFETY: The name of a dentry under look-up does not change while its directory is locked, and
    // it is not used once the dentry was spliced.
    let name = unsafe { name_of(dentry) };
    let found = match lookup_name(parent, name) {
        Ok(found) => found,
        Err(e) => return e.to_ptr(),
    };
    let is_stub = found.as_ref().is_some_and(|inode| inode.is_stub());
    let inode = found.map_or(core::ptr::null_mut(), InodeRef::into_raw);
    // SAFETY: The dentry is the VFS's, the inode reference ours to give, and of the same
    // superblock. A stub is in no other dentry, so that this one holds it when it is spliced.
    unsafe {
        let spliced = bindings::d_splice_alias(inode, dentry);
        if is_stub && spliced.is_null() {
            bindings::d_mark_dontcache(inode);
        }
        spliced
    }
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

/// Entries that were read and not handed out yet.
struct Batch {
    /// Names, one after the other.
    names: KVec<u8>,
    entries: KVec<Listed>,
}

struct Listed {
    index: u64,
    len: usize,
    ino: u64,
    typ: u8,
}

/// How many bytes of names a batch has before no more are added, and how many entries.
const BATCH_BYTES: usize = 4096;
const BATCH_ENTRIES: usize = 128;

impl Batch {
    /// Reads the entries from index `from` on and below `end`, as many as make a batch.
    fn read(dir: &Inode, from: u64, end: u64) -> Result<Self> {
        let mut batch = Self {
            names: KVec::new(),
            entries: KVec::new(),
        };
        let (view, root) = dir.tree()?;
        subvol::dir::iterate(&*view, root, dir.info().ino, from, &mut |index, entry| {
            if index >= end {
                return Ok(false);
            }
            batch.names.extend_from_slice(entry.name, GFP_KERNEL)?;
            let listed = Listed {
                index,
                len: entry.name.len(),
                ino: entry.location.objectid,
                typ: entry.typ,
            };
            batch.entries.push(listed, GFP_KERNEL)?;
            Ok(batch.names.len() < BATCH_BYTES && batch.entries.len() < BATCH_ENTRIES)
        })?;
        Ok(batch)
    }

    fn iter(&self) -> impl Iterator<Item = (&Listed, &[u8])> {
        let mut at = 0usize;
        self.entries.iter().map(move |listed| {
            let start = at;
            at = at.saturating_add(listed.len);
            (listed, self.names.get(start..at).unwrap_or(&[]))
        })
    }
}

/// Hands the entries from the context's position on to it. Positions are `DIR_INDEX`es, which
/// belong to an entry for as long as it exists.
///
/// # Safety
///
/// `ctx` is the context of a running `iterate_shared` call.
unsafe fn emit(dir: &Inode, end: u64, ctx: *mut bindings::dir_context) -> Result {
    loop {
        // SAFETY: By this function's contract.
        let position = unsafe { (*ctx).pos }.max(FIRST_INDEX);
        let from = u64::try_from(position).map_err(|_| EINVAL)?;
        // User memory is touched only when the tree is not looked at any more.
        let batch = Batch::read(dir, from, end)?;
        if batch.entries.is_empty() {
            return Ok(());
        }
        for (listed, name) in batch.iter() {
            // A position is signed, and the one after the entry must exist.
            let next = listed
                .index
                .checked_add(1)
                .and_then(|next| i64::try_from(next).ok())
                .ok_or(EUCLEAN)?;
            let len = i32::try_from(name.len()).map_err(|_| EUCLEAN)?;
            // SAFETY: By this function's contract; the name is a live slice.
            unsafe {
                (*ctx).pos = next - 1;
                if !bindings::rbtrfs_dir_emit(
                    ctx,
                    name.as_ptr().cast(),
                    len,
                    listed.ino,
                    dirent_type(listed.typ),
                ) {
                    return Ok(());
                }
                (*ctx).pos = next;
            }
        }
    }
}

/// The index after all entries that the directory has now.
fn find_end(dir: &Inode) -> Result<u64> {
    let (view, root) = dir.tree()?;
    let ino = dir.info().ino;
    let mut cursor = Cursor::new(&*view, root);
    cursor.seek_before(&Key::new(ino, item_type::DIR_INDEX, u64::MAX))?;
    Ok(match cursor.key() {
        Some(key) if key.is(ino, item_type::DIR_INDEX) => key.offset.saturating_add(1),
        _ => 0,
    })
}

/// Where a listing ends: at what was there when it began. Whoever renames each file that is listed
/// would make it go on for ever.
///
/// # Safety
///
/// `file` is an open directory of ours.
unsafe fn end_of(file: *mut bindings::file) -> u64 {
    // SAFETY: By this function's contract; `begin` set the field.
    unsafe { bindings::rbtrfs_file_private(file) as u64 }
}

/// # Safety
///
/// As for [`end_of`]; the file's position is locked, or nobody else knows the file.
unsafe fn begin(file: *mut bindings::file) -> Result {
    // SAFETY: By this function's contract.
    unsafe {
        let end = find_end(Inode::of_file(file))?;
        bindings::rbtrfs_file_set_private(file, end as usize);
    }
    Ok(())
}

/// `file_operations::open`.
///
/// # Safety
///
/// As the VFS calls it, for a directory of ours.
unsafe extern "C" fn open(
    _inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> kernel::ffi::c_int {
    // SAFETY: The file is being opened.
    from_result(|| unsafe { begin(file) }.map(|()| 0))
}

/// `file_operations::llseek`.
///
/// # Safety
///
/// As the VFS calls it, for an open directory of ours.
unsafe extern "C" fn llseek(
    file: *mut bindings::file,
    offset: i64,
    whence: kernel::ffi::c_int,
) -> i64 {
    // SAFETY: The VFS passes a file that is open.
    unsafe {
        let position = bindings::generic_file_llseek(file, offset, whence);
        if position == 0 {
            // A new listing.
            if let Err(e) = begin(file) {
                return i64::from(e.to_errno());
            }
        }
        position
    }
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
    from_result(|| unsafe { emit(Inode::of_file(file), end_of(file), ctx) }.map(|()| 0))
}

pub(super) static INODE_OPERATIONS: Table<bindings::inode_operations> =
    Table::new(bindings::inode_operations {
        lookup: Some(lookup),
        create: Some(namespace::create),
        mkdir: Some(namespace::mkdir),
        mknod: Some(namespace::mknod),
        symlink: Some(namespace::symlink),
        link: Some(namespace::link),
        unlink: Some(namespace::unlink),
        rmdir: Some(namespace::rmdir),
        rename: Some(namespace::rename),
        tmpfile: Some(namespace::tmpfile),
        fileattr_get: Some(attributes::fileattr_get),
        fileattr_set: Some(attributes::fileattr_set),
        ..inode::COMMON
    });

pub(super) static FILE_OPERATIONS: Table<bindings::file_operations> =
    Table::new(bindings::file_operations {
        open: Some(open),
        llseek: Some(llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(iterate_shared),
        fsync: Some(fsync::fsync),
        setlease: Some(bindings::generic_setlease),
        unlocked_ioctl: Some(ioctl::unlocked_ioctl),
        #[cfg(CONFIG_COMPAT)]
        compat_ioctl: Some(ioctl::compat_ioctl),
        ..pin_init::zeroed()
    });
