// SPDX-License-Identifier: GPL-2.0
//! The subvolumes that data may be cloned from, and what is known of them.

use super::roots_cache::RootsCache;
use crate::backref::leaves::Place;
use crate::format::{item_type, objectid, Key};
use crate::send::lookup::{ExtentFinder, Finder};
use crate::send::names::path::{is_name, push_name, FsPath};
use crate::send::roots::{Sendable, SnapshotRoot};
use crate::subvol::inode::names_of_item;
use crate::volume::{ReadSession, Stamp};
use kernel::prelude::*;

/// A subvolume to clone from.
pub(in crate::send) struct Source<'a> {
    pub(in crate::send) root: SnapshotRoot,
    /// What the receiver knows it by.
    pub(in crate::send) uuid: [u8; 16],
    pub(in crate::send) ctransid: u64,
    pub(in crate::send) finder: Finder<'a>,
    /// The best that was found in it for the current extent.
    pub(in crate::send) best: Option<Place>,
}

/// Everything that the current send may clone from.
pub(in crate::send) struct CloneSources<'a> {
    /// Sorted by tree id; among them the subvolume being sent.
    pub(in crate::send) sources: KVec<Source<'a>>,
    pub(super) extents: ExtentFinder,
    pub(super) cache: RootsCache,
    /// Commits in which the leaves in the cache are where they are known to be.
    pub(super) stamp: Stamp,
    /// The commit that the send began with: nothing was relocated since if it is `stamp`.
    pub(super) begun: Stamp,
    pub(super) warnings: u32,
}

impl<'a> CloneSources<'a> {
    /// No sources, of a send that begins in a commit of the stamp `begun`.
    pub(in crate::send) const fn new(begun: Stamp) -> Self {
        CloneSources {
            sources: KVec::new(),
            extents: ExtentFinder::new(),
            cache: RootsCache::new(),
            stamp: Stamp::NONE,
            begun,
            warnings: 0,
        }
    }

    /// Adds a subvolume; one that is there already stays once.
    pub(in crate::send) fn add(
        &mut self,
        session: &'a ReadSession,
        subvolume: &Sendable,
    ) -> Result {
        let root = subvolume.tree;
        if self.sources.iter().any(|source| source.root.id == root.id) {
            return Ok(());
        }
        let source = Source {
            root,
            uuid: subvolume.uuid,
            ctransid: subvolume.ctransid,
            finder: Finder::new(session, root.id),
            best: None,
        };
        self.sources.push(source, GFP_KERNEL)?;
        crate::sort::sort_by_key(&mut self.sources, |source| source.root.id);
        Ok(())
    }

    /// The trees of all sources.
    pub(in crate::send) fn trees(&self) -> impl Iterator<Item = u64> + use<'_, 'a> {
        self.sources.iter().map(|source| source.root.id)
    }
}

impl CloneSources<'_> {
    /// The path of an inode in a source: the first name of each, up to the top.
    pub(in crate::send) fn path_of(
        &mut self,
        index: usize,
        mut ino: u64,
        path: &mut FsPath,
    ) -> Result {
        let source = self.sources.get_mut(index).ok_or(EINVAL)?;
        let mut names: KVec<u8> = KVec::new();
        path.clear();
        while ino != objectid::FIRST_FREE {
            let key = Key::new(ino, item_type::INODE_REF, 0);
            let found = source.finder.at_or_after(&key)?;
            let (at, data) = found
                .filter(|(at, _)| at.objectid == ino && at.typ <= item_type::INODE_EXTREF)
                .ok_or(ENOENT)?;
            let mut parent = None;
            names_of_item(&at, data, &mut |name| {
                if !is_name(name.name) {
                    return Err(EUCLEAN);
                }
                push_name(&mut names, name.name)?;
                parent = Some(name.parent);
                Ok(false)
            })?;
            ino = parent.ok_or(ENOENT)?;
        }
        path.push_names(&names)
    }
}
