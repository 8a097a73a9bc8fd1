// SPDX-License-Identifier: GPL-2.0
//! Who shares a data extent: the walk from an extent up to the subvolumes that lead to it.
//!
//! First all leaves with a file extent item of the extent are found, from its back references; then
//! the trees that each of these leaves belongs to, from the back references of the leaf and of the
//! nodes above. Candidates are offered in the C driver's order, which decides what is cloned:
//! references by inode before those by leaf, larger numbers before smaller ones; within a leaf in
//! key order for the former, and against it for the latter.

use super::lookup::ExtentFinder;
use super::roots_cache::RootsCache;
use crate::extent::backref::{all_refs, find_extent};
use crate::extent::refs::RefKind;
use crate::format::extent::{ExtentItem, FLAG_DATA};
use crate::format::file_extent::FileExtent;
use crate::format::{self, item_type, tree_id, Key};
use crate::number_set::NumberSet;
use crate::sort::sort_by;
use crate::trans::Reader;
use crate::tree::{Cursor, Node, NodePtr, Nodes, TreeRoot};
use kernel::prelude::*;

/// References of an extent or a tree block beyond which it is not worth the time.
const MAX_REFS: u64 = 1024;

/// A place that shares the extent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) ino: u64,
    /// Where in the file the byte is that the search started from.
    pub(super) offset: u64,
    /// The length of the file extent there, in bytes.
    pub(super) num_bytes: u64,
}

/// Takes the candidates.
pub(super) trait Candidates {
    /// Whether places in this tree can be used at all.
    fn wants(&self, root: u64) -> bool;
    /// Considers a candidate; returns whether it is so good that no other is needed.
    fn offer(&mut self, root: u64, candidate: &Candidate) -> bool;
    /// Whether a reference is that of the place that the search is for and need not be followed.
    fn is_own(&self, root: u64, ino: u64, offset: u64, own: (u64, u64)) -> bool;
    /// Whether only the tree that the search is for can be used.
    fn alone(&self) -> bool;
}

/// The search for those who share one extent.
pub(super) struct Walk<'w> {
    pub(super) reader: &'w Reader,
    pub(super) extents: &'w mut ExtentFinder,
    pub(super) cache: &'w mut RootsCache,
    /// The extent's logical address, in bytes.
    pub(super) bytenr: u64,
    /// The byte of the extent that the candidates must have, unless it is compressed.
    pub(super) position: u64,
    /// Tree and offset of the reference that the search started from.
    pub(super) own: (u64, u64),
}

/// A reference by inode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct DataRef {
    root: u64,
    ino: u64,
    offset: u64,
    count: u64,
}

/// A leaf that a reference leads to.
struct Found {
    /// Tree, inode and offset of a reference by inode, and all zero for one by leaf.
    by: (u64, u64, u64),
    leaf: u64,
    /// The places in it; `None` until the leaf has been searched.
    places: Option<KVec<Candidate>>,
}

/// What to do next.
enum Step {
    GoOn,
    /// No more candidates are needed.
    Stop,
}

impl Walk<'_> {
    /// Offers every candidate to `judge` until it has had enough.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the extent has no item, `EUCLEAN` if its references do not add up, errors of
    /// reading.
    pub(super) fn run(&mut self, judge: &mut dyn Candidates) -> Result {
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
        let fs = self.reader.fs();
        let extent_root = self.reader.root(tree_id::EXTENT)?;
        let extent = find_extent(fs, self.reader, extent_root, self.bytenr)?.ok_or(ENOENT)?;
        let mut by_inode = KVec::new();
        let mut by_leaf = KVec::new();
        for counted in all_refs(fs, self.reader, extent_root, &extent)?.iter() {
            match counted.kind {
                RefKind::Data { root, ino, offset } => {
                    let skip = root == tree_id::DATA_RELOC;
                    if !skip && !judge.is_own(root, ino, offset, self.own) {
                        let data_ref = DataRef {
                            root,
                            ino,
                            offset,
                            count: u64::from(counted.count),
                        };
                        by_inode.push(data_ref, GFP_KERNEL)?;
                    }
                }
                RefKind::SharedData { parent } => by_leaf.push(parent, GFP_KERNEL)?,
                _ => return Err(EUCLEAN),
            }
        }
        sort_by(&mut by_inode, |a, b| b.cmp(a));
        sort_by(&mut by_leaf, |a, b| b.cmp(a));

        let mut found = KVec::new();
        for data_ref in by_inode.iter() {
            if let Step::Stop = self.leaves_of(data_ref, &by_leaf, &mut found, judge)? {
                return Ok(());
            }
        }
        for leaf in by_leaf.iter() {
            let shared = Found {
                by: (0, 0, 0),
                leaf: *leaf,
                places: None,
            };
            found.push(shared, GFP_KERNEL)?;
        }
        sort_by(&mut found, |a: &Found, b| {
            (b.by, b.leaf).cmp(&(a.by, a.leaf))
        });
        self.offer_all(found, judge)
    }

    /// Finds the leaves that `data_ref` stands for. Leaves that others allocated, or that have a
    /// reference of their own, are not among them.
    fn leaves_of(
        &mut self,
        data_ref: &DataRef,
        by_leaf: &[u64],
        found: &mut KVec<Found>,
        judge: &mut dyn Candidates,
    ) -> Result<Step> {
        let Some(root) = tree(self.reader, data_ref.root)? else {
            return Ok(Step::GoOn);
        };
        // The offset is that of the extent's first byte, which may lie before the file's.
        let offset = match data_ref.offset {
            offset if offset >= i64::MAX as u64 => 0,
            offset => offset,
        };
        let other = |leaf: &Node| leaf.owner() != data_ref.root || by_leaf.contains(&leaf.bytenr());
        let first = found.len();
        let mut count = 0;
        let mut cursor = self.reader.cursor(root);
        cursor.seek(&Key::new(data_ref.ino, item_type::EXTENT_DATA, offset))?;
        let mut skip = cursor.node_at(0).is_some_and(other);
        while count < data_ref.count {
            if skip && !next_leaf(&mut cursor)? {
                break;
            }
            let Some((key, data)) = cursor.item() else {
                break;
            };
            if !key.is(data_ref.ino, item_type::EXTENT_DATA) {
                break;
            }
            let leaf = cursor.node_at(0).ok_or(EIO)?;
            skip = cursor.slot_at(0) == 0 && other(leaf);
            if skip {
                continue;
            }
            let mine = SharedItem::parse(data, self.bytenr)?
                .filter(|item| key.offset.wrapping_sub(item.offset) == data_ref.offset);
            if let Some(item) = mine {
                count = count.saturating_add(1);
                if let Some(place) = item.place(&key, self.position) {
                    if let Step::Stop = self.offer_if_known(leaf.bytenr(), &place, judge) {
                        return Ok(Step::Stop);
                    }
                    note_place(found, first, data_ref, leaf.bytenr(), place)?;
                }
            }
            cursor.next()?;
        }
        Ok(Step::GoOn)
    }

    /// Offers a place at once if the trees of its leaf are known.
    fn offer_if_known(&mut self, leaf: u64, place: &Candidate, judge: &mut dyn Candidates) -> Step {
        if let Some(roots) = self.cache.get(leaf) {
            for root in roots.as_slice() {
                if judge.offer(*root, place) {
                    return Step::Stop;
                }
            }
        }
        Step::GoOn
    }

    /// Joins what several references say of the same leaf, and offers all places.
    fn offer_all(&mut self, found: KVec<Found>, judge: &mut dyn Candidates) -> Result {
        let mut leaves: KVec<(u64, KVec<Candidate>)> = KVec::new();
        for mut entry in found {
            let mut places = match entry.places.take() {
                Some(places) => places,
                None => {
                    let mut places = KVec::new();
                    if let Step::Stop = self.search_leaf(entry.leaf, &mut places, judge)? {
                        return Ok(());
                    }
                    places
                }
            };
            match leaves.iter_mut().find(|(leaf, _)| *leaf == entry.leaf) {
                Some((_, known)) => known.extend_from_slice(&places, GFP_KERNEL)?,
                None => leaves.push((entry.leaf, core::mem::take(&mut places)), GFP_KERNEL)?,
            }
        }
        for (leaf, places) in leaves.iter() {
            let known = self.cache.get(*leaf);
            let searched;
            let roots = match &known {
                Some(roots) => roots.as_slice(),
                None => {
                    searched = roots_of(self.reader, *leaf)?;
                    let wanted = searched.iter().copied().filter(|root| judge.wants(*root));
                    self.cache.put(*leaf, wanted)?;
                    &searched
                }
            };
            for root in roots {
                for place in places.iter() {
                    if judge.offer(*root, place) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Finds the places in a leaf that is referred to by its address.
    fn search_leaf(
        &mut self,
        leaf: u64,
        places: &mut KVec<Candidate>,
        judge: &mut dyn Candidates,
    ) -> Result<Step> {
        let node = self.reader.node(&block(leaf, 0))?;
        for slot in 0..node.nritems() as usize {
            let Some((key, data)) = node.item(slot) else {
                break;
            };
            if key.typ != item_type::EXTENT_DATA {
                continue;
            }
            let place = SharedItem::parse(data, self.bytenr)?
                .and_then(|item| item.place(&key, self.position));
            if let Some(place) = place {
                if let Step::Stop = self.offer_if_known(leaf, &place, judge) {
                    return Ok(Step::Stop);
                }
                places.push(place, GFP_KERNEL)?;
            }
        }
        places.reverse();
        Ok(Step::GoOn)
    }
}

/// Adds a place to the leaf it is in, among what was found from `first` on.
fn note_place(
    found: &mut KVec<Found>,
    first: usize,
    by: &DataRef,
    leaf: u64,
    place: Candidate,
) -> Result {
    let mine = found.get_mut(first..).ok_or(EINVAL)?;
    if let Some(entry) = mine.iter_mut().find(|entry| entry.leaf == leaf) {
        if let Some(places) = &mut entry.places {
            places.push(place, GFP_KERNEL)?;
        }
        return Ok(());
    }
    let mut places = KVec::new();
    places.push(place, GFP_KERNEL)?;
    let entry = Found {
        by: (by.root, by.ino, by.offset),
        leaf,
        places: Some(places),
    };
    found.push(entry, GFP_KERNEL)?;
    Ok(())
}

/// A file extent item that refers to the extent.
struct SharedItem {
    /// Where in the extent the file's part starts, in bytes.
    offset: u64,
    num_bytes: u64,
    plain: bool,
}

impl SharedItem {
    /// The item, if it refers to the extent at `bytenr`.
    fn parse(data: &[u8], bytenr: u64) -> Result<Option<SharedItem>> {
        let item = FileExtent::read(data)?.in_extent_at(bytenr);
        Ok(item.map(|item| SharedItem {
            offset: item.offset.get(),
            num_bytes: item.num_bytes.get(),
            plain: !item.head.is_encoded(),
        }))
    }

    /// The place, if it has the byte of the extent at `position`.
    fn place(&self, key: &Key, position: u64) -> Option<Candidate> {
        let mut offset = key.offset;
        if self.plain {
            let into = position.checked_sub(self.offset)?;
            if into >= self.num_bytes {
                return None;
            }
            offset = offset.wrapping_add(into);
        }
        Some(Candidate {
            ino: key.objectid,
            offset,
            num_bytes: self.num_bytes,
        })
    }
}

/// Moves to the first item of the leaf after the cursor's.
fn next_leaf(cursor: &mut Cursor<'_, Reader>) -> Result<bool> {
    let last = cursor.node_at(0).and_then(|leaf| leaf.last_key());
    let Some(next) = last.and_then(|last| last.successor()) else {
        return Ok(false);
    };
    cursor.seek(&next)?;
    Ok(cursor.item().is_some())
}

/// The root of a tree, if the tree exists.
fn tree(reader: &Reader, id: u64) -> Result<Option<TreeRoot>> {
    match reader.root(id) {
        Ok(root) => Ok(Some(root)),
        Err(error) if error == ENOENT => Ok(None),
        Err(error) => Err(error),
    }
}

/// A tree block of which only address and level are known.
fn block(bytenr: u64, level: u8) -> NodePtr {
    NodePtr {
        bytenr,
        generation: 0,
        level,
        tree: 0,
        first_key: None,
    }
}

/// The trees that the leaf at `leaf` belongs to, in the order in which the C driver comes upon
/// them: level by level up, at each block its references by tree before those by parent, larger
/// numbers first.
pub(crate) fn roots_of(reader: &Reader, leaf: u64) -> Result<KVec<u64>> {
    let mut up = Ancestors {
        roots: KVec::new(),
        seen_roots: NumberSet::new(),
        blocks: KVec::new(),
        seen_blocks: NumberSet::new(),
    };
    let extent_root = reader.root(tree_id::EXTENT)?;
    let mut at = leaf;
    let mut next = 0usize;
    loop {
        up.climb(reader, extent_root, at)?;
        let Some(block) = up.blocks.get(next) else {
            return Ok(up.roots);
        };
        at = *block;
        next = next.saturating_add(1);
        crate::platform::yield_now();
    }
}

struct Ancestors {
    roots: KVec<u64>,
    seen_roots: NumberSet,
    blocks: KVec<u64>,
    seen_blocks: NumberSet,
}

impl Ancestors {
    fn add_root(&mut self, root: u64) -> Result {
        if self.seen_roots.insert(root)? {
            self.roots.push(root, GFP_KERNEL)?;
        }
        Ok(())
    }

    fn add_block(&mut self, block: u64) -> Result {
        if self.seen_blocks.insert(block)? {
            self.blocks.push(block, GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Adds the blocks above `bytenr`, or the trees whose root it is.
    fn climb(&mut self, reader: &Reader, extent_root: TreeRoot, bytenr: u64) -> Result {
        let fs = reader.fs();
        let Some(extent) = find_extent(fs, reader, extent_root, bytenr)? else {
            return Ok(());
        };
        let Some(level) = extent.level() else {
            return Err(EUCLEAN);
        };
        if extent.record.refs > MAX_REFS {
            return Ok(());
        }
        let mut trees = KVec::new();
        let mut parents = KVec::new();
        for counted in all_refs(fs, reader, extent_root, &extent)?.iter() {
            match counted.kind {
                RefKind::TreeBlock { root } => trees.push(root, GFP_KERNEL)?,
                RefKind::SharedBlock { parent } => parents.push(parent, GFP_KERNEL)?,
                _ => return Err(EUCLEAN),
            }
        }
        sort_by(&mut trees, |a, b| b.cmp(a));
        sort_by(&mut parents, |a, b| b.cmp(a));
        if !trees.is_empty() {
            let node = reader.node(&block(bytenr, level))?;
            let key = node.key(0).ok_or(EUCLEAN)?;
            for id in trees.iter().filter(|id| **id != tree_id::DATA_RELOC) {
                match tree(reader, *id)? {
                    Some(root) if root.level != level => {
                        let mut cursor = reader.cursor(root);
                        cursor.seek(&key)?;
                        let above = level.saturating_add(1).min(root.level);
                        let parent = cursor.node_at(above).ok_or(EUCLEAN)?;
                        self.add_block(parent.bytenr())?;
                    }
                    _ => self.add_root(*id)?,
                }
            }
        }
        for parent in parents.iter() {
            self.add_block(*parent)?;
        }
        Ok(())
    }
}
