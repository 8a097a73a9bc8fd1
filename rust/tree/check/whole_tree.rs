// SPDX-License-Identifier: GPL-2.0
//! The check of a whole tree, for tests and for `rbtrfs check-nodes`.
//!
//! Reading a node proves the node by itself. This check proves what spans nodes: that every pointer
//! says of its child what the child says of itself, that keys ascend across leaves, and that
//! nothing is younger than the transaction. It also repeats the layout checks, for blocks that were
//! never read because the running transaction built them.

use crate::format::header::{HEADER_SIZE, ITEM_SIZE, KEY_PTR_SIZE, MAX_LEVEL};
use crate::format::Key;
use crate::tree::edit::read_node;
use crate::tree::leaf_mut::item_head;
use crate::tree::node::{Node, NodePtr, Nodes, TreeRoot};
use core::fmt;
use kernel::prelude::*;

/// What a tree consists of, and how much of it is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Interior nodes visited.
    pub nodes: u64,
    /// Leaves visited.
    pub leaves: u64,
    /// Items in them.
    pub items: u64,
    /// Problems reported. The subtree below a problem is not visited.
    pub problems: u64,
}

/// A fault found in a tree.
#[derive(Clone, Copy, Debug)]
pub struct Problem {
    /// The tree.
    pub tree: u64,
    /// The logical address of the block at fault.
    pub bytenr: u64,
    /// Its level as its parent has it.
    pub level: u8,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a block.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It cannot be read, or is not the block that its parent points to.
    Unreadable(Error),
    /// It is younger than the transaction.
    FromTheFuture {
        /// The generation of the transaction.
        expected: u64,
        /// That of the block.
        found: u64,
    },
    /// Its generation is not the one in its pointer.
    Generation {
        /// The generation in the pointer.
        expected: u64,
        /// That of the block.
        found: u64,
    },
    /// Its first key is not the one in its pointer.
    FirstKey {
        /// The key in the pointer.
        expected: Key,
        /// The block's first key.
        found: Option<Key>,
    },
    /// Its keys do not ascend.
    Order {
        /// Where: the key in this slot is not above the one before.
        slot: usize,
        /// The key there.
        found: Key,
    },
    /// Its last key is not below the first key to its right.
    Overlap {
        /// The key to the right.
        bound: Key,
        /// The last key.
        found: Key,
    },
    /// An item's data is not where it must be.
    ItemBounds {
        /// The item.
        slot: usize,
    },
    /// It holds nothing and is not an only leaf.
    Empty,
    /// It claims more entries than fit.
    TooMany {
        /// The number of entries.
        found: u32,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem {
            tree,
            bytenr,
            level,
            fault,
        } = self;
        write!(f, "tree {tree} block {bytenr} level {level}: ")?;
        match fault {
            Fault::Unreadable(e) => write!(f, "cannot be read, error {}", e.to_errno()),
            Fault::FromTheFuture { expected, found } => {
                write!(f, "generation {found} is above the volume's, {expected}")
            }
            Fault::Generation { expected, found } => {
                write!(f, "bad generation, expected {expected} found {found}")
            }
            Fault::FirstKey { expected, found } => {
                write!(f, "bad first key, expected {expected} found ")?;
                match found {
                    Some(key) => write!(f, "{key}"),
                    None => write!(f, "none"),
                }
            }
            Fault::Order { slot, found } => {
                write!(
                    f,
                    "bad key order, key {found} in slot {slot} is not above the one before"
                )
            }
            Fault::Overlap { bound, found } => {
                write!(
                    f,
                    "bad key order, last key {found} is not below {bound} to the right"
                )
            }
            Fault::ItemBounds { slot } => write!(f, "bad item bounds in slot {slot}"),
            Fault::Empty => write!(f, "no entries"),
            Fault::TooMany { found } => write!(f, "{found} entries do not fit"),
        }
    }
}

/// A node on the way to the block in hand.
struct Frame<R> {
    node: R,
    slot: usize,
    /// The first key to the right of all that is below.
    bound: Option<Key>,
}

/// Visits every block of the tree at `root` and hands every fault to `report`. `transid` is the
/// generation of the volume, or of the transaction that is running.
///
/// # Errors
///
/// `ENOMEM`. Blocks that cannot be read are faults, not errors.
pub fn check_tree<N: Nodes>(
    nodes: &N,
    root: TreeRoot,
    transid: u64,
    report: &mut dyn FnMut(&Problem),
) -> Result<Summary> {
    let mut summary = Summary::default();
    let mut stack: KVec<Frame<N::Ref<'_>>> =
        KVec::with_capacity(usize::from(MAX_LEVEL), GFP_KERNEL)?;
    let mut next: Option<(NodePtr, Option<Key>)> = Some((root.into(), None));
    loop {
        if let Some((ptr, bound)) = next.take() {
            let is_root = stack.is_empty();
            match visit(nodes, &ptr, bound, is_root, transid) {
                Ok(node) if node.is_leaf() => {
                    summary.leaves = summary.leaves.saturating_add(1);
                    summary.items = summary.items.saturating_add(u64::from(node.nritems()));
                }
                Ok(node) => {
                    summary.nodes = summary.nodes.saturating_add(1);
                    stack.push(
                        Frame {
                            node,
                            slot: 0,
                            bound,
                        },
                        GFP_KERNEL,
                    )?;
                }
                Err(fault) => {
                    summary.problems = summary.problems.saturating_add(1);
                    report(&Problem {
                        tree: root.id,
                        bytenr: ptr.bytenr,
                        level: ptr.level,
                        fault,
                    });
                }
            }
        }
        let Some(frame) = stack.last_mut() else {
            return Ok(summary);
        };
        match frame.node.child_ptr(frame.slot, root.id) {
            Some(ptr) => {
                frame.slot = frame.slot.saturating_add(1);
                next = Some((ptr, frame.node.key(frame.slot).or(frame.bound)));
            }
            None => {
                stack.pop();
            }
        }
    }
}

/// Reads a block and holds it against its pointer and against the first key to its right.
fn visit<'n, N: Nodes>(
    nodes: &'n N,
    ptr: &NodePtr,
    bound: Option<Key>,
    is_root: bool,
    transid: u64,
) -> core::result::Result<N::Ref<'n>, Fault> {
    let node = read_node(nodes, ptr).map_err(Fault::Unreadable)?;
    let found = node.generation();
    if found > transid {
        return Err(Fault::FromTheFuture {
            expected: transid,
            found,
        });
    }
    if found != ptr.generation {
        return Err(Fault::Generation {
            expected: ptr.generation,
            found,
        });
    }
    if node.nritems() == 0 && !(is_root && node.is_leaf()) {
        return Err(Fault::Empty);
    }
    if let Some(expected) = ptr.first_key {
        let found = node.key(0);
        if found != Some(expected) {
            return Err(Fault::FirstKey { expected, found });
        }
    }
    check_layout(&node)?;
    if let (Some(bound), Some(found)) = (bound, check_order(&node)?) {
        if found >= bound {
            return Err(Fault::Overlap { bound, found });
        }
    }
    Ok(node)
}

/// Checks that the entries fit, and that the data of a leaf's items is packed behind them.
fn check_layout(node: &Node) -> core::result::Result<(), Fault> {
    let capacity = node.bytes().len().saturating_sub(HEADER_SIZE);
    let entry = if node.is_leaf() {
        ITEM_SIZE
    } else {
        KEY_PTR_SIZE
    };
    let found = node.nritems();
    let heads = (found as usize).saturating_mul(entry);
    if heads > capacity {
        return Err(Fault::TooMany { found });
    }
    if !node.is_leaf() {
        return Ok(());
    }
    let mut end = capacity;
    for slot in 0..found as usize {
        let item = item_head(node, slot).map_err(|_| Fault::ItemBounds { slot })?;
        let start = item.offset.get() as usize;
        if start.checked_add(item.size.get() as usize) != Some(end) || start < heads {
            return Err(Fault::ItemBounds { slot });
        }
        end = start;
    }
    Ok(())
}

/// Checks that the keys ascend and returns the last one.
fn check_order(node: &Node) -> core::result::Result<Option<Key>, Fault> {
    let mut before: Option<Key> = None;
    for slot in 0..node.nritems() as usize {
        if let Some(found) = node.key(slot) {
            if before.is_some_and(|before| found <= before) {
                return Err(Fault::Order { slot, found });
            }
            before = Some(found);
        }
    }
    Ok(before)
}
