// SPDX-License-Identifier: GPL-2.0
//! A place in a tree, and the ways to move it.
//!
//! A walk ends whatever the nodes hold: each step down leads one level down, which the pointer
//! demands of the child, and the keys of a child must lie within the range that its ancestors give
//! it, so that no step to a neighbour can lead back.

use super::node::{Node, NodePtr, Nodes, TreeRoot};
use crate::device::apart;
use crate::format::header::MAX_LEVEL;
use crate::format::Key;
use core::mem::MaybeUninit;
use core::ops::Deref;
use kernel::prelude::*;

/// How many siblings a cursor that reads ahead asks for at once.
const READAHEAD: usize = 16;

struct Step<R> {
    node: R,
    slot: usize,
}

/// By level; filled from the leaf to the root, or not at all.
type CursorPath<R> = [Option<Step<R>>; MAX_LEVEL as usize];

/// Where a cursor is, without what it reads from: nodes in memory, which stay what they are for as
/// long as they are held. What they point to is read only through a cursor, of a commit in which it
/// is still there.
pub struct Place<R> {
    /// The nodes of the way, which are too much for the stacks of those who use cursors. Made by
    /// the first search.
    path: Option<KBox<CursorPath<R>>>,
    readahead: bool,
    /// Below the leaves' parents, up to which slot siblings were asked for.
    prefetched: usize,
}

impl<R: Deref<Target = Node>> Place<R> {
    /// No place.
    pub const fn nowhere() -> Self {
        Self {
            path: None,
            readahead: false,
            prefetched: 0,
        }
    }

    /// Reads leaves ahead while the cursor moves on: for walks over much of a tree.
    pub fn with_readahead(mut self) -> Self {
        self.readahead = true;
        self
    }

    /// The item here.
    pub fn item(&self) -> Option<(Key, &[u8])> {
        let step = self.step(0)?;
        step.node.item(step.slot)
    }

    /// The key of the item here.
    pub fn key(&self) -> Option<Key> {
        let step = self.step(0)?;
        step.node.key(step.slot)
    }

    /// The node of the path at `level`.
    pub fn node_at(&self, level: u8) -> Option<&R> {
        self.step(level).map(|step| &step.node)
    }

    /// The slot of the path at `level`: that of the item in the leaf, and of the child on the way
    /// to it above.
    pub fn slot_at(&self, level: u8) -> usize {
        self.step(level).map_or(0, |step| step.slot)
    }

    /// Moves to the next item if the leaf has one. Returns whether it has.
    pub fn next_in_leaf(&mut self) -> bool {
        let Some(step) = self.step_mut(0) else {
            return false;
        };
        let entries = step.node.nritems() as usize;
        step.slot = step.slot.saturating_add(1).min(entries);
        step.slot < entries
    }

    fn step(&self, level: u8) -> Option<&Step<R>> {
        self.path.as_ref()?.get(usize::from(level))?.as_ref()
    }

    fn step_mut(&mut self, level: u8) -> Option<&mut Step<R>> {
        self.path.as_mut()?.get_mut(usize::from(level))?.as_mut()
    }

    fn clear(&mut self) {
        for step in self.path.iter_mut().flat_map(|path| path.iter_mut()) {
            *step = None;
        }
        self.prefetched = 0;
    }
}

/// A place among the items of a tree.
///
/// A new cursor is nowhere. [`Cursor::seek`] leaves it at an item or after the last one; where an
/// operation fails, or finds nothing in its direction, the cursor is at no item and
/// [`Cursor::item`] returns `None`.
pub struct Cursor<'s, S: Nodes> {
    source: &'s S,
    root: TreeRoot,
    place: Place<S::Ref<'s>>,
}

impl<'s, S: Nodes> Cursor<'s, S> {
    /// A cursor over the tree at `root`.
    pub fn new(source: &'s S, root: TreeRoot) -> Self {
        Self::at(source, root, Place::nowhere())
    }

    /// A cursor that goes on from a place, to which `root` leads.
    pub fn at(source: &'s S, root: TreeRoot, place: Place<S::Ref<'s>>) -> Self {
        Self {
            source,
            root,
            place,
        }
    }

    /// Where the cursor is.
    pub fn into_place(self) -> Place<S::Ref<'s>> {
        self.place
    }

    /// Reads leaves ahead while the cursor moves on: for walks over much of a tree.
    pub fn with_readahead(mut self) -> Self {
        self.place.readahead = true;
        self
    }

    /// The root that the cursor walks from.
    pub fn root(&self) -> TreeRoot {
        self.root
    }

    /// Moves to the first item whose key is not below `key`, or after the last item. Returns
    /// whether the item's key is `key`.
    ///
    /// # Errors
    ///
    /// What reading nodes gives, and `EUCLEAN` for a tree that is out of order.
    pub fn seek(&mut self, key: &Key) -> Result<bool> {
        let exact = self.find(key)?;
        if !exact && self.place.item().is_none() {
            self.next_leaf()?;
        }
        Ok(exact)
    }

    /// Moves to the last item whose key is not above `key`. Returns whether there is one.
    ///
    /// # Errors
    ///
    /// As [`Self::seek`].
    pub fn seek_before(&mut self, key: &Key) -> Result<bool> {
        if self.find(key)? {
            return Ok(true);
        }
        // The slot is that of the first larger key of the leaf, so what is sought is one item back.
        self.prev()
    }

    /// The item that the cursor is at.
    pub fn item(&self) -> Option<(Key, &[u8])> {
        self.place.item()
    }

    /// The key of the item that the cursor is at.
    pub fn key(&self) -> Option<Key> {
        self.place.key()
    }

    /// Moves to the next item. Returns whether there is one; if not, the cursor is after the last
    /// item.
    ///
    /// # Errors
    ///
    /// As [`Self::seek`].
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<bool> {
        if self.place.next_in_leaf() {
            return Ok(true);
        }
        if self.step(0).is_none() {
            return Ok(false);
        }
        self.next_leaf()
    }

    /// Moves to the item before. Returns whether there is one; if not, the cursor is nowhere.
    ///
    /// # Errors
    ///
    /// As [`Self::seek`].
    pub fn prev(&mut self) -> Result<bool> {
        let Some(step) = self.step_mut(0) else {
            return Ok(false);
        };
        if let Some(slot) = step.slot.checked_sub(1) {
            step.slot = slot;
            return Ok(true);
        }
        self.prev_leaf()
    }

    /// The node of the path at `level`.
    pub fn node_at(&self, level: u8) -> Option<&Node> {
        self.step(level).map(|step| &*step.node)
    }

    /// The slot of the path at `level`: that of the item in the leaf, and of the child on the way
    /// to it above.
    pub fn slot_at(&self, level: u8) -> usize {
        self.place.slot_at(level)
    }

    fn step(&self, level: u8) -> Option<&Step<S::Ref<'s>>> {
        self.place.step(level)
    }

    fn step_mut(&mut self, level: u8) -> Option<&mut Step<S::Ref<'s>>> {
        self.place.step_mut(level)
    }

    /// Builds the path to where `key` is or belongs, and returns whether it is there.
    fn find(&mut self, key: &Key) -> Result<bool> {
        self.place.clear();
        if self.place.path.is_none() {
            self.place.path = Some(new_path()?);
        }
        let root = self.root;
        self.descend(&root.into(), |node| node.child_slot(key))?;
        let Some(step) = self.step_mut(0) else {
            return Ok(false);
        };
        let (slot, exact) = match step.node.search(key) {
            Ok(slot) => (slot, true),
            Err(slot) => (slot, false),
        };
        step.slot = slot;
        Ok(exact)
    }

    /// Fills the path from the node at `ptr` to a leaf, by the slots that `choose` picks in
    /// interior nodes. On an error the cursor is nowhere.
    fn descend(&mut self, ptr: &NodePtr, choose: impl Fn(&Node) -> usize) -> Result {
        let mut ptr = *ptr;
        let result = loop {
            let node = match self.load(&ptr) {
                Ok(node) => node,
                Err(e) => break Err(e),
            };
            let path = self.place.path.as_mut();
            let Some(place) = path.and_then(|path| path.get_mut(usize::from(ptr.level))) else {
                break Err(EUCLEAN);
            };
            if ptr.level == 0 {
                *place = Some(Step { node, slot: 0 });
                break Ok(());
            }
            if ptr.level == 1 {
                self.place.prefetched = 0;
            }
            let slot = choose(&node);
            let child = node.child_ptr(slot, self.root.id);
            *place = Some(Step { node, slot });
            match child {
                Some(child) => ptr = child,
                None => break Err(EUCLEAN),
            }
        };
        if result.is_err() {
            self.place.clear();
        }
        result
    }

    /// Reads a node and holds its keys against the ones that its ancestors leave it. The first key
    /// is held against the pointer's when the node is read.
    fn load(&self, ptr: &NodePtr) -> Result<S::Ref<'s>> {
        let node = self.source.node(ptr)?;
        if node.level() != ptr.level {
            return Err(EUCLEAN);
        }
        if ptr.first_key.is_some() {
            if let (Some(last), Some(bound)) = (node.last_key(), self.upper_bound(ptr.level)) {
                if last >= bound {
                    apart(|| {
                        self.source.report(format_args!(
                            "bad key order in tree {} block {}, last key {} is not below {} to its right",
                            self.root.id,
                            ptr.bytenr,
                            last,
                            bound
                        ))
                    });
                    return Err(EUCLEAN);
                }
            }
        }
        Ok(node)
    }

    /// The first key to the right of the child that the path points to from above `level`.
    fn upper_bound(&self, level: u8) -> Option<Key> {
        (level.saturating_add(1)..MAX_LEVEL)
            .filter_map(|level| self.step(level))
            .find_map(|step| step.node.key(step.slot.checked_add(1)?))
    }

    /// Moves from after the last item of a leaf to the first item of the next leaf that has one.
    fn next_leaf(&mut self) -> Result<bool> {
        loop {
            let mut found = None;
            for level in 1..MAX_LEVEL {
                let tree = self.root.id;
                let Some(step) = self.step_mut(level) else {
                    break;
                };
                let Some(slot) = step.slot.checked_add(1) else {
                    break;
                };
                if let Some(child) = step.node.child_ptr(slot, tree) {
                    step.slot = slot;
                    found = Some((level, slot, child));
                    break;
                }
            }
            // Behind the last leaf the path stays, so that the cursor can turn back.
            let Some((level, slot, child)) = found else {
                return Ok(false);
            };
            if level == 1 {
                self.read_ahead(slot);
            }
            self.descend(&child, |_| 0)?;
            if self.place.item().is_some() {
                return Ok(true);
            }
        }
    }

    /// Moves from the first item of a leaf to the last item of the leaf before that has one.
    fn prev_leaf(&mut self) -> Result<bool> {
        loop {
            let mut found = None;
            for level in 1..MAX_LEVEL {
                let tree = self.root.id;
                let Some(step) = self.step_mut(level) else {
                    break;
                };
                let Some(slot) = step.slot.checked_sub(1) else {
                    continue;
                };
                step.slot = slot;
                found = step.node.child_ptr(slot, tree);
                break;
            }
            let Some(child) = found else {
                self.place.clear();
                return Ok(false);
            };
            self.descend(&child, |node| (node.nritems() as usize).saturating_sub(1))?;
            let Some(step) = self.step_mut(0) else {
                return Ok(false);
            };
            if let Some(last) = (step.node.nritems() as usize).checked_sub(1) {
                step.slot = last;
                return Ok(true);
            }
        }
    }

    /// Asks for the siblings from `slot` on, unless that was done before.
    fn read_ahead(&mut self, slot: usize) {
        if !self.place.readahead || slot < self.place.prefetched {
            return;
        }
        // Reading ahead may fail, reading will not.
        let Ok(mut ptrs) = KVec::with_capacity(READAHEAD, GFP_KERNEL) else {
            return;
        };
        let end = slot.saturating_add(READAHEAD);
        if let Some(step) = self.step(1) {
            for slot in slot..end {
                let Some(ptr) = step.node.child_ptr(slot, self.root.id) else {
                    break;
                };
                if ptrs.push_within_capacity(ptr).is_err() {
                    break;
                }
            }
        }
        self.source.prefetch(&ptrs);
        self.place.prefetched = end;
    }
}

fn new_path<R>() -> Result<KBox<CursorPath<R>>> {
    let path = KBox::new_uninit(GFP_KERNEL)?;
    Ok(fill(path))
}

/// Apart from the allocation, under which this would take up stack.
#[inline(never)]
fn fill<R>(path: KBox<MaybeUninit<CursorPath<R>>>) -> KBox<CursorPath<R>> {
    KBox::write(path, [const { None }; MAX_LEVEL as usize])
}
