// SPDX-License-Identifier: GPL-2.0
//! A transaction in memory, for tests of what changes trees.
//!
//! [`Memory`] hands out addresses, keeps committed blocks together with a copy of their bytes, and
//! knows which blocks the tree must consist of.

use kernel::alloc::flags::GFP_KERNEL;
use kernel::alloc::KVVec;
use kernel::error::code::*;
use kernel::error::Result;
use rbtrfs_engine::format::ChecksumType;
use rbtrfs_engine::format::{BlockSize, Key};
use rbtrfs_engine::tree::check::{check_tree, Limits, Summary};
use rbtrfs_engine::tree::edit::EditContext;
use rbtrfs_engine::tree::node_buf::{NewNode, NodeBuf};
use rbtrfs_engine::tree::verify::{verify, Check};
use rbtrfs_engine::tree::{Cursor, Geometry, Node, NodePtr, Nodes, TreeRoot};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The tree that it holds.
pub const TREE: u64 = 256;

/// A committed block and the bytes it was committed with.
#[derive(Clone)]
struct Committed {
    node: Arc<Node>,
    bytes: Vec<u8>,
}

pub struct Memory {
    pub geometry: Geometry,
    pub transid: u64,
    next: u64,
    pub root: TreeRoot,
    committed_root: TreeRoot,
    dirty: HashMap<u64, NodeBuf>,
    committed: HashMap<u64, Committed>,
    /// The blocks that the tree refers to, by what was allocated, copied and freed.
    allocated: BTreeSet<u64>,
    committed_allocated: BTreeSet<u64>,
    /// The allocation of a block, and the read of a node, to fail: the n-th from now.
    pub fail_block: Cell<Option<u64>>,
    pub fail_read: Cell<Option<u64>>,
}

/// Counts down to the failure.
fn fails(countdown: &Cell<Option<u64>>) -> bool {
    match countdown.get() {
        None => false,
        Some(0) => {
            countdown.set(None);
            true
        }
        Some(n) => {
            countdown.set(Some(n - 1));
            false
        }
    }
}

impl Memory {
    /// A committed tree without items.
    pub fn new(nodesize: u32) -> Self {
        let root = TreeRoot {
            id: TREE,
            bytenr: 0,
            level: 0,
            generation: 1,
        };
        let mut memory = Memory {
            geometry: geometry(nodesize),
            transid: 1,
            next: 1 << 20,
            root,
            committed_root: root,
            dirty: HashMap::new(),
            committed: HashMap::new(),
            allocated: BTreeSet::new(),
            committed_allocated: BTreeSet::new(),
            fail_block: Cell::new(None),
            fail_read: Cell::new(None),
        };
        memory.root.bytenr = memory.alloc_node(TREE, 0).unwrap();
        memory.commit();
        memory
    }

    pub fn commit(&mut self) {
        for (bytenr, mut buf) in self.dirty.drain() {
            buf.seal(ChecksumType::Crc32c).unwrap();
            let bytes = buf.bytes().to_vec();
            let node = Arc::new(verified(&buf, &self.geometry));
            assert!(self
                .committed
                .insert(bytenr, Committed { node, bytes })
                .is_none());
        }
        self.committed_root = self.root;
        self.committed_allocated = self.allocated.clone();
        self.transid += 1;
    }

    pub fn abort(&mut self) {
        self.dirty.clear();
        self.root = self.committed_root;
        self.allocated = self.committed_allocated.clone();
    }

    /// The same committed tree, to be changed on its own.
    pub fn fork(&self) -> Memory {
        assert!(self.dirty.is_empty());
        Memory {
            dirty: HashMap::new(),
            committed: self.committed.clone(),
            allocated: self.allocated.clone(),
            committed_allocated: self.committed_allocated.clone(),
            fail_block: Cell::new(None),
            fail_read: Cell::new(None),
            ..*self
        }
    }

    fn address(&mut self) -> u64 {
        let bytenr = self.next;
        self.next += 65536;
        assert!(self.allocated.insert(bytenr));
        bytenr
    }

    fn buf(&self, bytenr: u64) -> Option<&Node> {
        match self.dirty.get(&bytenr) {
            Some(buf) => Some(buf.node()),
            None => self.committed.get(&bytenr).map(|block| &*block.node),
        }
    }

    /// Proves the tree as it is now, and that it consists of the blocks that it should.
    pub fn check(&self) -> Summary {
        let mut problems = Vec::new();
        let summary = check_tree(self, self.root, self.transid, &mut |problem| {
            problems.push(problem.to_string());
        })
        .unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let mut found = BTreeSet::new();
        self.walk(self.root.bytenr, &mut |node| {
            assert!(found.insert(node.bytenr()));
        });
        assert_eq!(found, self.allocated);
        summary
    }

    /// Proves that no committed block was touched.
    pub fn check_committed(&self) {
        for block in self.committed.values() {
            assert!(block.node.bytes() == block.bytes);
        }
    }

    fn walk<'m>(&'m self, bytenr: u64, visit: &mut dyn FnMut(&'m Node)) {
        let node = self.buf(bytenr).unwrap();
        visit(node);
        for slot in 0.. {
            match node.child_ptr(slot, TREE) {
                Some(ptr) => self.walk(ptr.bytenr, visit),
                None => break,
            }
        }
    }

    /// All items, by a cursor.
    pub fn contents(&self) -> BTreeMap<Key, Vec<u8>> {
        let mut items = BTreeMap::new();
        let mut cursor = Cursor::new(self, self.root);
        cursor.seek(&Key::MIN).unwrap();
        while let Some((key, data)) = cursor.item() {
            assert!(items.insert(key, data.to_vec()).is_none());
            cursor.next().unwrap();
        }
        items
    }
}

/// What a reader makes of the bytes of a block that was sealed.
fn verified(buf: &NodeBuf, geometry: &Geometry) -> Node {
    let ptr = NodePtr {
        bytenr: buf.bytenr(),
        generation: buf.generation(),
        level: buf.level(),
        tree: TREE,
        first_key: buf.key(0),
    };
    let mut bytes = KVVec::new();
    bytes.extend_from_slice(buf.bytes(), GFP_KERNEL).unwrap();
    let limits = Limits {
        geometry: *geometry,
        incompat: 0,
        newest: u64::MAX,
        writable: true,
    };
    verify(bytes, &ptr, &limits, Check::All).unwrap()
}

fn geometry(nodesize: u32) -> Geometry {
    Geometry {
        nodesize: BlockSize::new(nodesize).unwrap(),
        sectorsize: BlockSize::new(4096).unwrap(),
        checksum: ChecksumType::Crc32c,
        fsid: [7; 16],
        chunk_tree_uuid: [8; 16],
    }
}

impl Nodes for Memory {
    type Ref<'a> = &'a Node;

    fn node(&self, ptr: &NodePtr) -> Result<&Node> {
        if fails(&self.fail_read) {
            return Err(EIO);
        }
        let node = self.buf(ptr.bytenr).ok_or(EIO)?;
        assert_eq!(node.bytenr(), ptr.bytenr);
        assert_eq!(node.generation(), ptr.generation);
        assert_eq!(ptr.tree, TREE);
        Ok(node)
    }
}

impl EditContext for Memory {
    fn transid(&self) -> u64 {
        self.transid
    }

    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn root(&self, tree: u64) -> Result<TreeRoot> {
        assert_eq!(tree, TREE);
        Ok(self.root)
    }

    fn set_root(&mut self, tree: u64, root: TreeRoot) -> Result {
        assert_eq!((tree, root.id), (TREE, TREE));
        assert!(self.dirty.contains_key(&root.bytenr));
        self.root = root;
        Ok(())
    }

    fn is_dirty(&self, bytenr: u64) -> bool {
        self.dirty.contains_key(&bytenr)
    }

    fn dirty_mut(&mut self, bytenr: u64) -> Result<&mut NodeBuf> {
        self.dirty.get_mut(&bytenr).ok_or(EUCLEAN)
    }

    fn alloc_node(&mut self, tree: u64, level: u8) -> Result<u64> {
        if fails(&self.fail_block) {
            return Err(ENOSPC);
        }
        let new = NewNode {
            bytenr: self.next,
            generation: self.transid,
            owner: tree,
            level,
        };
        let buf = NodeBuf::new(&self.geometry, &new)?;
        let bytenr = self.address();
        self.dirty.insert(bytenr, buf);
        Ok(bytenr)
    }

    fn cow_node(&mut self, tree: u64, old: &NodePtr) -> Result<u64> {
        if fails(&self.fail_block) {
            return Err(ENOSPC);
        }
        assert!(!self.dirty.contains_key(&old.bytenr));
        let node = self.node(old)?;
        let buf = NodeBuf::copy_of(node, self.next, self.transid, tree)?;
        assert!(self.allocated.remove(&old.bytenr));
        let bytenr = self.address();
        self.dirty.insert(bytenr, buf);
        Ok(bytenr)
    }

    fn free_node(&mut self, tree: u64, bytenr: u64) -> Result {
        assert_eq!(tree, TREE);
        assert!(self.dirty.remove(&bytenr).is_some());
        assert!(self.allocated.remove(&bytenr));
        Ok(())
    }
}
