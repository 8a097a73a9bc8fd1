// SPDX-License-Identifier: GPL-2.0
//! Inodes without names: kept while they are open, and removed then, or after the next mount.

use super::extents::drop_range;
use super::{check_whole, read_inode, truncate, write_inode, InodeId, FREEING};
use crate::format::{item_type, objectid, Key};
use crate::subvol::file_extent;
use crate::trans::{Transaction, View};
use crate::tree::{edit, Cursor, EditContext, Nodes, TreeRoot};
use crate::volume::Fs;
use kernel::prelude::*;

/// How many items one operation removes.
const STEP: usize = 256;

const fn orphan_key(object: u64) -> Key {
    Key::new(objectid::ORPHAN, item_type::ORPHAN_ITEM, object)
}

/// Whether an inode has an orphan item.
pub(crate) fn exists(trans: &Transaction<'_>, id: InodeId) -> Result<bool> {
    let mut cursor = Cursor::new(trans, EditContext::root(trans, id.tree)?);
    cursor.seek(&orphan_key(id.ino))
}

/// Adds the orphan item of an inode, which is in use.
pub(in crate::subvol) fn add(trans: &mut Transaction<'_>, id: InodeId) -> Result {
    trans.note_orphan(id.tree, id.ino)?;
    add_unused(trans, id)
}

/// Adds the orphan item of an inode that nobody uses: [`clean_orphans`] removes both.
pub(crate) fn add_unused(trans: &mut Transaction<'_>, id: InodeId) -> Result {
    edit::insert(trans, id.tree, &orphan_key(id.ino), &[])
}

/// Removes the orphan item of an inode.
pub(crate) fn remove(trans: &mut Transaction<'_>, id: InodeId) -> Result {
    edit::delete(trans, id.tree, &orphan_key(id.ino))?;
    trans.forget_orphan(id.tree, id.ino);
    Ok(())
}

/// The first orphan item of a tree from object `from` on.
pub(in crate::subvol) fn next<S: Nodes>(
    nodes: &S,
    root: TreeRoot,
    from: u64,
) -> Result<Option<u64>> {
    let mut cursor = Cursor::new(nodes, root);
    cursor.seek(&orphan_key(from))?;
    let key = cursor.key();
    let found = key.filter(|key| key.is(objectid::ORPHAN, item_type::ORPHAN_ITEM));
    Ok(found.map(|key| key.offset))
}

/// Removes an inode that has no names and that nobody uses any more, in as many operations as that
/// takes. Whatever is left when one fails goes at the next [`clean_orphans`].
///
/// # Errors
///
/// `ENOENT` if there is no such inode, `EBUSY` if it has names; `EROFS` if the volume is read-only.
pub fn evict(fs: &Fs, id: InodeId) -> Result {
    repeat(fs, |trans| evict_step(trans, id))
}

/// Runs operations of one `step` each until that returns `true`.
fn repeat(fs: &Fs, mut step: impl FnMut(&mut Transaction<'_>) -> Result<bool>) -> Result {
    while !fs.operate(FREEING, &mut step)? {
        crate::platform::yield_now();
    }
    Ok(())
}

/// Removes some items. Returns whether that was all of them.
fn evict_step(trans: &mut Transaction<'_>, id: InodeId) -> Result<bool> {
    check_whole(trans, id.tree)?;
    let mut item = read_inode(trans, id)?;
    if item.nlink.get() != 0 {
        return Err(EBUSY);
    }
    trans.keep_objectids(id.tree)?;
    let sectorsize = trans.fs().geometry.sectorsize;
    let mut freed = 0u64;
    for _ in 0..STEP {
        let last = {
            let mut cursor = Cursor::new(trans, EditContext::root(trans, id.tree)?);
            cursor.seek_before(&Key::new(id.ino, u8::MAX, u64::MAX))?;
            let (key, data) = cursor.item().ok_or(EUCLEAN)?;
            match key.typ {
                item_type::EXTENT_DATA => {
                    let extent = file_extent::parse(&key, data, sectorsize)?;
                    (key, Some((extent.offset, extent.end())))
                }
                _ => (key, None),
            }
        };
        match last {
            (key, _) if key.objectid != id.ino => return Err(EUCLEAN),
            (key, _) if key.typ == item_type::INODE_ITEM => {
                edit::delete(trans, id.tree, &key)?;
                if exists(trans, id)? {
                    remove(trans, id)?;
                }
                return Ok(true);
            }
            (_, Some((from, to))) => {
                freed = freed.saturating_add(drop_range(trans, id, from, to)?);
            }
            (key, None) => edit::delete(trans, id.tree, &key)?,
        }
    }
    item.nbytes = item.nbytes.get().saturating_sub(freed).into();
    write_inode(trans, id, &mut item)?;
    Ok(false)
}

/// Finishes what a crash or an unmount interrupted: removes inodes of a subvolume that have no
/// names, and orphan items from before the volume was opened. What became an orphan since then may
/// be in use, and is left alone; so this can be called at any time.
///
/// # Errors
///
/// Those of reading and writing.
pub fn clean_orphans(fs: &Fs, tree: u64) -> Result {
    let mut from = 0;
    loop {
        let found = {
            let view = fs.running_view(tree)?;
            next(&view, view.tree_root(tree)?, from)?
        };
        let Some(ino) = found else {
            return Ok(());
        };
        clean_orphan(fs, InodeId { tree, ino })?;
        let Some(next) = ino.checked_add(1) else {
            return Ok(());
        };
        from = next;
    }
}

/// Removes one orphan, unless it may be in use.
fn clean_orphan(fs: &Fs, id: InodeId) -> Result {
    let step = |trans: &mut Transaction<'_>| {
        if trans.may_use_orphan(id.tree, id.ino) {
            return Ok(true);
        }
        evict_step(trans, id)
    };
    match repeat(fs, step) {
        // Without the inode, or with names: older kernels left an orphan item while they truncated.
        Err(e) if e == ENOENT || e == EBUSY => {
            if e == EBUSY {
                truncate::cut(fs, id)?;
            }
            fs.operate(FREEING, |trans| {
                if !trans.may_use_orphan(id.tree, id.ino) && exists(trans, id)? {
                    remove(trans, id)?;
                }
                Ok(())
            })
        }
        evicted => evicted,
    }
}
