// SPDX-License-Identifier: GPL-2.0
//! Running delayed references: the edits of the extent tree.
//!
//! Whatever contradicts the extent tree (a reference to be given up that is not there, a count
//! below zero, a tree block referred to twice by one holder) is reported with both sides of the
//! contradiction and aborts the transaction.

use super::backref::{self, find_extent, for_each_keyed, FoundExtent};
use super::delayed_ref::{NewExtent, RefDelta, RefHead};
use super::extent_item::{encode_keyed, ExtentRecord};
use super::refs::{CountedRef, RefKind};
use super::space_change::{Change, SpaceChange};
use crate::format::extent::{TreeBlockInfo, FLAG_DATA};
use crate::format::superblock::incompat;
use crate::format::{item_type, tree_id, Key};
use crate::space::space_info::SpaceContext;
use crate::trans::transaction::Transaction;
use crate::tree::edit;
use crate::tree::EditContext;
use kernel::prelude::*;

/// What the extent tree and the queue together say of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentInfo {
    /// The size of the extent, in bytes.
    pub num_bytes: u64,
    /// The number of references.
    pub refs: u64,
    /// The flags of the extent item.
    pub flags: u64,
    /// The transaction that allocated the extent.
    pub generation: u64,
}

impl Transaction<'_> {
    fn find_extent(&self, bytenr: u64) -> Result<Option<FoundExtent>> {
        find_extent(self.fs(), self, self.root(tree_id::EXTENT)?, bytenr)
    }

    /// What the running extent tree and the queue together say of the extent at `bytenr`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such extent, `EUCLEAN` for a bad item or a count below zero; errors
    /// of reading.
    pub fn extent_info(&self, bytenr: u64) -> Result<ExtentInfo> {
        let queued = self.refs.get(bytenr);
        let mut info = match (self.find_extent(bytenr)?, queued) {
            (Some(found), _) => ExtentInfo {
                num_bytes: found.num_bytes,
                refs: found.record.refs,
                flags: found.record.flags,
                generation: found.record.generation,
            },
            (None, Some(head)) => ExtentInfo {
                num_bytes: head.num_bytes,
                refs: 0,
                flags: head.new.ok_or(ENOENT)?.type_flag(),
                generation: self.transid(),
            },
            (None, None) => return Err(ENOENT),
        };
        if let Some(head) = queued {
            if head.drop_all {
                return Err(ENOENT);
            }
            info.flags |= head.set_flags;
            info.refs = self.total_refs(bytenr, info.refs, head)?;
        }
        Ok(info)
    }

    /// Whether all references to an extent are of `kind`. May say no where they are.
    ///
    /// # Errors
    ///
    /// As for [`Self::extent_info`].
    pub fn is_sole_holder(&self, bytenr: u64, kind: RefKind) -> Result<bool> {
        let info = self.extent_info(bytenr)?;
        let found = self.find_extent(bytenr)?;
        let stored = found.map_or(0, |found| found.record.inline_count(&kind));
        let deltas = self.refs.get(bytenr).map(|head| head.deltas.iter());
        let delta = deltas.and_then(|mut deltas| deltas.find(|delta| delta.kind == kind));
        let queued = delta.map_or(0, |delta| delta.count);
        Ok(u64::from(stored).checked_add_signed(queued) == Some(info.refs))
    }

    /// `refs` with the changes of `head`.
    fn total_refs(&self, bytenr: u64, refs: u64, head: &RefHead) -> Result<u64> {
        let net = head.net();
        refs.checked_add_signed(net).ok_or_else(|| {
            crate::fs_err!(
                self.fs(),
                "trying to drop {} refs but we only have {} for bytenr {}",
                net.unsigned_abs(),
                refs,
                bytenr
            );
            EUCLEAN
        })
    }

    /// Runs all delayed references, including those that running them queues.
    pub(crate) fn run_refs(&mut self) -> Result {
        let mut from = 0;
        let mut pending: Option<SpaceChange> = None;
        loop {
            while let Some((bytenr, head)) = self.refs.take_next(from) {
                from = bytenr.saturating_add(1);
                let Some(change) = self.run_ref_head(bytenr, &head)? else {
                    continue;
                };
                let extends = |before: &mut SpaceChange| before.extend(self, &change);
                if pending.as_mut().is_some_and(extends) {
                    continue;
                }
                if let Some(before) = pending.replace(change) {
                    before.apply(self)?;
                }
            }
            match pending.take() {
                Some(last) => last.apply(self)?,
                None => return Ok(()),
            }
        }
    }

    /// Does to an extent what is queued for it. Returns what that changes beyond the extent tree.
    fn run_ref_head(&mut self, bytenr: u64, head: &RefHead) -> Result<Option<SpaceChange>> {
        let result = match head.new {
            Some(new) => self.insert_extent(bytenr, head, new),
            None if head.drop_all => self.remove_extent(bytenr, head).map(Some),
            None => self.update_extent(bytenr, head),
        };
        result.inspect_err(|e| {
            crate::fs_err!(
                self.fs(),
                "failed to run delayed refs for logical {} num_bytes {}: {}",
                bytenr,
                head.num_bytes,
                e.to_errno()
            );
        })
    }

    /// Gives an extent of this transaction its extent item, or forgets it if nobody uses it any
    /// more.
    fn insert_extent(
        &mut self,
        bytenr: u64,
        head: &RefHead,
        new: NewExtent,
    ) -> Result<Option<SpaceChange>> {
        if head.deltas.is_empty() {
            // Allocated and given up: its space was never accounted as used. Pinned rather than
            // handed out again at once, because data may have been written there already.
            if new == NewExtent::Data {
                self.delete_csums(bytenr, head.num_bytes)?;
            }
            self.space_mut().abandon(bytenr, head.num_bytes)?;
            return Ok(None);
        }
        let skinny = self.has_incompat(incompat::SKINNY_METADATA);
        let (key, info) = match new {
            NewExtent::Data => (
                Key::new(bytenr, item_type::EXTENT_ITEM, head.num_bytes),
                None,
            ),
            NewExtent::Tree { level } if skinny => (
                Key::new(bytenr, item_type::METADATA_ITEM, u64::from(level)),
                None,
            ),
            NewExtent::Tree { level } => {
                let first = self.dirty.get(bytenr).and_then(|node| node.key(0));
                let info = TreeBlockInfo {
                    key: first.unwrap_or(Key::MIN).into(),
                    level,
                };
                let key = Key::new(bytenr, item_type::EXTENT_ITEM, head.num_bytes);
                (key, Some(info))
            }
        };
        let flags = new.type_flag() | head.set_flags;
        let mut record = ExtentRecord::new(self.transid(), flags, info);
        let mut inline = true;
        let mut keyed = KVec::new();
        for delta in &head.deltas {
            let count = self.gained(bytenr, delta, new == NewExtent::Data)?;
            let kind = delta.kind;
            record.refs = record.refs.checked_add(u64::from(count)).ok_or(EUCLEAN)?;
            inline &= record.fits_inline(&kind, self.geometry());
            if inline {
                record.set_inline(kind, count)?;
            } else {
                keyed.push(CountedRef { kind, count }, GFP_KERNEL)?;
            }
        }
        edit::insert(self, tree_id::EXTENT, &key, &record.encode()?).inspect_err(|e| {
            if *e == EEXIST {
                crate::fs_err!(
                    self.fs(),
                    "extent item {key} of a new extent exists already"
                );
            }
        })?;
        for r in &keyed {
            self.add_keyed(bytenr, r)?;
        }
        SpaceChange::new(Change::Allocated, bytenr, head.num_bytes).map(Some)
    }

    /// The count of a delta that adds references, checked.
    fn gained(&self, bytenr: u64, delta: &RefDelta, is_data: bool) -> Result<u32> {
        let count = u32::try_from(delta.count).ok().filter(|&n| n > 0);
        match count {
            Some(n) if delta.kind.is_data() == is_data && (is_data || n == 1) => Ok(n),
            _ => {
                crate::fs_err!(
                    self.fs(),
                    "extent {} would get {} references by {}, which it cannot have",
                    bytenr,
                    delta.count,
                    delta.kind
                );
                Err(EUCLEAN)
            }
        }
    }

    /// The item of an extent that must have one.
    fn expect_extent(&self, bytenr: u64, num_bytes: u64) -> Result<FoundExtent> {
        match self.find_extent(bytenr)? {
            Some(found) if found.num_bytes == num_bytes => Ok(found),
            Some(found) => {
                crate::fs_err!(
                    self.fs(),
                    "extent {} has num_bytes {}, but expected {}",
                    bytenr,
                    found.num_bytes,
                    num_bytes
                );
                Err(EUCLEAN)
            }
            None => {
                crate::fs_err!(
                    self.fs(),
                    "missing extent item for extent {} num_bytes {}",
                    bytenr,
                    num_bytes
                );
                Err(EUCLEAN)
            }
        }
    }

    /// Changes references and flags of an extent that has an extent item, and frees it with its
    /// last reference.
    fn update_extent(&mut self, bytenr: u64, head: &RefHead) -> Result<Option<SpaceChange>> {
        let mut found = self.expect_extent(bytenr, head.num_bytes)?;
        let record = &mut found.record;
        let is_data = record.flags & FLAG_DATA != 0;
        let old_size = record.encoded_size();
        let total = self.total_refs(bytenr, record.refs, head)?;
        for delta in head.deltas.iter().filter(|delta| delta.count < 0) {
            self.drop_ref(bytenr, record, delta)?;
        }
        if total == 0 {
            return self.free_extent_item(&found).map(Some);
        }
        let mut inline = None;
        for delta in head.deltas.iter().filter(|delta| delta.count > 0) {
            let count = self.gained(bytenr, delta, is_data)?;
            let kind = delta.kind;
            let have = record.inline_count(&kind);
            if have > 0 {
                self.check_repeated(bytenr, &kind)?;
                record.set_inline(kind, have.checked_add(count).ok_or(EUCLEAN)?)?;
                continue;
            }
            // Once there are keyed references, all new ones are: else one holder could come to have
            // both.
            let inline = match &mut inline {
                Some(inline) => inline,
                None => inline.insert(!self.has_keyed(bytenr)?),
            };
            *inline &= record.fits_inline(&kind, self.geometry());
            if *inline {
                record.set_inline(kind, count)?;
            } else {
                self.add_keyed(bytenr, &CountedRef { kind, count })?;
            }
        }
        record.refs = total;
        record.flags |= head.set_flags;
        let bytes = record.encode()?;
        if bytes.len() == old_size {
            edit::update_in_place(self, tree_id::EXTENT, &found.key, |old| {
                if old.len() != bytes.len() {
                    return Err(EUCLEAN);
                }
                old.copy_from_slice(&bytes);
                Ok(())
            })?;
        } else {
            edit::replace(self, tree_id::EXTENT, &found.key, &bytes)?;
        }
        Ok(None)
    }

    /// A holder that has references already gains more: only possible for data.
    fn check_repeated(&self, bytenr: u64, kind: &RefKind) -> Result {
        if kind.is_data() {
            return Ok(());
        }
        crate::fs_err!(
            self.fs(),
            "adding refs to an existing tree ref, bytenr {bytenr} {kind}"
        );
        Err(EUCLEAN)
    }

    /// Takes the references that `delta` gives up out of `record`, or out of the item that holds
    /// them.
    fn drop_ref(&mut self, bytenr: u64, record: &mut ExtentRecord, delta: &RefDelta) -> Result {
        let kind = delta.kind;
        let inline = record.inline_count(&kind);
        let keyed = if inline == 0 {
            self.find_keyed(bytenr, &kind)?
        } else {
            None
        };
        let have = keyed.map_or(inline, |(_, count)| count);
        let dropped = u32::try_from(delta.count.unsigned_abs()).map_err(|_| EUCLEAN)?;
        let Some(left) = have.checked_sub(dropped) else {
            crate::fs_err!(
                self.fs(),
                "unable to find ref byte nr {} {}: found {} of them, expected {}",
                bytenr,
                kind,
                have,
                dropped
            );
            return Err(EUCLEAN);
        };
        match keyed {
            None => record.set_inline(kind, left),
            Some((key, _)) if left == 0 => edit::delete(self, tree_id::EXTENT, &key),
            Some((key, _)) => self.write_keyed(&key, &CountedRef { kind, count: left }),
        }
    }

    /// Removes the item of an extent whose last reference went.
    fn free_extent_item(&mut self, found: &FoundExtent) -> Result<SpaceChange> {
        let bytenr = found.bytenr();
        if !found.record.inline().is_empty() || self.has_keyed(bytenr)? {
            crate::fs_err!(
                self.fs(),
                "extent {} has references left, but expected none: its extent item counted {}",
                bytenr,
                found.record.refs
            );
            return Err(EUCLEAN);
        }
        edit::delete(self, tree_id::EXTENT, &found.key)?;
        self.extent_freed(found)
    }

    /// What the removal of an extent item changes. A tree block goes from memory at once.
    fn extent_freed(&mut self, found: &FoundExtent) -> Result<SpaceChange> {
        let change = match found.is_data() {
            true => Change::DataFreed,
            false => Change::TreeBlocksFreed,
        };
        self.dirty.remove(found.bytenr());
        SpaceChange::new(change, found.bytenr(), found.num_bytes)
    }

    /// Removes an extent with all its references.
    fn remove_extent(&mut self, bytenr: u64, head: &RefHead) -> Result<SpaceChange> {
        let found = self.expect_extent(bytenr, head.num_bytes)?;
        let mut keys = KVec::new();
        let root = self.root(tree_id::EXTENT)?;
        for_each_keyed(self.fs(), self, root, bytenr, |key, _| {
            keys.push(*key, GFP_KERNEL)?;
            Ok(true)
        })?;
        for key in &keys {
            edit::delete(self, tree_id::EXTENT, key)?;
        }
        edit::delete(self, tree_id::EXTENT, &found.key)?;
        self.extent_freed(&found)
    }

    fn has_keyed(&self, bytenr: u64) -> Result<bool> {
        let root = self.root(tree_id::EXTENT)?;
        let mut any = false;
        for_each_keyed(self.fs(), self, root, bytenr, |_, _| {
            any = true;
            Ok(false)
        })?;
        Ok(any)
    }

    /// The item that holds references of `kind`, and their count. Data references whose hashes
    /// collide stand at keys further on.
    fn find_keyed(&self, bytenr: u64, kind: &RefKind) -> Result<Option<(Key, u32)>> {
        let root = self.root(tree_id::EXTENT)?;
        let from = kind.key(bytenr);
        let mut result = None;
        backref::for_each_keyed_from(self.fs(), self, root, &from, |key, r| {
            if r.kind == *kind {
                result = Some((*key, r.count));
            }
            Ok(result.is_none() && key.typ == from.typ && matches!(kind, RefKind::Data { .. }))
        })?;
        Ok(result)
    }

    /// Adds references as an item of their own, or to the item that their holder has.
    fn add_keyed(&mut self, bytenr: u64, r: &CountedRef) -> Result {
        if let Some((key, have)) = self.find_keyed(bytenr, &r.kind)? {
            self.check_repeated(bytenr, &r.kind)?;
            let count = have.checked_add(r.count).ok_or(EUCLEAN)?;
            let kind = r.kind;
            return self.write_keyed(&key, &CountedRef { kind, count });
        }
        let bytes = encode_keyed(r)?;
        let mut key = r.kind.key(bytenr);
        loop {
            match edit::insert(self, tree_id::EXTENT, &key, &bytes) {
                Err(e) if e == EEXIST && matches!(r.kind, RefKind::Data { .. }) => {
                    // Another holder with the same hash.
                    key.offset = key.offset.checked_add(1).ok_or(EOVERFLOW)?;
                }
                result => return result,
            }
        }
    }

    fn write_keyed(&mut self, key: &Key, r: &CountedRef) -> Result {
        let bytes = encode_keyed(r)?;
        edit::update_in_place(self, tree_id::EXTENT, key, |old| {
            if old.len() != bytes.len() {
                return Err(EUCLEAN);
            }
            old.copy_from_slice(&bytes);
            Ok(())
        })
    }
}
