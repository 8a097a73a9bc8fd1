// SPDX-License-Identifier: GPL-2.0
//! Clones: data that is shared with something the receiver has already is shared there, too.
//!
//! Sources are the subvolume being sent, as far as it has been sent, and those that the caller says
//! the receiver has. Which of several candidates is taken decides what the stream looks like, and
//! follows the C driver: the first that covers the whole extent, in the order in which
//! [`super::clone_candidates`] finds them, or else the largest. That order follows the addresses of
//! leaves. So after a relocation it may lead to a place of which less can be cloned than of the one
//! before, and the place of which most can be cloned is taken.

use super::clone_candidates::{Candidates, Search};
use super::clone_sources::Source;
use super::roots_cache::RootsCache;
use crate::backref::data_ref::DataRef;
use crate::backref::leaves::Place;
use crate::format::compression;
use crate::fs_warn;
use crate::platform;
use crate::send::context::Send;
use crate::send::cursor::Here;
use crate::send::read_ahead;
use crate::subvol::file_extent::{Extent, Regular};
use crate::trans::Reader;
use kernel::prelude::*;

/// Warnings of one send about sources that cannot be looked up.
const MAX_WARNINGS: u32 = 10;

/// What an extent is cloned from.
#[derive(Clone, Copy, Debug)]
pub(in crate::send) struct CloneFrom {
    /// The index of the source.
    pub(in crate::send) source: usize,
    pub(in crate::send) place: Place,
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
    /// Takes every place that can be cloned from, if all are asked for, in place of the best one of
    /// each source.
    all: Option<&'s mut KVec<CloneFrom>>,
    /// Whether there was memory for all.
    result: Result,
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
        if let Some(all) = &mut self.all {
            let from = CloneFrom {
                source: at,
                place: *candidate,
            };
            self.result = all.push(from, GFP_KERNEL).map_err(Error::from);
            return self.result.is_err();
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
    /// Looks for something to clone the current inode's `extent` from. The item at `here` is that
    /// of the extent.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EINTR`. Anything else only means that data is sent.
    pub(in crate::send) fn find_clone(
        &mut self,
        here: &mut Here,
        extent: &Extent<'_>,
        regular: &Regular,
    ) -> Result<Option<CloneFrom>> {
        let session = self.snapshots.session;
        let first = session.read(|reader| {
            here.renew(reader, self.snapshots.root.id)?;
            self.find_clone_in(reader, here, extent, regular, None)
        })?;
        match first {
            Some(first) if here.stamp != self.output.clones.begun => {
                let most = self.most_cloned(here, extent, regular, first)?;
                Ok(Some(most))
            }
            _ => Ok(first),
        }
    }

    /// Of all that `extent` can be cloned from, that of which most is cloned; `first` if that is as
    /// good.
    #[cold]
    #[inline(never)]
    fn most_cloned(
        &mut self,
        here: &mut Here,
        extent: &Extent<'_>,
        regular: &Regular,
        first: CloneFrom,
    ) -> Result<CloneFrom> {
        let size = self
            .position
            .inode
            .as_ref()
            .map_or(0, |inode| inode.item.size.get());
        let end = extent.end().min(size);
        let wanted = end.saturating_sub(extent.offset);
        let mut most = first;
        let mut cloned = self.cloned_or_none(here, extent, regular, end, &first)?;
        if cloned >= wanted {
            return Ok(most);
        }
        let mut all = KVec::new();
        let session = self.snapshots.session;
        session.read(|reader| {
            here.renew(reader, self.snapshots.root.id)?;
            self.find_clone_in(reader, here, extent, regular, Some(&mut all))
        })?;
        for from in all.iter() {
            let more = self.cloned_or_none(here, extent, regular, end, from)?;
            if more > cloned {
                (most, cloned) = (*from, more);
            }
            if cloned >= wanted {
                break;
            }
            platform::yield_now();
        }
        Ok(most)
    }

    /// How many bytes would be cloned from `from`: none if it cannot be read.
    fn cloned_or_none(
        &mut self,
        here: &mut Here,
        extent: &Extent<'_>,
        regular: &Regular,
        end: u64,
        from: &CloneFrom,
    ) -> Result<u64> {
        match self.cloned_from(here, extent, regular, end, from) {
            Err(error) if error != ENOMEM && error != EINTR => Ok(0),
            cloned => cloned,
        }
    }

    /// See [`Self::find_clone`]: all that is looked up for it is of one commit. With `all`, puts
    /// all that there is there, and returns nothing.
    fn find_clone_in(
        &mut self,
        reader: &Reader,
        here: &Here,
        extent: &Extent<'_>,
        regular: &Regular,
        all: Option<&mut KVec<CloneFrom>>,
    ) -> Result<Option<CloneFrom>> {
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
            all,
            result: Ok(()),
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
        match search.run(&mut judge).and(judge.result) {
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
                chosen = Some(CloneFrom {
                    source: index,
                    place: best,
                });
                if most >= wanted {
                    break;
                }
            }
        }
        Ok(chosen)
    }
}
