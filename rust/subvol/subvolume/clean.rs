// SPDX-License-Identifier: GPL-2.0
//! The cleaner: drops the trees of deleted subvolumes, a few blocks at a time.
//!
//! A tree is walked from its first key to its last. Blocks that no other tree holds go with all
//! that they refer to; of the others only the tree's own reference goes. Those that came from this
//! very tree name it in the references to their children, and would name something that is not
//! there; so those references are made to name the block itself ("full back references") before the
//! tree lets go of it.
//!
//! How far it got is in the root item after every operation: the walk goes on from there, after a
//! new mount as well.

use crate::extent::refs::RefKind;
use crate::format::extent::FLAG_FULL_BACKREF;
use crate::format::header::MAX_LEVEL;
use crate::format::root::RootItem;
use crate::format::{tree_id, Key};
use crate::subvol::write::{next_orphan, remove_orphan, InodeId, FREEING};
use crate::trans::{Transaction, View};
use crate::tree::{EditContext, Node, NodePtr, Nodes};
use crate::volume::Fs;
use kernel::prelude::*;
use kernel::sync::Arc;

/// How many blocks one operation looks at.
const STEP: usize = 128;

/// Drops the trees of all deleted subvolumes, in many operations, until `stop` says so. `claim` is
/// asked before each: whether nobody has anything in it open, nor will have; a tree that is in use
/// stays. Returns whether all others are gone.
///
/// # Errors
///
/// Those of reading and of changing trees; `EROFS`.
pub fn clean_subvolumes(
    fs: &Fs,
    claim: &dyn Fn(u64) -> bool,
    stop: &dyn Fn() -> bool,
) -> Result<bool> {
    let mut from = 0;
    loop {
        let (found, generation) = {
            let view = fs.running_view(tree_id::ROOT)?;
            let root = view.tree_root(tree_id::ROOT)?;
            let found = next_orphan(&view, root, from)?;
            let generation = match found {
                Some(tree) => view.tree_root(tree).map(|root| root.generation),
                None => Ok(0),
            };
            (found, generation)
        };
        let Some(tree) = found else {
            return Ok(true);
        };
        match generation {
            // What is dropped must be what was committed: nobody changes that.
            Ok(_) if !claim(tree) => (),
            Ok(generation) => {
                fs.commit_as_is(generation)?;
                if !drop_tree(fs, tree, stop)? {
                    return Ok(false);
                }
            }
            Err(e) if e == ENOENT => {
                fs.operate(FREEING, |trans| remove_orphan(trans, orphan(tree)))?
            }
            Err(e) => return Err(e),
        }
        let Some(next) = tree.checked_add(1) else {
            return Ok(true);
        };
        from = next;
    }
}

fn orphan(tree: u64) -> InodeId {
    InodeId {
        tree: tree_id::ROOT,
        ino: tree,
    }
}

/// Drops a tree. Returns whether it is gone.
fn drop_tree(fs: &Fs, tree: u64, stop: &dyn Fn() -> bool) -> Result<bool> {
    loop {
        if stop() {
            return Ok(false);
        }
        let done = fs.operate(FREEING, |trans| {
            let item = trans.root_item(tree)?;
            if !item.is_dead() {
                // An orphan item of a subvolume in use: all that is wrong is the item.
                remove_orphan(trans, orphan(tree))?;
                return Ok(true);
            }
            Walk::start(trans, tree, &item)?.run()
        })?;
        if done {
            return Ok(true);
        }
        crate::platform::yield_now();
    }
}

/// A block on the way from the root to where the walk is.
struct Step {
    node: Arc<Node>,
    /// The next child.
    slot: usize,
    /// It refers to its children by its own address.
    full: bool,
}

struct Walk<'t, 'fs> {
    trans: &'t mut Transaction<'fs>,
    tree: u64,
    /// Blocks of this generation and older ones never named this tree.
    origin: u64,
    /// From the root down.
    path: KVec<Step>,
    /// How many blocks may still be looked at.
    budget: usize,
}

impl<'t, 'fs> Walk<'t, 'fs> {
    /// Goes to where the last operation ended.
    fn start(trans: &'t mut Transaction<'fs>, tree: u64, item: &RootItem) -> Result<Self> {
        let origin = trans.root_key(tree)?.offset;
        let root = EditContext::root(trans, tree)?;
        let mut walk = Walk {
            trans,
            tree,
            origin,
            path: KVec::with_capacity(MAX_LEVEL as usize, GFP_KERNEL)?,
            budget: STEP,
        };
        let mut ptr = NodePtr::from(root);
        let progress = Key::from(item.drop_progress);
        loop {
            let slot = walk.enter(&ptr)?;
            if progress == Key::MIN || ptr.level == 0 {
                break;
            }
            let node = slot.node.clone();
            slot.slot = node.child_slot(&progress);
            if ptr.level <= item.drop_level {
                break;
            }
            ptr = node.child_ptr(slot.slot, tree).ok_or(EUCLEAN)?;
        }
        Ok(walk)
    }

    /// Steps down to a block that this tree alone holds.
    fn enter(&mut self, ptr: &NodePtr) -> Result<&mut Step> {
        let node = self.trans.base().node(ptr)?;
        let info = self.trans.extent_info(ptr.bytenr)?;
        let step = Step {
            node,
            slot: 0,
            full: info.flags & FLAG_FULL_BACKREF != 0,
        };
        self.path.push(step, GFP_KERNEL)?;
        self.path.last_mut().ok_or(EINVAL)
    }

    /// Drops blocks until there are no more, or enough for one operation. Returns whether the tree
    /// is gone.
    fn run(&mut self) -> Result<bool> {
        let root = EditContext::root(self.trans, self.tree)?;
        let info = self.trans.extent_info(root.bytenr)?;
        if info.refs != 1 {
            crate::fs_err!(
                self.trans,
                "root block {} of deleted tree {} has {} references",
                root.bytenr,
                self.tree,
                info.refs
            );
            return Err(EUCLEAN);
        }
        while let Some(step) = self.path.last() {
            let (node, slot) = (step.node.clone(), step.slot);
            if node.is_leaf() || slot >= node.nritems() as usize {
                self.leave()?;
                continue;
            }
            if self.budget == 0 {
                let (key, level) = (node.key(slot).ok_or(EUCLEAN)?, node.level());
                self.save(&key, level)?;
                return Ok(false);
            }
            self.budget = self.budget.saturating_sub(1);
            let child = node.child_ptr(slot, self.tree).ok_or(EUCLEAN)?;
            self.visit(&child)?;
        }
        self.trans.remove_root(self.tree)?;
        remove_orphan(self.trans, orphan(self.tree))?;
        Ok(true)
    }

    /// Goes into a block that this tree alone holds, or lets go of one that others hold as well.
    fn visit(&mut self, child: &NodePtr) -> Result {
        let info = self.trans.extent_info(child.bytenr)?;
        if info.refs == 1 {
            self.enter(child)?;
            return Ok(());
        }
        if info.refs == 0 {
            crate::fs_err!(
                self.trans,
                "tree block {} of deleted tree {} has no references",
                child.bytenr,
                self.tree
            );
            return Err(EUCLEAN);
        }
        if info.flags & FLAG_FULL_BACKREF == 0 && !self.convert(child)? {
            // Enough for this operation: the next one begins with this block again.
            self.budget = 0;
            return Ok(());
        }
        self.let_go(child.bytenr)
    }

    /// Gives up the reference that the last block of the path, or the root item, has to `bytenr`,
    /// and steps on.
    fn let_go(&mut self, bytenr: u64) -> Result {
        let nodesize = u64::from(self.trans.geometry().nodesize);
        let mut kind = RefKind::TreeBlock { root: self.tree };
        if let Some(parent) = self.path.last_mut() {
            if parent.full {
                kind = RefKind::SharedBlock {
                    parent: parent.node.bytenr(),
                };
            }
            parent.slot = parent.slot.saturating_add(1);
        }
        self.trans.add_ref(bytenr, nodesize, kind, -1)
    }

    /// Drops the last block of the path, whose children are gone.
    fn leave(&mut self) -> Result {
        let step = self.path.pop().ok_or(EINVAL)?;
        if step.node.is_leaf() {
            self.trans.dec_refs(&step.node, step.full)?;
        }
        self.let_go(step.node.bytenr())
    }

    fn save(&mut self, key: &Key, level: u8) -> Result {
        let key = (*key).into();
        self.trans.update_root_item(self.tree, |item| {
            item.drop_progress = key;
            item.drop_level = level;
            Ok(())
        })
    }

    /// Makes the blocks below and at `top` that name this tree in the references to their children
    /// name themselves. Children come first, so that what is below a block that was done is done.
    /// Returns whether all are.
    fn convert(&mut self, top: &NodePtr) -> Result<bool> {
        let nodesize = u64::from(self.trans.geometry().nodesize);
        let mut path: KVec<(Arc<Node>, usize)> = KVec::new();
        let mut next = Some(*top);
        loop {
            if let Some(ptr) = next.take() {
                if self.needs_conversion(&ptr)? {
                    if self.budget == 0 {
                        return Ok(false);
                    }
                    self.budget = self.budget.saturating_sub(1);
                    let node = self.trans.base().node(&ptr)?;
                    if node.owner() == self.tree {
                        path.push((node, 0), GFP_KERNEL)?;
                    }
                }
            }
            let Some((node, slot)) = path.last_mut() else {
                return Ok(true);
            };
            if !node.is_leaf() && *slot < node.nritems() as usize {
                next = Some(node.child_ptr(*slot, self.tree).ok_or(EUCLEAN)?);
                *slot = slot.saturating_add(1);
                continue;
            }
            if let Some((node, _)) = path.pop() {
                self.trans.inc_refs(&node, true)?;
                self.trans.dec_refs(&node, false)?;
                self.trans
                    .refs()
                    .set_flags(node.bytenr(), nodesize, FLAG_FULL_BACKREF)?;
            }
        }
    }

    /// Whether a block may name this tree in its references.
    fn needs_conversion(&self, ptr: &NodePtr) -> Result<bool> {
        if ptr.generation <= self.origin {
            return Ok(false);
        }
        let info = self.trans.extent_info(ptr.bytenr)?;
        Ok(info.flags & FLAG_FULL_BACKREF == 0)
    }
}
