// SPDX-License-Identifier: GPL-2.0
//! Clones: data that is shared with something the receiver has already is shared there, too.
//!
//! Sources are the subvolume being sent, as far as it has been sent, and those that the caller says
//! the receiver has. Which of several candidates is taken decides what the stream looks like, and
//! follows the C driver: the first that covers the whole extent, in the order in which
//! [`super::clone_candidates`] finds them, or else the largest.

use super::clone_candidates::{Candidates, Search};
use super::roots_cache::RootsCache;
use crate::backref::data_ref::DataRef;
use crate::backref::leaves::Place;
use crate::format::{compression, item_type, objectid, Key};
use crate::fs_warn;
use crate::send::cursor::Here;
use crate::send::full::Send;
use crate::send::lookup::{ExtentFinder, Finder};
use crate::send::names::path::{is_name, push_name, FsPath};
use crate::send::read_ahead;
use crate::send::{Sendable, Snapshot};
use crate::subvol::file_extent::{Extent, Regular};
use crate::subvol::inode::names_of_item;
use crate::trans::Reader;
use crate::volume::{ReadSession, Stamp};
use kernel::prelude::*;

/// Warnings of one send about sources that cannot be looked up.
const MAX_WARNINGS: u32 = 10;

/// A subvolume to clone from.
pub(in crate::send) struct Source<'a> {
    pub(in crate::send) root: Snapshot,
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
    extents: ExtentFinder,
    cache: RootsCache,
    /// Commits in which the leaves in the cache are where they are known to be.
    stamp: Stamp,
    warnings: u32,
}

impl<'a> CloneSources<'a> {
    pub(in crate::send) const fn new() -> Self {
        CloneSources {
            sources: KVec::new(),
            extents: ExtentFinder::new(),
            cache: RootsCache::new(),
            stamp: Stamp::NONE,
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

/// Decides which of the places that share an extent can be cloned from.
struct Judge<'s, 'a> {
    sources: &'s mut [Source<'a>],
    send_root: u64,
    /// The inode and offset that want the data.
    ino: u64,
    offset: u64,
    /// How much of it, in bytes.
    len: u64,
    /// Where the file ends at the receiver so far, in bytes.
    next_write: u64,
}

impl Candidates for Judge<'_, '_> {
    fn wants(&self, root: u64) -> bool {
        let by_id = |source: &Source<'_>| source.root.id.cmp(&root);
        self.sources.binary_search_by(by_id).is_ok()
    }

    fn offer(&mut self, root: u64, candidate: &Place) -> bool {
        let by_id = |source: &Source<'_>| source.root.id.cmp(&root);
        let Ok(at) = self.sources.binary_search_by(by_id) else {
            return false;
        };
        if root == self.send_root {
            // What is still to come, this very extent included, is not there to be cloned.
            let end = candidate.offset.wrapping_add(self.len);
            let behind = candidate.ino == self.ino
                && (candidate.offset == self.offset || end > self.next_write);
            if candidate.ino > self.ino || behind {
                return false;
            }
        }
        let Some(source) = self.sources.get_mut(at) else {
            return false;
        };
        let known = source.best.map_or(0, |best| best.num_bytes);
        if candidate.num_bytes <= known {
            return false;
        }
        source.best = Some(*candidate);
        candidate.num_bytes >= self.len
    }

    fn is_own(&self, data_ref: &DataRef, own: (u64, u64)) -> bool {
        // With other sources about, the subvolume's own reference may lead to them, if they share
        // its leaf.
        self.sources.len() == 1
            && data_ref.ino == self.ino
            && (data_ref.root, data_ref.offset) == own
    }

    fn alone(&self) -> bool {
        self.sources.len() == 1
    }
}

impl Send<'_> {
    /// Looks for something to clone the current inode's `extent` from: the index of the source,
    /// whose `best` it is. The item at `here` is that of the extent.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EINTR`. Anything else only means that data is sent.
    pub(in crate::send) fn find_clone(
        &mut self,
        here: &mut Here,
        extent: &Extent<'_>,
        regular: &Regular,
    ) -> Result<Option<usize>> {
        let session = self.session;
        session.read(|reader| {
            here.renew(reader, self.root.id)?;
            self.find_clone_in(reader, here, extent, regular)
        })
    }

    /// All that is looked up for it is of one commit.
    fn find_clone_in(
        &mut self,
        reader: &Reader,
        here: &Here,
        extent: &Extent<'_>,
        regular: &Regular,
    ) -> Result<Option<usize>> {
        let bytenr = here.extent()?;
        let Some(inode) = &self.inode else {
            return Ok(None);
        };
        let size = inode.item.size.get();
        let left = size.saturating_sub(extent.offset);
        let clones = &mut self.clones;
        for source in clones.sources.iter_mut() {
            source.best = None;
        }
        if clones.stamp != here.stamp {
            clones.stamp = here.stamp;
            clones.cache = RootsCache::new();
        }
        if clones.sources.len() > 1 {
            read_ahead::read_for_clone(reader, &clones.extents, here, bytenr, regular);
        }
        let mut judge = Judge {
            sources: &mut clones.sources,
            send_root: self.root.id,
            ino: inode.ino,
            offset: extent.offset,
            len: extent.len.min(left),
            next_write: inode.next_write,
        };
        let mut search = Search {
            reader,
            extents: &mut clones.extents,
            cache: &mut clones.cache,
            bytenr,
            position: match regular.compression {
                compression::NONE => regular.extent_offset,
                _ => 0,
            },
            own: (
                here.leaf.owner(),
                extent.offset.wrapping_sub(regular.extent_offset),
            ),
        };
        match search.run(&mut judge) {
            Ok(()) => {}
            Err(error) if error == ENOMEM || error == EINTR => return Err(error),
            Err(error) => {
                if clones.warnings < MAX_WARNINGS {
                    clones.warnings = clones.warnings.saturating_add(1);
                    fs_warn!(
                        self.session.fs(),
                        "send: cannot tell who shares extent {} of inode {} offset {} root {}, error {}: sending its data",
                        bytenr,
                        inode.ino,
                        extent.offset,
                        self.root.id,
                        error.to_errno()
                    );
                }
                return Ok(None);
            }
        }
        let wanted = extent.len.min(left);
        let mut chosen = None;
        let mut most = 0;
        for (index, source) in clones.sources.iter().enumerate() {
            let Some(best) = source.best else {
                continue;
            };
            if best.num_bytes > most {
                most = best.num_bytes;
                chosen = Some(index);
                if most >= wanted {
                    break;
                }
            }
        }
        Ok(chosen)
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
