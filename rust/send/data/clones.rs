// SPDX-License-Identifier: GPL-2.0
//! Clones: data that is shared with something the receiver has already is shared there, too.
//!
//! Sources are the subvolume being sent, as far as it has been sent, and those that the caller says
//! the receiver has. Which of several candidates is taken decides what the stream looks like, and
//! follows the C driver: the first that covers the whole extent, in the order in which
//! [`super::clone_candidates`] finds them, or else the largest.

use super::clone_candidates::{Candidates, Search};
use super::clone_sources::Source;
use super::roots_cache::RootsCache;
use crate::backref::data_ref::DataRef;
use crate::backref::leaves::Place;
use crate::format::compression;
use crate::fs_warn;
use crate::send::context::Send;
use crate::send::cursor::Here;
use crate::send::read_ahead;
use crate::subvol::file_extent::{Extent, Regular};
use crate::trans::Reader;
use kernel::prelude::*;

/// Warnings of one send about sources that cannot be looked up.
const MAX_WARNINGS: u32 = 10;

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
        let session = self.snapshots.session;
        session.read(|reader| {
            here.renew(reader, self.snapshots.root.id)?;
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
        let Some(inode) = &self.position.inode else {
            return Ok(None);
        };
        let size = inode.item.size.get();
        let left = size.saturating_sub(extent.offset);
        let clones = &mut self.output.clones;
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
            send_root: self.snapshots.root.id,
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
                        self.snapshots.session.fs(),
                        "send: cannot tell who shares extent {} of inode {} offset {} root {}, error {}: sending its data",
                        bytenr,
                        inode.ino,
                        extent.offset,
                        self.snapshots.root.id,
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
