// SPDX-License-Identifier: GPL-2.0
//! Moving names: of inodes within a subvolume, and of subvolumes anywhere.

use super::create::{create_in, file_type_of, Created, NewInode};
use super::inode_ref::{self, FoundName, NameAt};
use super::link::{check_new_entry, Removal};
use super::{
    add_dir_entry, check_subvol, find_dir_entry, inode_key, mode, next_index, read_dir, read_inode,
    remove_dir_entry, reserve, touch_dir, write_inode, InodeId,
};
use crate::format::dir::file_type;
use crate::format::inode::{InodeItem, Timespec};
use crate::format::{item_type, Key};
use crate::subvol::dir::Target;
use crate::subvol::root_ref::{self, RootRefName};
use crate::trans::Transaction;
use crate::volume::Fs;
use kernel::prelude::*;

/// One end of a rename.
#[derive(Clone, Copy)]
pub struct RenameEnd<'a> {
    /// The directory.
    pub dir: InodeId,
    /// The name in it.
    pub name: &'a [u8],
}

/// What becomes of the names.
#[derive(Clone, Copy)]
pub enum RenameMode<'a> {
    /// What has the new name loses it.
    Replace,
    /// Nothing may have the new name.
    NoReplace,
    /// Both names exist, and change places.
    Exchange,
    /// As [`RenameMode::Replace`], and this inode gets the old name.
    Whiteout(&'a NewInode<'a>),
}

/// What a rename changed. What else was moved is read anew.
#[derive(Clone, Copy)]
pub struct Renamed {
    /// The directory of the old name.
    pub from_dir: InodeItem,
    /// The directory of the new name; the same as `from_dir` if they are one.
    pub to_dir: InodeItem,
    /// The inode that lost the new name, and its item: see [`super::Unlinked`].
    pub replaced: Option<(u64, InodeItem)>,
    /// The whiteout.
    pub whiteout: Option<Created>,
}

/// Renames.
///
/// # Errors
///
/// `ENOENT`, `EEXIST`, `ENOTDIR`, `EISDIR`, `ENOTEMPTY`, `EXDEV` for an inode that would change its
/// subvolume, `EPERM` for a subvolume that is not there, `EMLINK`, `ENAMETOOLONG`, `EOVERFLOW`,
/// `EROFS`, `ENOSPC`. That a directory does not move below itself is the caller's to see to.
pub fn rename(
    fs: &Fs,
    from: RenameEnd<'_>,
    to: RenameEnd<'_>,
    mode: RenameMode<'_>,
    now: Timespec,
) -> Result<KBox<Renamed>> {
    fs.operate(reserve(24), |trans| {
        check_subvol(trans, from.dir.tree)?;
        check_subvol(trans, to.dir.tree)?;
        let mut done = dirs(trans, from, to)?;
        let source = find_dir_entry(trans, from.dir, from.name)?;
        let target = match find_dir_entry(trans, to.dir, to.name) {
            Ok(target) => Some(target),
            Err(e) if e == ENOENT => None,
            Err(e) => return Err(e),
        };
        let moving = Moving::check(trans, from, &source, to)?;
        match (target, mode) {
            (Some(_), RenameMode::NoReplace) => return Err(EEXIST),
            (None, RenameMode::Exchange) => return Err(ENOENT),
            (Some(target), _)
                if target.location == source.location && from.dir.tree == to.dir.tree =>
            {
                // Two names of one inode: nothing happens.
                return Ok(done);
            }
            (Some(target), RenameMode::Exchange) => {
                exchange(trans, (moving, from), (&target, to), now)?;
            }
            (Some(target), _) => {
                if target.location.typ == item_type::ROOT_ITEM {
                    return Err(ENOTEMPTY);
                }
                remove_target(trans, to, &target, &moving, now, &mut done)?;
                move_to(trans, moving, from, to, now)?;
            }
            (None, _) => {
                check_new_entry(trans, to.dir, to.name)?;
                move_to(trans, moving, from, to, now)?;
            }
        }
        if let RenameMode::Whiteout(new) = mode {
            put_whiteout(trans, from, new, &mut done)?;
        }
        let Renamed {
            from_dir, to_dir, ..
        } = &mut *done;
        read_again(trans, from.dir, from_dir)?;
        read_again(trans, to.dir, to_dir)?;
        Ok(done)
    })
}

// Functions of their own, so that none has the stack of the others under it.

/// Reads the directories.
#[inline(never)]
fn dirs(trans: &Transaction<'_>, from: RenameEnd<'_>, to: RenameEnd<'_>) -> Result<KBox<Renamed>> {
    let (from_dir, to_dir) = (read_dir(trans, from.dir)?, read_dir(trans, to.dir)?);
    let done = Renamed {
        from_dir,
        to_dir,
        replaced: None,
        whiteout: None,
    };
    Ok(KBox::new(done, GFP_KERNEL)?)
}

#[inline(never)]
fn read_again(trans: &Transaction<'_>, id: InodeId, item: &mut InodeItem) -> Result {
    *item = read_inode(trans, id)?;
    Ok(())
}

#[inline(never)]
fn exchange(
    trans: &mut Transaction<'_>,
    (moving, from): (Moving, RenameEnd<'_>),
    (target, to): (&Target, RenameEnd<'_>),
    now: Timespec,
) -> Result {
    let other = Moving::check(trans, to, target, from)?;
    let (moving, other) = (moving.take(trans, from, now)?, other.take(trans, to, now)?);
    moving.put(trans, to, now)?;
    other.put(trans, from, now)
}

#[inline(never)]
fn remove_target(
    trans: &mut Transaction<'_>,
    to: RenameEnd<'_>,
    target: &Target,
    moving: &Moving,
    now: Timespec,
    done: &mut Renamed,
) -> Result {
    let removal = Removal::check(trans, to.dir, to.name, target, Some(moving.is_dir()))?;
    done.replaced = Some(removal.run(trans, now)?);
    bump(trans, to, -1, now)
}

#[inline(never)]
fn move_to(
    trans: &mut Transaction<'_>,
    moving: Moving,
    from: RenameEnd<'_>,
    to: RenameEnd<'_>,
    now: Timespec,
) -> Result {
    moving.take(trans, from, now)?.put(trans, to, now)
}

#[inline(never)]
fn put_whiteout(
    trans: &mut Transaction<'_>,
    from: RenameEnd<'_>,
    new: &NewInode<'_>,
    done: &mut Renamed,
) -> Result {
    done.whiteout = Some(create_in(trans, from.dir, from.name, new)?);
    Ok(())
}

/// Accounts for a name that a directory gained or, if `count` is negative, lost.
fn bump(trans: &mut Transaction<'_>, end: RenameEnd<'_>, count: i64, now: Timespec) -> Result {
    let mut item = read_inode(trans, end.dir)?;
    let grow = count.saturating_mul(2 * end.name.len() as i64);
    touch_dir(&mut item, grow, now);
    write_inode(trans, end.dir, &mut item)
}

/// What a name leads to, once it was found that it can move.
enum Moving {
    Inode {
        id: InodeId,
        mode: u32,
        found: FoundName,
        /// The new name goes to an `INODE_EXTREF` item.
        extended: bool,
    },
    Subvolume {
        tree: u64,
        index: u64,
    },
}

impl Moving {
    fn check(
        trans: &Transaction<'_>,
        from: RenameEnd<'_>,
        source: &Target,
        to: RenameEnd<'_>,
    ) -> Result<Self> {
        if source.location.typ == item_type::ROOT_ITEM {
            let tree = source.location.objectid;
            let place = root_ref::find(trans, from.dir.tree, tree, from.dir.ino, from.name)?;
            return Ok(Moving::Subvolume {
                tree,
                index: place.ok_or(EPERM)?,
            });
        }
        if from.dir.tree != to.dir.tree {
            return Err(EXDEV);
        }
        let id = InodeId {
            tree: from.dir.tree,
            ino: source.location.objectid,
        };
        let missing = |e| if e == ENOENT { EUCLEAN } else { e };
        let item = read_inode(trans, id).map_err(missing)?;
        let at = |end: RenameEnd<'_>| end.dir.ino;
        let found = inode_ref::find(
            trans,
            id,
            NameAt {
                dir: at(from),
                name: from.name,
            },
        )
        .map_err(missing)?;
        let extended = inode_ref::place_for(
            trans,
            id,
            NameAt {
                dir: at(to),
                name: to.name,
            },
        )?;
        Ok(Moving::Inode {
            id,
            mode: item.mode.get(),
            found,
            extended,
        })
    }

    fn is_dir(&self) -> bool {
        match self {
            Moving::Inode { mode, .. } => mode & mode::FMT == mode::DIR,
            Moving::Subvolume { .. } => true,
        }
    }

    /// Takes the name away.
    fn take(self, trans: &mut Transaction<'_>, from: RenameEnd<'_>, now: Timespec) -> Result<Self> {
        let index = match &self {
            Moving::Inode { id, found, .. } => {
                inode_ref::remove(trans, id.tree, *found)?;
                found.index
            }
            Moving::Subvolume { tree, index } => {
                root_ref::remove(trans, from.dir.tree, *tree)?;
                *index
            }
        };
        remove_dir_entry(trans, from.dir, from.name, index)?;
        bump(trans, from, -1, now)?;
        Ok(self)
    }

    /// Gives the new name.
    fn put(self, trans: &mut Transaction<'_>, to: RenameEnd<'_>, now: Timespec) -> Result {
        let index = next_index(trans, to.dir)?;
        match self {
            Moving::Inode {
                id, mode, extended, ..
            } => {
                let at = NameAt {
                    dir: to.dir.ino,
                    name: to.name,
                };
                inode_ref::add(trans, id, at, index, extended)?;
                let typ = file_type_of(mode)?;
                add_dir_entry(trans, to.dir, to.name, inode_key(id.ino), typ, index)?;
                let mut item = read_inode(trans, id)?;
                item.ctime = now;
                write_inode(trans, id, &mut item)?;
            }
            Moving::Subvolume { tree, .. } => {
                let place = RootRefName {
                    parent: to.dir.tree,
                    dir: to.dir.ino,
                    index,
                    name: to.name,
                };
                root_ref::add(trans, tree, &place)?;
                let location = Key::new(tree, item_type::ROOT_ITEM, u64::MAX);
                add_dir_entry(trans, to.dir, to.name, location, file_type::DIR, index)?;
            }
        }
        bump(trans, to, 1, now)
    }
}
