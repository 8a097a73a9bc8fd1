// SPDX-License-Identifier: GPL-2.0
//! What differs between two snapshots: a walk over both trees at once, which passes by what they
//! share.
//!
//! A block that both trees have at the same place, by address and generation, is the same with all
//! below it. Which of the items that are equal are come upon all the same depends on how the blocks
//! of the two trees lie against each other, and some of these items matter to the stream; the steps
//! are therefore those of the C driver.

use super::cursor::Here;
use super::read_ahead::{self, Row};
use crate::format::header::MAX_LEVEL;
use crate::format::Key;
use crate::platform::{fatal_signal_pending, yield_now};
use crate::trans::Reader;
use crate::tree::{Node, NodePtr, Nodes, TreeRoot};
use crate::volume::{ReadSession, Stamp};
use core::cmp::Ordering;
use kernel::prelude::*;
use kernel::sync::Arc;

/// How an item differs from the parent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The parent does not have it.
    New,
    /// Only the parent has it.
    Deleted,
    /// Both have it, with different contents.
    Changed,
    /// Both have the same, which was found out only by looking.
    Same,
}

/// A node and a slot in it, by level, from the current one to the root.
type NodePath = [Option<(Arc<Node>, usize)>; MAX_LEVEL as usize];

/// A place in one of the trees, in a leaf or above.
struct Side {
    root: TreeRoot,
    path: KBox<NodePath>,
    level: u8,
    key: Key,
    ended: bool,
}

/// The next step of a side.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Stay,
    /// Down, or on if this is a leaf.
    Into,
    /// On, by what is below.
    Past,
}

impl Side {
    fn new(reader: &Reader, tree: u64) -> Result<Self> {
        let root = reader.root(tree)?;
        let node = reader.node(&root.into())?;
        let level = node.level();
        let mut side = Side {
            root,
            path: KBox::new([const { None }; MAX_LEVEL as usize], GFP_KERNEL)?,
            level,
            key: Key::MIN,
            ended: false,
        };
        match node.key(0) {
            Some(key) => side.key = key,
            None => side.ended = true,
        }
        *side.path.get_mut(usize::from(level)).ok_or(EUCLEAN)? = Some((node, 0));
        Ok(side)
    }

    fn place(&self) -> Option<(&Arc<Node>, usize)> {
        let (node, slot) = self.path.get(usize::from(self.level))?.as_ref()?;
        Some((node, *slot))
    }

    fn step(&mut self, reader: &Reader, step: Step) -> Result {
        if self.ended {
            return Ok(());
        }
        match step {
            Step::Stay => return Ok(()),
            Step::Into if self.level > 0 => self.down(reader)?,
            _ => self.on(),
        }
        if !self.ended {
            let (node, slot) = self.place().ok_or(EUCLEAN)?;
            self.key = node.key(slot).ok_or(EUCLEAN)?;
        }
        Ok(())
    }

    /// Moves to the next slot, on this level or on the first one above that has one.
    fn on(&mut self) {
        while let Some(Some((node, slot))) = self.path.get_mut(usize::from(self.level)) {
            let next = slot.saturating_add(1);
            if next < node.nritems() as usize {
                *slot = next;
                return;
            }
            if self.level >= self.root.level {
                break;
            }
            if let Some(place) = self.path.get_mut(usize::from(self.level)) {
                *place = None;
            }
            self.level = self.level.saturating_add(1);
        }
        self.ended = true;
    }

    fn down(&mut self, reader: &Reader) -> Result {
        if fatal_signal_pending() {
            return Err(EINTR);
        }
        yield_now();
        let (node, slot) = self.place().ok_or(EUCLEAN)?;
        let ptr = node.child_ptr(slot, self.root.id).ok_or(EUCLEAN)?;
        let child = self.child(reader, &ptr, self.bound())?;
        self.level = ptr.level;
        self.put(child, 0)
    }

    /// Puts a node of the current level into the path.
    fn put(&mut self, node: Arc<Node>, slot: usize) -> Result {
        let place = self.path.get_mut(usize::from(self.level)).ok_or(EUCLEAN)?;
        *place = Some((node, slot));
        Ok(())
    }

    /// Reads a node whose keys must all be below `bound`.
    fn child(&self, reader: &Reader, ptr: &NodePtr, bound: Option<Key>) -> Result<Arc<Node>> {
        let child = reader.node(ptr)?;
        if child.level() != ptr.level {
            return Err(EUCLEAN);
        }
        // Keys that go back could make the walk go round for ever.
        if let (Some(last), Some(bound)) = (child.last_key(), bound) {
            if last >= bound {
                reader.report(format_args!(
                    "bad key order in tree {} block {}, last key {} is not below {} to its right",
                    self.root.id, ptr.bytenr, last, bound
                ));
                return Err(EUCLEAN);
            }
        }
        Ok(child)
    }

    /// Finds the same place in another commit, to which blocks were relocated: in as many levels,
    /// by its key.
    #[cold]
    #[inline(never)]
    fn seek_again(&mut self, reader: &Reader) -> Result {
        if self.ended {
            return Ok(());
        }
        let (level, key) = (self.level, self.key);
        let root = reader.root(self.root.id)?;
        if root.level != self.root.level || level > root.level {
            return Err(EUCLEAN);
        }
        self.root = root;
        self.level = root.level;
        let mut node = reader.node(&root.into())?;
        loop {
            if self.level == level {
                let slot = node.search(&key).map_err(|_| EUCLEAN)?;
                return self.put(node, slot);
            }
            let slot = node.child_slot(&key);
            let ptr = node.child_ptr(slot, root.id).ok_or(EUCLEAN)?;
            self.put(node, slot)?;
            node = self.child(reader, &ptr, self.bound())?;
            self.level = ptr.level;
        }
    }

    /// The first key to the right of everything below the current place.
    fn bound(&self) -> Option<Key> {
        self.bound_from(self.level)
    }

    /// The first key to the right of everything below the node of the path under `level`.
    fn bound_from(&self, level: u8) -> Option<Key> {
        let above = self.path.get(usize::from(level)..)?;
        above
            .iter()
            .flatten()
            .find_map(|(node, slot)| node.key(slot.checked_add(1)?))
    }

    /// Whether `step` leads down.
    fn descends(&self, step: Step) -> bool {
        step == Step::Into && !self.ended && self.level > 0
    }

    /// Moves on by `slots` in the current node, which has so many.
    fn skip(&mut self, slots: usize) {
        if let Some(Some((_, slot))) = self.path.get_mut(usize::from(self.level)) {
            *slot = slot.saturating_add(slots);
        }
    }

    /// The current node from the current place on, and the first key to the right of it; nothing at
    /// the end.
    fn row(&self) -> Result<(Row, Key)> {
        let mut row = Row::new(self.root.id);
        if self.ended {
            return Ok((row, Key::MAX));
        }
        if let Some(Some((node, slot))) = self.path.get(usize::from(self.level)) {
            row.begin(node.clone(), *slot)?;
        }
        let end = self.bound_from(self.level.saturating_add(1));
        Ok((row, end.unwrap_or(Key::MAX)))
    }
}

/// The walk over both trees.
pub(super) struct Compare<'a> {
    session: &'a ReadSession,
    /// Commits in which the addresses on both sides hold: what is shared shows only within one
    /// commit.
    stamp: Stamp,
    sent: Side,
    parent: Side,
    /// How the sides go on.
    steps: (Step, Step),
    /// Up to which key the blocks that differ were read ahead.
    ahead: Key,
}

impl<'a> Compare<'a> {
    pub(super) fn new(session: &'a ReadSession, sent: u64, parent: u64) -> Result<Self> {
        session.read(|reader| {
            Ok(Compare {
                session,
                stamp: Stamp::of_snapshots(reader),
                sent: Side::new(reader, sent)?,
                parent: Side::new(reader, parent)?,
                steps: (Step::Stay, Step::Stay),
                ahead: Key::MIN,
            })
        })
    }

    /// The item in the sent subvolume, of which there is none for [`Change::Deleted`].
    pub(super) fn sent(&self) -> Result<Here> {
        self.here(&self.sent)
    }

    /// The item in the parent, of which there is none for [`Change::New`].
    pub(super) fn parent(&self) -> Result<Here> {
        self.here(&self.parent)
    }

    fn here(&self, side: &Side) -> Result<Here> {
        let (leaf, slot) = side.place().ok_or(EUCLEAN)?;
        Ok(Here {
            leaf: leaf.clone(),
            slot,
            stamp: self.stamp,
        })
    }

    /// Moves to the next item that is in only one of the trees, or that had to be looked at.
    ///
    /// # Errors
    ///
    /// `EINTR` on a fatal signal, and what reading nodes gives.
    pub(super) fn next(&mut self) -> Result<Option<(Change, Key)>> {
        let session = self.session;
        loop {
            let found = session.read(|reader| self.step(reader))?;
            if found.is_some() || (self.sent.ended && self.parent.ended) {
                return Ok(found);
            }
            session.renew();
        }
    }

    /// One step, which may end at an item.
    fn step(&mut self, reader: &Reader) -> Result<Option<(Change, Key)>> {
        let stamp = Stamp::of_snapshots(reader);
        if stamp != self.stamp {
            self.sent.seek_again(reader)?;
            self.parent.seek_again(reader)?;
            self.stamp = stamp;
        }
        let (sent, parent) = core::mem::replace(&mut self.steps, (Step::Stay, Step::Stay));
        self.read_ahead(reader, sent, parent);
        self.sent.step(reader, sent)?;
        self.parent.step(reader, parent)?;
        self.look()
    }

    /// Before these steps: reads ahead what differs from here on, unless that was done before.
    fn read_ahead(&mut self, reader: &Reader, sent: Step, parent: Step) {
        let key = match (self.sent.descends(sent), self.parent.descends(parent)) {
            (false, false) => return,
            (true, false) => self.sent.key,
            (_, true) => self.parent.key,
        };
        // What two nodes of different levels do not share shows only further down.
        let apart = self.sent.level != self.parent.level;
        if key < self.ahead || (apart && !self.sent.ended && !self.parent.ended) {
            return;
        }
        // Without memory for it the walk reads what it needs.
        if let Ok(ahead) = self.read_differing(reader) {
            self.ahead = ahead;
        }
    }

    /// Reads ahead what differs in the current nodes and below, and answers from which key on there
    /// may be more.
    #[inline(never)]
    fn read_differing(&self, reader: &Reader) -> Result<Key> {
        let (sent, sent_end) = self.sent.row()?;
        let (parent, parent_end) = self.parent.row()?;
        read_ahead::read(reader, sent, parent, sent_end.min(parent_end))
    }

    /// Decides on the next steps from where the sides are, and returns what is there if both are in
    /// leaves.
    fn look(&mut self) -> Result<Option<(Change, Key)>> {
        let (sent, parent) = (&self.sent, &self.parent);
        let in_leaf = |side: &Side| side.level == 0;
        match (sent.ended, parent.ended) {
            (true, true) => return Ok(None),
            (true, false) => {
                self.steps = (Step::Stay, Step::Into);
                return Ok(in_leaf(parent).then_some((Change::Deleted, parent.key)));
            }
            (false, true) => {
                self.steps = (Step::Into, Step::Stay);
                return Ok(in_leaf(sent).then_some((Change::New, sent.key)));
            }
            (false, false) => {}
        }
        if sent.level != parent.level {
            self.steps = if sent.level < parent.level {
                (Step::Stay, Step::Into)
            } else {
                (Step::Into, Step::Stay)
            };
            return Ok(None);
        }
        let leaf = in_leaf(sent);
        let found = match sent.key.cmp(&parent.key) {
            Ordering::Less => {
                self.steps = (Step::Into, Step::Stay);
                (Change::New, sent.key)
            }
            Ordering::Greater => {
                let key = parent.key;
                self.steps = (Step::Stay, Step::Into);
                (Change::Deleted, key)
            }
            Ordering::Equal => {
                let key = sent.key;
                let same = if leaf {
                    self.is_same()?
                } else {
                    self.pass_shared()?
                };
                self.steps = match (leaf, same) {
                    (false, true) => (Step::Past, Step::Past),
                    _ => (Step::Into, Step::Into),
                };
                let change = if same { Change::Same } else { Change::Changed };
                (change, key)
            }
        };
        Ok(leaf.then_some(found))
    }

    /// Whether the sides, which are at the same key in leaves, have the same item there.
    fn is_same(&self) -> Result<bool> {
        let (sent, at) = self.sent.place().ok_or(EUCLEAN)?;
        let (parent, other) = self.parent.place().ok_or(EUCLEAN)?;
        match (sent.item(at), parent.item(other)) {
            (Some((_, data)), Some((_, old))) => Ok(data == old),
            _ => Err(EUCLEAN),
        }
    }

    /// Whether the sides, which are at the same key above the leaves, have the same block there. If
    /// they do, both move to the last one of those that follow and are the same as well.
    fn pass_shared(&mut self) -> Result<bool> {
        let (sent, at) = self.sent.place().ok_or(EUCLEAN)?;
        let (parent, other) = self.parent.place().ok_or(EUCLEAN)?;
        let shared = sent.shared_children(at, parent, other);
        let Some(more) = shared.checked_sub(1) else {
            return Ok(false);
        };
        self.sent.skip(more);
        self.parent.skip(more);
        Ok(true)
    }
}
