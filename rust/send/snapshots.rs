// SPDX-License-Identifier: GPL-2.0
//! Look-ups in the subvolume being sent and in its parent.

use super::cursor::Cursor;
use super::lookup::Finder;
use super::names::path::{first_name, is_name, NameBuf};
use super::roots::SnapshotRoot;
use super::utimes::Dir;
use crate::format::crc::name_hash;
use crate::format::inode::InodeItem;
use crate::format::{self, item_type, objectid, BlockSize, Key};
use crate::fs_err;
use crate::subvol::dir::Entries;
use crate::subvol::inode::names_of_item;
use crate::volume::ReadSession;
use kernel::prelude::*;

/// One of the two trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Snapshot {
    /// The subvolume being sent.
    Sent,
    /// The one that the receiver has.
    Parent,
}

/// The parent, as it is read off the walk.
pub(super) struct Parent<'a> {
    pub(super) root: SnapshotRoot,
    /// For inodes and their names.
    inodes: Finder<'a>,
    /// For directory entries.
    entries: Finder<'a>,
    /// For file extents.
    pub(super) extents: Cursor<'a>,
}

impl<'a> Parent<'a> {
    #[inline(never)]
    pub(super) fn new(session: &'a ReadSession, root: SnapshotRoot) -> Result<KBox<Self>> {
        let parent = Parent {
            root,
            inodes: Finder::new(session, root.id),
            entries: Finder::new(session, root.id),
            extents: Cursor::new(session, root.id),
        };
        Ok(KBox::new(parent, GFP_KERNEL)?)
    }
}

/// Notices when a climb through directories goes round in a circle.
pub(super) struct Climb {
    mark: u64,
    steps: u64,
    next_mark: u64,
}

impl Climb {
    pub(super) const fn new() -> Self {
        Climb {
            mark: 0,
            steps: 0,
            next_mark: 1,
        }
    }

    /// Takes a step to `ino`.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if the same steps come again and again.
    pub(super) fn to(&mut self, ino: u64) -> Result {
        if ino == self.mark {
            return Err(EUCLEAN);
        }
        self.steps = self.steps.saturating_add(1);
        if self.steps >= self.next_mark {
            self.mark = ino;
            self.next_mark = self.next_mark.saturating_mul(2);
        }
        Ok(())
    }
}

/// The subvolume being sent and its parent, as they are read off the walk.
pub(super) struct Snapshots<'a> {
    pub(super) session: &'a ReadSession,
    /// The subvolume being sent.
    pub(super) root: SnapshotRoot,
    pub(super) sectorsize: BlockSize,
    /// For inodes and their names in the subvolume being sent.
    pub(super) sent_inodes: Finder<'a>,
    /// For its directory entries.
    sent_entries: Finder<'a>,
    /// In an incremental send, what the receiver has.
    pub(super) parent: Option<KBox<Parent<'a>>>,
}

impl<'a> Snapshots<'a> {
    #[inline(never)]
    pub(super) fn new(
        session: &'a ReadSession,
        root: SnapshotRoot,
        parent: Option<SnapshotRoot>,
    ) -> Result<KBox<Self>> {
        let parent = parent.map(|root| Parent::new(session, root)).transpose()?;
        let snapshots = Snapshots {
            session,
            root,
            sectorsize: session.fs().geometry.sectorsize,
            sent_inodes: Finder::new(session, root.id),
            sent_entries: Finder::new(session, root.id),
            parent,
        };
        Ok(KBox::new(snapshots, GFP_KERNEL)?)
    }

    /// Tells the administrator what is wrong with the subvolume.
    pub(super) fn inconsistent_snapshot_error(&self, ino: u64, what: &str) {
        fs_err!(
            self.session.fs(),
            "Send: inconsistent snapshot, found {} for inode {}, send root is {}, parent root is {}",
            what,
            ino,
            self.root.id,
            self.parent.as_ref().map_or(0, |parent| parent.root.id)
        );
    }

    /// # Errors
    ///
    /// `EUCLEAN` for a name that no directory entry can have: a receiver would go astray with it.
    pub(super) fn check_name(&self, ino: u64, name: &[u8]) -> Result {
        if is_name(name) {
            return Ok(());
        }
        self.inconsistent_snapshot_error(ino, "a name that no entry can have");
        Err(EUCLEAN)
    }

    fn inodes(&mut self, snapshot: Snapshot) -> Result<&mut Finder<'a>> {
        match snapshot {
            Snapshot::Sent => Ok(&mut self.sent_inodes),
            Snapshot::Parent => Ok(&mut self.parent.as_mut().ok_or(EINVAL)?.inodes),
        }
    }

    fn entries(&mut self, snapshot: Snapshot) -> Result<&mut Finder<'a>> {
        match snapshot {
            Snapshot::Sent => Ok(&mut self.sent_entries),
            Snapshot::Parent => Ok(&mut self.parent.as_mut().ok_or(EINVAL)?.entries),
        }
    }

    /// The item of an inode.
    pub(super) fn inode_in(&mut self, snapshot: Snapshot, ino: u64) -> Result<Option<InodeItem>> {
        let key = Key::new(ino, item_type::INODE_ITEM, 0);
        let found = self.inodes(snapshot)?.exact(&key)?;
        found.map(format::read::<InodeItem>).transpose()
    }

    /// The generation of an inode that must be there.
    pub(super) fn generation_in(&mut self, snapshot: Snapshot, ino: u64) -> Result<u64> {
        match self.inode_in(snapshot, ino)? {
            Some(inode) => Ok(inode.generation.get()),
            None => {
                self.inconsistent_snapshot_error(ino, "a reference without inode item");
                Err(ENOENT)
            }
        }
    }

    /// Puts the first name of an inode into `name`, and returns the directory that it is in, if it
    /// has one.
    pub(super) fn first_name_in(
        &mut self,
        snapshot: Snapshot,
        ino: u64,
        name: &mut NameBuf,
    ) -> Result<Option<Dir>> {
        let Some(parent) = first_name(self.inodes(snapshot)?, ino, name)? else {
            return Ok(None);
        };
        self.check_name(ino, name.as_bytes())?;
        Ok(Some((parent, self.generation_in(snapshot, parent)?)))
    }

    /// As [`Self::first_name_in`] of an inode that must have a name.
    pub(super) fn name_in(
        &mut self,
        snapshot: Snapshot,
        ino: u64,
        name: &mut NameBuf,
    ) -> Result<Dir> {
        match self.first_name_in(snapshot, ino, name)? {
            Some(parent) => Ok(parent),
            None => {
                self.inconsistent_snapshot_error(ino, "no reference");
                Err(ENOENT)
            }
        }
    }

    /// Whether `name` in `dir` is the first name of inode `ino`.
    pub(super) fn is_first_name_in(
        &mut self,
        snapshot: Snapshot,
        ino: u64,
        dir: u64,
        name: &[u8],
    ) -> Result<bool> {
        let mut first = NameBuf::empty();
        match first_name(self.inodes(snapshot)?, ino, &mut first)? {
            Some(parent) => Ok(parent == dir && first.as_bytes() == name),
            None => {
                self.inconsistent_snapshot_error(ino, "no reference");
                Err(ENOENT)
            }
        }
    }

    /// What an entry of a directory leads to: the key of an inode item or of a root item.
    pub(super) fn entry_in(
        &mut self,
        snapshot: Snapshot,
        dir: u64,
        name: &[u8],
    ) -> Result<Option<Key>> {
        let key = Key::new(dir, item_type::DIR_ITEM, name_hash(name));
        let Some(data) = self.entries(snapshot)?.exact(&key)? else {
            return Ok(None);
        };
        for entry in Entries::new(data) {
            let entry = entry?;
            if entry.name == name {
                return Ok(Some(entry.location));
            }
        }
        Ok(None)
    }

    /// The inode that an entry of a directory leads to; subvolumes are none.
    pub(super) fn entry_inode_in(
        &mut self,
        snapshot: Snapshot,
        dir: u64,
        name: &[u8],
    ) -> Result<Option<u64>> {
        let found = self.entry_in(snapshot, dir, name)?;
        Ok(found
            .filter(|key| key.typ != item_type::ROOT_ITEM)
            .map(|key| key.objectid))
    }

    /// Whether the directory `upper`, an inode number and a generation, is above `ino` in the
    /// parent, by any of the names of `ino`.
    pub(super) fn was_above(&mut self, upper: Dir, ino: u64) -> Result<bool> {
        let root = self.parent.as_ref().ok_or(EINVAL)?.root;
        let mut cursor = Cursor::new(self.session, root.id);
        cursor.seek(&Key::new(ino, item_type::INODE_REF, 0))?;
        while let Some((key, data)) = cursor.item() {
            if key.objectid != ino || key.typ > item_type::INODE_EXTREF {
                break;
            }
            let mut above = false;
            // All names of an INODE_REF are in the same directory.
            let one = key.typ == item_type::INODE_REF;
            names_of_item(&key, data, &mut |name| {
                above = self.is_or_was_above(upper, name.parent)?;
                Ok(!above && !one)
            })?;
            if above {
                return Ok(true);
            }
            cursor.next()?;
        }
        Ok(false)
    }

    /// Whether `upper` is the directory `dir` in the parent, or above it.
    fn is_or_was_above(&mut self, upper: Dir, dir: u64) -> Result<bool> {
        let (above, generation) = upper;
        let mut at = (dir, self.generation_in(Snapshot::Parent, dir)?);
        let mut climb = Climb::new();
        let mut name = NameBuf::empty();
        loop {
            if at.0 == above {
                return Ok(at.1 == generation);
            }
            if at.0 <= objectid::FIRST_FREE {
                return Ok(false);
            }
            climb.to(at.0)?;
            at = self.name_in(Snapshot::Parent, at.0, &mut name)?;
        }
    }
}
