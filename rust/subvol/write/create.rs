// SPDX-License-Identifier: GPL-2.0
//! Making inodes.

use super::data::NewInline;
use super::dir_item::{check_entry, encode_entry};
use super::inode_ref::{self, NameAt};
use super::{
    add_dir_entry, check_subvol, inode_key, mode, next_index, orphan, property, read_dir, reserve,
    touch_dir, write_inode, xattr, InodeId,
};
use crate::format::crc::name_hash;
use crate::format::dir::file_type;
use crate::format::inode::{inode_flags, InodeItem, Timespec};
use crate::format::{item_type, Key};
use crate::trans::Transaction;
use crate::tree::edit::{self, max_item_size};
use crate::tree::EditContext;
use crate::volume::Fs;
use kernel::prelude::*;
use zerocopy::{FromZeros, IntoBytes};

/// What a new inode is to be.
#[derive(Clone, Copy)]
pub struct NewInode<'a> {
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The device number of a device file, as [`InodeItem::rdev`] has it.
    pub rdev: u64,
    /// [`inode_flags`] beyond those that it gets from its directory.
    pub flags: u64,
    /// The time.
    pub now: Timespec,
    /// The target of a symbolic link; empty for anything else.
    pub target: &'a [u8],
    /// Extended attributes with their full names and values, such as security labels and inherited
    /// ACLs.
    pub xattrs: &'a [(&'a [u8], &'a [u8])],
}

/// What was made.
#[derive(Clone, Copy)]
pub struct Created {
    /// Its inode number.
    pub ino: u64,
    /// Its item.
    pub item: InodeItem,
    /// The `DIR_INDEX` of its entry, 0 without one.
    pub index: u64,
    /// The item of its directory.
    pub dir: InodeItem,
}

/// The type that the directory entry of an inode of this mode has.
pub(crate) fn file_type_of(mode: u32) -> Result<u8> {
    Ok(match mode & mode::FMT {
        mode::REG => file_type::REG_FILE,
        mode::DIR => file_type::DIR,
        mode::LNK => file_type::SYMLINK,
        mode::CHR => file_type::CHRDEV,
        mode::BLK => file_type::BLKDEV,
        mode::FIFO => file_type::FIFO,
        mode::SOCK => file_type::SOCK,
        _ => return Err(EINVAL),
    })
}

/// Makes an inode with the name `name` in directory `dir`.
///
/// # Errors
///
/// `EEXIST`, `ENAMETOOLONG`, `ENOENT` if the directory was removed, `ENOTDIR`, `EOVERFLOW` if too
/// many names have the same hash, `EROFS`, `ENOSPC`, `E2BIG` for attributes and `ENAMETOOLONG` for
/// a target that are too long.
pub fn create(fs: &Fs, dir: InodeId, name: &[u8], new: &NewInode<'_>) -> Result<Created> {
    let items = (new.xattrs.len() as u64).saturating_add(7);
    fs.operate(reserve(items), |trans| create_in(trans, dir, name, new))
}

pub(super) fn create_in(
    trans: &mut Transaction<'_>,
    dir: InodeId,
    name: &[u8],
    new: &NewInode<'_>,
) -> Result<Created> {
    check_subvol(trans, dir.tree)?;
    let mut dir_item = read_dir(trans, dir)?;
    let typ = file_type_of(new.mode)?;
    let probe = encode_entry(Key::MIN, 0, typ, name, &[])?;
    let key = Key::new(dir.ino, item_type::DIR_ITEM, name_hash(name));
    check_entry(trans, dir.tree, &key, name, probe.len())?;
    check_new(trans, new)?;
    let index = next_index(trans, dir)?;
    let id = InodeId {
        tree: dir.tree,
        ino: trans.next_objectid(dir.tree)?,
    };

    let item = insert_inode(trans, id, (dir, &dir_item), new, 1)?;
    let at = NameAt { dir: dir.ino, name };
    inode_ref::add(trans, id, at, index, false)?;
    add_dir_entry(trans, dir, name, inode_key(id.ino), typ, index)?;
    touch_dir(&mut dir_item, 2 * name.len() as i64, new.now);
    write_inode(trans, dir, &mut dir_item)?;
    Ok(Created {
        ino: id.ino,
        item,
        index,
        dir: dir_item,
    })
}

/// Makes an inode without a name, which goes when it is evicted unless it got one by then. `dir` is
/// where it takes flags from.
///
/// # Errors
///
/// `EROFS`, `ENOSPC`, `ENOTDIR`, `E2BIG` for attributes that are too long.
pub fn tmpfile(fs: &Fs, dir: InodeId, new: &NewInode<'_>) -> Result<Created> {
    let items = (new.xattrs.len() as u64).saturating_add(5);
    fs.operate(reserve(items), |trans| {
        check_subvol(trans, dir.tree)?;
        let dir_item = read_dir(trans, dir)?;
        check_new(trans, new)?;
        let id = InodeId {
            tree: dir.tree,
            ino: trans.next_objectid(dir.tree)?,
        };
        let item = insert_inode(trans, id, (dir, &dir_item), new, 0)?;
        orphan::add(trans, id)?;
        Ok(Created {
            ino: id.ino,
            item,
            index: 0,
            dir: dir_item,
        })
    })
}

/// The longest target of a symbolic link, in bytes. It is kept as inline data, which is shorter
/// than a sector.
fn max_target(trans: &Transaction<'_>) -> usize {
    let sectorsize = u32::from(trans.geometry().sectorsize) as usize;
    max_item_size(trans.geometry())
        .saturating_sub(crate::format::file_extent::INLINE_HEAD_SIZE)
        .min(sectorsize.saturating_sub(1))
}

fn check_new(trans: &Transaction<'_>, new: &NewInode<'_>) -> Result {
    if new.target.len() > max_target(trans) {
        return Err(ENAMETOOLONG);
    }
    let is_link = new.mode & mode::FMT == mode::LNK;
    if is_link == new.target.is_empty() {
        return Err(EINVAL);
    }
    for (name, value) in new.xattrs {
        xattr::check_size(trans, name, value)?;
    }
    Ok(())
}

/// The flags that a new inode gets from its directory.
fn inherited(dir: u64, mode: u32) -> u64 {
    let mut flags = 0;
    if dir & inode_flags::NOCOMPRESS != 0 {
        flags |= inode_flags::NOCOMPRESS;
    } else if dir & inode_flags::COMPRESS != 0 {
        flags |= inode_flags::COMPRESS;
    }
    if dir & inode_flags::NODATACOW != 0 {
        flags |= inode_flags::NODATACOW;
        if mode & mode::FMT == mode::REG {
            flags |= inode_flags::NODATASUM;
        }
    }
    flags
}

/// Inserts a new inode's own items.
fn insert_inode(
    trans: &mut Transaction<'_>,
    id: InodeId,
    dir: (InodeId, &InodeItem),
    new: &NewInode<'_>,
    nlink: u32,
) -> Result<InodeItem> {
    let flags = new.flags | inherited(dir.1.flags.get(), new.mode);
    let value = property::inherited(trans, dir, new.mode, flags)?;
    let mut item = InodeItem::new_zeroed();
    item.generation = trans.transid().into();
    item.transid = item.generation;
    item.nlink = nlink.into();
    item.mode = new.mode.into();
    item.uid = new.uid.into();
    item.gid = new.gid.into();
    item.rdev = new.rdev.into();
    item.flags = value
        .map_or(flags, |value| property::apply(flags, value))
        .into();
    item.atime = new.now;
    item.mtime = new.now;
    item.ctime = new.now;
    item.otime = new.now;
    item.size = (new.target.len() as u64).into();
    item.nbytes = item.size;
    edit::insert(trans, id.tree, &inode_key(id.ino), item.as_bytes())?;
    for (name, value) in new.xattrs {
        xattr::insert(trans, id, name, value)?;
    }
    property::insert(trans, id, value)?;
    if !new.target.is_empty() {
        super::extents::insert_inline(trans, id, NewInline::plain(new.target))?;
    }
    Ok(item)
}
