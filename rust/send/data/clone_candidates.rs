// SPDX-License-Identifier: GPL-2.0
//! What a data extent could be cloned from: the places that share it, in the C driver's order.
//!
//! The walk is that of [`crate::backref`]: first all leaves with the extent, then the trees that
//! each of them belongs to. Places in a leaf whose trees are in [`RootsCache`] are offered as soon
//! as they are found, and may end the search.

use super::roots_cache::RootsCache;
use crate::backref::data_ref::DataRef;
use crate::backref::leaves::{leaves_of, Place, Step, Visit};
use crate::backref::tree_block::roots_of;
use crate::extent::backref::find_extent;
use crate::format::extent::{ExtentItem, FLAG_DATA};
use crate::format::{self, item_type, tree_id, Key};
use crate::send::lookup::ExtentFinder;
use crate::trans::Reader;
use kernel::prelude::*;

/// An extent or a tree block with more references is not worth the time of a search
/// (`SEND_MAX_EXTENT_REFS`).
const MAX_REFS: u64 = 1024;

/// Takes the candidates.
pub(in crate::send) trait Candidates {
    /// Whether places in this tree can be used at all.
    fn wants(&self, root: u64) -> bool;
    /// Considers a candidate; returns whether it is so good that no other is needed.
    fn offer(&mut self, root: u64, candidate: &Place) -> bool;
    /// Whether a reference is that of the place that the search is for and need not be followed.
    fn is_own(&self, data_ref: &DataRef, own: (u64, u64)) -> bool;
    /// Whether only the tree that the search is for can be used.
    fn alone(&self) -> bool;
}

/// The search for what shares one extent.
pub(in crate::send) struct Search<'w> {
    pub(in crate::send) reader: &'w Reader,
    pub(in crate::send) extents: &'w mut ExtentFinder,
    pub(in crate::send) cache: &'w mut RootsCache,
    /// The extent's logical address, in bytes.
    pub(in crate::send) bytenr: u64,
    /// The byte of the extent that the candidates must have, unless it is encoded.
    pub(in crate::send) position: u64,
    /// Tree and offset of the reference that the search started from.
    pub(in crate::send) own: (u64, u64),
}

/// Offers places whose trees are known, while leaves are found.
struct Known<'v> {
    cache: &'v mut RootsCache,
    judge: &'v mut dyn Candidates,
    own: (u64, u64),
}

impl Visit for Known<'_> {
    fn follows(&self, data_ref: &DataRef) -> bool {
        data_ref.root != tree_id::DATA_RELOC && !self.judge.is_own(data_ref, self.own)
    }

    fn found(&mut self, leaf: u64, place: &Place) -> Step {
        if let Some(roots) = self.cache.get(leaf) {
            for root in roots.as_slice() {
                if self.judge.offer(*root, place) {
                    return Step::Stop;
                }
            }
        }
        Step::GoOn
    }
}

impl Search<'_> {
    /// Offers every candidate to `judge` until it needs no more.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the extent has no item, `EUCLEAN` if its references do not add up, errors of
    /// reading.
    pub(in crate::send) fn run(&mut self, judge: &mut dyn Candidates) -> Result {
        let key = Key::new(self.bytenr, item_type::EXTENT_ITEM, 0);
        let found = self.extents.at_or_after(self.reader, &key)?;
        let (_, data) = found
            .filter(|(at, _)| at.is(self.bytenr, item_type::EXTENT_ITEM))
            .ok_or(ENOENT)?;
        let item: ExtentItem = format::read(data)?;
        if item.flags.get() & FLAG_DATA == 0 {
            return Err(EUCLEAN);
        }
        let refs = item.refs.get();
        if refs > MAX_REFS || (refs == 1 && judge.alone()) {
            return Ok(());
        }
        let reader = self.reader;
        let extent_root = reader.root(tree_id::EXTENT)?;
        let extent = find_extent(reader.fs(), reader, extent_root, self.bytenr)?.ok_or(ENOENT)?;
        let mut known = Known {
            cache: self.cache,
            judge,
            own: self.own,
        };
        let leaves = leaves_of(reader, &extent, Some(self.position), &mut known)?;
        for leaf in leaves.iter().flatten() {
            let known = self.cache.get(leaf.bytenr);
            let searched;
            let roots = match &known {
                Some(roots) => roots.as_slice(),
                None => {
                    searched = roots_of(reader, leaf.bytenr, MAX_REFS)?;
                    let wanted = searched.iter().copied().filter(|root| judge.wants(*root));
                    self.cache.put(leaf.bytenr, wanted)?;
                    &searched
                }
            };
            for root in roots {
                for place in leaf.places.iter() {
                    if judge.offer(*root, place) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}
