// SPDX-License-Identifier: GPL-2.0
//! The replay of all log trees, in one transaction.

use super::space::{pin_blocks, take_extents};
use super::tree::{LogNodes, LogTree};
use super::{dir, extent, inode, link, xattr};
use crate::format::inode::InodeItem;
use crate::format::{self, item_type, Key};
use crate::subvol::write::InodeId;
use crate::trans::{Transaction, View};
use crate::tree::{Cursor, EditContext};
use crate::volume::Fs;
use crate::{fs_err, fs_info};
use kernel::prelude::*;
use kernel::rbtree::RBTree;

/// Replays the log of a volume. Nothing is written before the commit, which removes the log.
///
/// # Errors
///
/// `EROFS` and `EINVAL` for volumes that cannot be written to; `EUCLEAN` and `EIO` for damage,
/// `ENOMEM`: the volume and its log are as they were. Those of a commit.
pub(super) fn replay(fs: &Fs) -> Result {
    let mut trans = fs.begin_replay()?;
    match run(&mut trans) {
        Ok(()) => trans.commit(),
        Err(error) => {
            trans.cancel();
            Err(error)
        }
    }
}

fn run(trans: &mut Transaction<'_>) -> Result {
    let nodes = LogNodes::new(trans.fs())?;
    pin_blocks(trans, &nodes, nodes.log_root()?)?;
    let mut logs = KVec::new();
    for log in nodes.trees()? {
        pin_blocks(trans, &nodes, log.root)?;
        if exists(trans, log.subvol)? {
            logs.push(log, GFP_KERNEL)?;
        }
    }
    for log in &logs {
        take_extents(trans, &nodes, log)?;
    }
    for log in logs {
        let mut target = Target {
            trans: &mut *trans,
            nodes: &nodes,
            log,
            linked: RBTree::new(),
        };
        target.replay()?;
    }
    // References are run now, so that an error can still be undone.
    trans.settle()
}

/// Whether a subvolume is there. The log of one that was deleted since is of no use.
fn exists(trans: &Transaction<'_>, subvol: u64) -> Result<bool> {
    match trans.tree_root_item(subvol) {
        Ok(item) => Ok(!item.is_dead()),
        Err(ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A subvolume whose log tree is replayed.
pub(super) struct Target<'a, 'fs> {
    pub(super) trans: &'a mut Transaction<'fs>,
    pub(super) nodes: &'a LogNodes,
    pub(super) log: LogTree,
    /// The inodes whose names are to be counted at the end, by number. The C driver has items for
    /// this, of object `TREE_LOG_FIXUP`.
    linked: RBTree<u64, ()>,
}

/// What is done in one walk over a log tree. Names come after all inodes that they may lead to, and
/// what inodes know of their names after the entries that directories have, which may stand in
/// their way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Inodes, and what the log no longer has of them.
    Inodes,
    /// Entries of directories.
    Entries,
    /// All else.
    Rest,
}

impl Target<'_, '_> {
    fn replay(&mut self) -> Result {
        for stage in [Stage::Inodes, Stage::Entries, Stage::Rest] {
            self.walk(stage)?;
        }
        link::fix_counts(self)?;
        let (subvol, transid) = (self.log.subvol, self.transid());
        self.trans.update_root_item(subvol, |item| {
            item.ctransid = transid.into();
            Ok(())
        })?;
        fs_info!(self.trans.fs(), "replayed the log of subvolume {subvol}");
        Ok(())
    }

    fn walk(&mut self, stage: Stage) -> Result {
        let nodes = self.nodes;
        let mut cursor = Cursor::new(nodes, self.log.root).with_readahead();
        let mut ignored = None;
        cursor.seek(&Key::MIN)?;
        while let Some((key, data)) = cursor.item() {
            if key.typ == item_type::INODE_ITEM {
                // An inode that had no names left when it was synced. One that has lost them goes
                // with the last of them.
                let item: InodeItem = format::read(data)?;
                ignored = (item.nlink.get() == 0).then_some(key.objectid);
            }
            if ignored != Some(key.objectid) {
                self.item(stage, &key, data).inspect_err(|error| {
                    let (errno, subvol) = (error.to_errno(), self.log.subvol);
                    fs_err!(
                        self.trans.fs(),
                        "failed to replay log item {key} of subvolume {subvol}: {errno}"
                    );
                })?;
            }
            cursor.next()?;
        }
        Ok(())
    }

    fn item(&mut self, stage: Stage, key: &Key, data: &[u8]) -> Result {
        match (stage, key.typ) {
            (Stage::Inodes, item_type::INODE_ITEM) => {
                inode::replay(self, key.objectid, format::read(data)?)
            }
            (Stage::Entries, item_type::DIR_INDEX) => dir::replay(self, key, data),
            (Stage::Rest, item_type::XATTR_ITEM) => xattr::replay(self, key, data),
            (Stage::Rest, item_type::INODE_REF | item_type::INODE_EXTREF) => {
                link::replay(self, key, data)
            }
            (Stage::Rest, item_type::EXTENT_DATA) => extent::replay(self, key, data),
            // Old kernels logged `DIR_ITEM`s as well, which say nothing that the others do not.
            _ => Ok(()),
        }
    }

    pub(super) fn transid(&self) -> u64 {
        self.trans.transid()
    }

    pub(super) fn id(&self, ino: u64) -> InodeId {
        InodeId {
            tree: self.log.subvol,
            ino,
        }
    }

    /// Has the names of an inode counted at the end.
    pub(super) fn count_names(&mut self, ino: u64) -> Result {
        if self.linked.get(&ino).is_none() {
            self.linked.try_create_and_insert(ino, (), GFP_KERNEL)?;
        }
        Ok(())
    }

    /// The highest inode whose names are to be counted, which is then not to be counted any more.
    pub(super) fn take_counted(&mut self) -> Option<u64> {
        let ino = *self.linked.cursor_back()?.current().0;
        self.linked.remove(&ino);
        Some(ino)
    }

    /// The data of the item at `key` of the log tree, or `None`.
    pub(super) fn logged(&self, key: &Key) -> Result<Option<KVec<u8>>> {
        self.nodes.get(self.log.root, key)
    }
}
