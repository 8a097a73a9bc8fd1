// SPDX-License-Identifier: GPL-2.0
//! Inode items of a log.

use super::replay::Target;
use super::{dir, xattr};
use crate::format::inode::InodeItem;
use crate::subvol::inode;
use crate::subvol::write::{drop_range, inode_key, mode};
use crate::trans::View;
use crate::tree::edit;
use kernel::prelude::*;
use zerocopy::IntoBytes;

impl Target<'_, '_> {
    /// The item of an inode of the subvolume, or `None` if it is not there.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub(super) fn find_inode(&self, ino: u64) -> Result<Option<InodeItem>> {
        let root = self.trans.tree_root(self.log.subvol)?;
        match inode::read(&*self.trans, root, ino) {
            Ok(item) => Ok(Some(item)),
            Err(ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The item of an inode that must be there.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if it is not; those of reading.
    pub(super) fn read_inode(&self, ino: u64) -> Result<InodeItem> {
        self.find_inode(ino)?.ok_or_else(|| {
            crate::fs_err!(
                self.trans.fs(),
                "inode {ino} of subvolume {}, which its log refers to, is missing",
                self.log.subvol
            );
            EUCLEAN
        })
    }

    /// Writes the item of an inode that is there, as changed by this transaction.
    pub(super) fn write_inode(&mut self, ino: u64, item: &mut InodeItem) -> Result {
        item.transid = self.transid().into();
        let item = &*item;
        let subvol = self.log.subvol;
        edit::update_in_place(self.trans, subvol, &inode_key(ino), |bytes: &mut [u8]| {
            let place = bytes.get_mut(..size_of::<InodeItem>()).ok_or(EUCLEAN)?;
            place.copy_from_slice(item.as_bytes());
            Ok(())
        })
    }

    /// Changes the size of a directory, of which each name counts twice, by one name. Its times are
    /// those that it had when it was logged, or committed.
    pub(super) fn resize_dir(&mut self, dir: u64, name: &[u8], added: bool) -> Result {
        let mut item = self.read_inode(dir)?;
        let (size, len) = (item.size.get(), 2 * name.len() as u64);
        item.size = if added {
            size.saturating_add(len).into()
        } else {
            size.saturating_sub(len).into()
        };
        self.write_inode(dir, &mut item)
    }
}

const fn is(item: &InodeItem, typ: u32) -> bool {
    item.mode.get() & mode::FMT == typ
}

/// Makes an inode what the log says, less what the items after it say. A log tells all attributes
/// and all entries in the ranges that it has, so what it does not have is removed. Data after the
/// end of a file goes at once: the log may have preallocated extents there, which come later.
///
/// # Errors
///
/// `EUCLEAN`, `ENOMEM`, those of changing trees.
pub(super) fn replay(target: &mut Target<'_, '_>, ino: u64, logged: InodeItem) -> Result {
    xattr::remove_unlogged(target, ino)?;
    if is(&logged, mode::DIR) {
        dir::remove_unlogged(target, ino)?;
    }
    overwrite(target, ino, logged)?;
    if is(&logged, mode::REG) {
        cut(target, ino)?;
    }
    target.count_names(ino)
}

fn overwrite(target: &mut Target<'_, '_>, ino: u64, logged: InodeItem) -> Result {
    let mut item = logged;
    let Some(old) = target.find_inode(ino)? else {
        // Data and names are counted as they are replayed.
        item.nbytes = 0.into();
        if is(&item, mode::DIR) {
            item.size = 0.into();
        }
        if item.generation.get() == 0 {
            item.generation = target.transid().into();
        }
        let subvol = target.log.subvol;
        return edit::insert(target.trans, subvol, &inode_key(ino), item.as_bytes());
    };
    if logged.generation.get() == 0 {
        // Logged only so that there is an inode. Of a file that was not synced itself the size is
        // that of all its data, or 0 if that is not known.
        let is_file = is(&logged, mode::REG) && is(&old, mode::REG);
        if !is_file || logged.size.get() == 0 {
            return Ok(());
        }
        item = old;
        item.size = logged.size;
    }
    item.nbytes = old.nbytes;
    if is(&logged, mode::DIR) {
        item.size = if is(&old, mode::DIR) {
            old.size
        } else {
            0.into()
        };
    }
    target.write_inode(ino, &mut item)
}

/// Drops all data after the end of a file.
fn cut(target: &mut Target<'_, '_>, ino: u64) -> Result {
    let sectorsize = target.trans.fs().geometry.sectorsize;
    let mut item = target.read_inode(ino)?;
    let from = sectorsize.round_up(item.size.get()).ok_or(EUCLEAN)?;
    let last = u64::MAX.saturating_sub(u64::MAX % sectorsize);
    let id = target.id(ino);
    let freed = drop_range(target.trans, id, from, last)?;
    if freed != 0 {
        item.nbytes = item.nbytes.get().saturating_sub(freed).into();
        target.write_inode(ino, &mut item)?;
    }
    Ok(())
}
