// SPDX-License-Identifier: GPL-2.0
//! The cache of committed nodes, which is where all of them are read and verified.
//!
//! Locks: each shard has a mutex, a leaf lock that is held for a look-up, never across I/O. Two who
//! miss the same node both read it; they get the same bytes, and the cache keeps one.

use super::check::Limits;
use super::node::{Geometry, Node, NodePtr, Nodes};
use super::verify::{check_parent, verify, Check, Fault, Report};
use crate::device::corrected::Corrected;
use crate::device::{BlockDevice, ChunkMap, ReadIo};
use crate::platform::uptime_ms;
use crate::{fs_err, fs_info, fs_warn};
use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_mutex, Arc, Mutex};

const SHARDS: usize = 16;

/// What a node costs beside its bytes: its place in a shard and the allocations' own.
const OVERHEAD: usize = 192;

/// The most nodes that one call reads ahead.
const PREFETCH: usize = 32;

/// How many messages of one kind a window lets through, and how long it is, in milliseconds: damage
/// tends to come in thousands of blocks.
const BURST: u32 = 32;
const WINDOW_MS: u64 = 5_000;

/// A node that is cached, with its mark for the clock.
struct Entry {
    bytenr: u64,
    node: Arc<Node>,
    /// It was asked for since the hand passed.
    used: bool,
}

/// A part of the cache: a clock, whose hand evicts what was not used since its last round.
struct Shard {
    entries: KVVec<Entry>,
    /// From address to place in `entries`.
    index: RBTree<u64, usize>,
    hand: usize,
    /// Bytes of all nodes here, with their overhead.
    bytes: usize,
}

fn cost(node: &Node) -> usize {
    node.bytes().len().saturating_add(OVERHEAD)
}

impl Shard {
    fn new() -> Self {
        Self {
            entries: KVVec::new(),
            index: RBTree::new(),
            hand: 0,
            bytes: 0,
        }
    }

    fn get(&mut self, bytenr: u64) -> Option<Arc<Node>> {
        let place = *self.index.get(&bytenr)?;
        let entry = self.entries.get_mut(place)?;
        entry.used = true;
        Some(entry.node.clone())
    }

    /// Takes an entry out; the last one moves to its place.
    fn remove(&mut self, bytenr: u64) -> Option<Arc<Node>> {
        let place = self.index.remove(&bytenr)?;
        let last = self.entries.pop()?;
        let removed = match self.entries.get_mut(place) {
            Some(entry) => {
                if let Some(moved) = self.index.get_mut(&last.bytenr) {
                    *moved = place;
                }
                core::mem::replace(entry, last)
            }
            None => last,
        };
        self.bytes = self.bytes.saturating_sub(cost(&removed.node));
        Some(removed.node)
    }

    fn insert(&mut self, node: Arc<Node>) -> Result {
        let bytenr = node.bytenr();
        self.remove(bytenr);
        self.entries.reserve(1, GFP_KERNEL)?;
        self.index
            .try_create_and_insert(bytenr, self.entries.len(), GFP_KERNEL)?;
        self.bytes = self.bytes.saturating_add(cost(&node));
        self.entries.push_within_capacity(Entry {
            bytenr,
            node,
            used: false,
        })?;
        Ok(())
    }

    /// Evicts until at most `limit` bytes are left. Returns the bytes freed.
    fn evict(&mut self, limit: usize) -> usize {
        let before = self.bytes;
        while self.bytes > limit && !self.entries.is_empty() {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            // One round clears every mark, so that the next one finds what to evict.
            match self.entries.get_mut(self.hand) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    self.hand = self.hand.saturating_add(1);
                }
                Some(entry) => {
                    let bytenr = entry.bytenr;
                    if self.remove(bytenr).is_none() {
                        break;
                    }
                }
                None => break,
            }
        }
        before.saturating_sub(self.bytes)
    }
}

/// Lets only so many messages through in a time.
struct Limiter {
    window: Option<u64>,
    printed: u32,
    suppressed: u64,
}

impl Limiter {
    /// Whether to print, and how many messages were suppressed in the window that this call ended.
    fn admit(&mut self, now: u64) -> (bool, u64) {
        let mut suppressed = 0;
        if self
            .window
            .is_none_or(|start| now.wrapping_sub(start) >= WINDOW_MS)
        {
            suppressed = core::mem::take(&mut self.suppressed);
            self.window = Some(now);
            self.printed = 0;
        }
        if self.printed < BURST {
            self.printed = self.printed.saturating_add(1);
            (true, suppressed)
        } else {
            self.suppressed = self.suppressed.saturating_add(1);
            (false, suppressed)
        }
    }
}

/// Reads nodes, verifies them, and keeps those that are used.
pub struct NodeCache {
    device: Arc<dyn BlockDevice>,
    geometry: Geometry,
    /// What leaves are held against, but for what changes: the two fields below.
    limits: Limits,
    /// The newest generation that an item may name.
    newest: Atomic<u64>,
    chunks: Arc<Mutex<Arc<ChunkMap>>>,
    shards: KVec<Pin<KBox<Mutex<Shard>>>>,
    limiter: Pin<KBox<Mutex<Limiter>>>,
    /// Not zero while the volume may be written to, and bad copies written over with good ones.
    repairs: Atomic<u32>,
    /// Not zero while nodes are not compared with their checksums.
    unchecked: Atomic<u32>,
    /// The bytes that each shard may keep.
    shard_limit: usize,
}

impl NodeCache {
    /// A cache of at most `limit` bytes over the device, whose nodes are found by the chunk map in
    /// `chunks` and held against `limits`.
    pub fn new(
        device: Arc<dyn BlockDevice>,
        limits: Limits,
        chunks: Arc<Mutex<Arc<ChunkMap>>>,
        limit: usize,
    ) -> Result<Self> {
        let mut shards = KVec::with_capacity(SHARDS, GFP_KERNEL)?;
        for _ in 0..SHARDS {
            let shard = KBox::pin_init(new_mutex!(Shard::new(), "NodeCache::shard"), GFP_KERNEL)?;
            shards.push(shard, GFP_KERNEL)?;
        }
        let limiter = Limiter {
            window: None,
            printed: 0,
            suppressed: 0,
        };
        Ok(Self {
            device,
            geometry: limits.geometry,
            limits,
            newest: Atomic::new(limits.newest),
            chunks,
            shards,
            limiter: KBox::pin_init(new_mutex!(limiter, "NodeCache::limiter"), GFP_KERNEL)?,
            repairs: Atomic::new(u32::from(limits.writable)),
            unchecked: Atomic::new(0),
            shard_limit: limit / SHARDS,
        })
    }

    /// The name of the device, for messages.
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// Says whether the volume may be written to, and so whether bad copies of nodes may be written
    /// over with good ones.
    pub fn allow_repairs(&self, allowed: bool) {
        self.repairs.store(u32::from(allowed), Relaxed);
    }

    /// Says which generation was committed last. Items may name the one after that as well.
    pub fn committed(&self, generation: u64) {
        self.newest.store(generation.saturating_add(1), Relaxed);
    }

    /// What leaves are held against now.
    pub fn limits(&self) -> Limits {
        Limits {
            newest: self.newest.load(Relaxed),
            writable: self.repairs.load(Relaxed) != 0,
            ..self.limits
        }
    }

    /// Says whether nodes are taken whose checksum does not match, if all else is right. At first
    /// they are not.
    pub fn ignore_checksums(&self, ignored: bool) {
        self.unchecked.store(u32::from(ignored), Relaxed);
    }

    fn verify(&self, bytes: KVVec<u8>, ptr: &NodePtr) -> core::result::Result<Node, Fault> {
        let check = if self.unchecked.load(Relaxed) == 0 {
            Check::All
        } else {
            Check::AllButChecksum
        };
        verify(bytes, ptr, &self.limits(), check)
    }

    fn shard(&self, bytenr: u64) -> Option<&Mutex<Shard>> {
        let index = bytenr / self.geometry.nodesize % SHARDS as u64;
        self.shards.get(index as usize).map(|shard| &**shard)
    }

    /// The node that `ptr` points to: from memory, or from the first mirror that has it right.
    ///
    /// # Errors
    ///
    /// `EIO` or `EUCLEAN`, with messages, if no mirror has it right; `ENOMEM`.
    pub fn get(&self, ptr: &NodePtr) -> Result<Arc<Node>> {
        // A node that is not what the parent says may be one that was freed: the disk has the
        // answer.
        if let Some(node) = self.cached(ptr) {
            return Ok(node);
        }
        let node = Arc::new(self.read(ptr)?, GFP_KERNEL)?;
        self.insert(node.clone());
        Ok(node)
    }

    /// The node that `ptr` points to, if it is in memory.
    pub fn cached(&self, ptr: &NodePtr) -> Option<Arc<Node>> {
        let node = self.shard(ptr.bytenr)?.lock().get(ptr.bytenr)?;
        check_parent(&node, ptr).ok()?;
        Some(node)
    }

    /// Reads a node from the first mirror that has it right, without looking into the cache.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn read(&self, ptr: &NodePtr) -> Result<Node> {
        let nodesize = usize::from(self.geometry.nodesize);
        let chunks = self.chunks.lock().clone();
        let mirrors = match chunks.mirrors(ptr.bytenr, nodesize as u64) {
            Ok(mirrors) if self.geometry.is_sector_aligned(ptr.bytenr) => mirrors,
            _ => {
                self.complain(|| {
                    fs_err!(
                        self.device,
                        "unable to find chunk map for logical {} length {}, root={} level {}",
                        ptr.bytenr,
                        nodesize,
                        ptr.tree,
                        ptr.level
                    )
                });
                return Err(EUCLEAN);
            }
        };
        let mut result = Err(EIO);
        for (physical, mirror) in mirrors.iter().zip(1u32..) {
            match self.read_mirror(ptr, physical, mirror) {
                Ok(node) => {
                    if mirror > 1 {
                        self.complain(|| {
                            fs_info!(
                                self.device,
                                "read of tree block {} succeeded from mirror {}",
                                ptr.bytenr,
                                mirror
                            )
                        });
                        // The first copy is bad, and both should be the same. Whoever reads a node
                        // keeps its place from being used for anything else.
                        self.repair(&node, mirrors.first());
                    }
                    return Ok(node);
                }
                Err(ENOMEM) => return Err(ENOMEM),
                Err(e) => result = Err(e),
            }
        }
        result
    }

    fn read_mirror(&self, ptr: &NodePtr, physical: u64, mirror: u32) -> Result<Node> {
        let nodesize = usize::from(self.geometry.nodesize);
        let mut bytes = KVVec::zeroed(nodesize, GFP_KERNEL)?;
        if let Err(e) = self.device.read(physical, &mut bytes) {
            self.complain(|| {
                fs_err!(
                    self.device,
                    "read failed on logical {} mirror {} physical {}, error {}",
                    ptr.bytenr,
                    mirror,
                    physical,
                    e.to_errno()
                )
            });
            return Err(if e == ENOMEM { ENOMEM } else { EIO });
        }
        self.verify(bytes, ptr).map_err(|fault| {
            let report = Report { fault, ptr, mirror };
            self.complain(|| {
                if fault.is_warning() {
                    fs_warn!(self.device, "{}", report)
                } else {
                    fs_err!(self.device, "{}", report)
                }
            });
            fault.errno()
        })
    }

    /// Writes a node to where it is bad. If that fails, nothing is worse than before.
    fn repair(&self, node: &Node, physical: u64) {
        if self.repairs.load(Relaxed) == 0 || self.device.write(physical, node.bytes()).is_err() {
            return;
        }
        let corrected = Corrected {
            ino: 0,
            offset: node.bytenr(),
            device: self.device.name(),
            physical,
        };
        self.complain(|| fs_info!(self.device, "{}", corrected));
    }

    /// Prints unless too much was printed lately.
    fn complain(&self, print: impl FnOnce()) {
        let (admitted, suppressed) = self.limiter.lock().admit(uptime_ms());
        if suppressed != 0 {
            fs_warn!(
                self.device,
                "{} messages on tree blocks suppressed",
                suppressed
            );
        }
        if admitted {
            print();
        }
    }

    /// Keeps a committed node, in place of one that was at its address before. Without memory for
    /// that neither is kept, which does no harm.
    pub fn insert(&self, node: Arc<Node>) {
        let Some(shard) = self.shard(node.bytenr()) else {
            return;
        };
        let mut shard = shard.lock();
        if shard.insert(node).is_ok() {
            shard.evict(self.shard_limit);
        }
    }

    /// Drops the node at `bytenr`, of a block that was freed.
    pub fn forget(&self, bytenr: u64) {
        if let Some(shard) = self.shard(bytenr) {
            // The node is dropped after the lock.
            let _node = shard.lock().remove(bytenr);
        }
    }

    /// The bytes in use.
    pub fn bytes(&self) -> usize {
        let each = self.shards.iter().map(|shard| shard.lock().bytes);
        each.fold(0, usize::saturating_add)
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        let each = self.shards.iter().map(|shard| shard.lock().entries.len());
        each.fold(0, usize::saturating_add)
    }

    /// Whether no node is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Evicts until at most `target` bytes are in use. Returns the bytes freed. Allocates nothing.
    pub fn shrink(&self, target: usize) -> usize {
        let each = self
            .shards
            .iter()
            .map(|shard| shard.lock().evict(target / SHARDS));
        each.fold(0, usize::saturating_add)
    }

    /// About how many nodes [`Self::reclaim`] could evict. It waits for no lock either.
    pub fn reclaimable(&self) -> usize {
        let each = self.shards.iter().map(|shard| {
            let shard = shard.try_lock();
            shard.map_or(0, |shard| shard.entries.len())
        });
        each.fold(0, usize::saturating_add)
    }

    /// Evicts up to about `count` nodes, for the memory reclaim: it waits for no lock, but leaves
    /// out shards that are in use. Returns the number of nodes evicted.
    pub fn reclaim(&self, count: usize) -> usize {
        let mut evicted = 0usize;
        for (left, shard) in (1..=self.shards.len()).rev().zip(self.shards.iter()) {
            let share = count.saturating_sub(evicted).div_ceil(left);
            if let Some(mut shard) = shard.try_lock() {
                let before = shard.entries.len();
                let bytes = shard.bytes;
                let each = bytes.checked_div(before).unwrap_or(0);
                shard.evict(bytes.saturating_sub(each.saturating_mul(share)));
                evicted = evicted.saturating_add(before.saturating_sub(shard.entries.len()));
            }
        }
        evicted
    }

    /// Reads those of the nodes that are not cached, at once. What fails is left for [`Self::get`]
    /// to report.
    pub fn prefetch(&self, ptrs: &[NodePtr]) {
        let _ = self.try_prefetch(ptrs);
    }

    fn try_prefetch(&self, ptrs: &[NodePtr]) -> Result {
        let nodesize = usize::from(self.geometry.nodesize);
        let mut missing: KVec<NodePtr> = KVec::new();
        for ptr in ptrs.iter().take(PREFETCH) {
            let twice = missing.iter().any(|other| other.bytenr == ptr.bytenr);
            if !twice && self.cached(ptr).is_none() {
                missing.push(*ptr, GFP_KERNEL)?;
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let chunks = self.chunks.lock().clone();
        let mut buffers: KVec<(NodePtr, u64, KVVec<u8>)> = KVec::new();
        for ptr in missing.iter() {
            if let Ok(mirrors) = chunks.mirrors(ptr.bytenr, nodesize as u64) {
                let buffer = KVVec::zeroed(nodesize, GFP_KERNEL)?;
                buffers.push((*ptr, mirrors.first(), buffer), GFP_KERNEL)?;
            }
        }
        let mut good: KVec<bool> = KVec::with_capacity(buffers.len(), GFP_KERNEL)?;
        {
            let mut ios = KVec::with_capacity(buffers.len(), GFP_KERNEL)?;
            for (_, physical, buffer) in buffers.iter_mut() {
                ios.push(ReadIo::new(*physical, buffer), GFP_KERNEL)?;
            }
            let _ = self.device.read_many(&mut ios);
            for io in &ios {
                good.push(io.result.is_ok(), GFP_KERNEL)?;
            }
        }
        for ((ptr, _, buffer), good) in buffers.into_iter().zip(good) {
            if !good {
                continue;
            }
            if let Ok(node) = self.verify(buffer, &ptr) {
                self.insert(Arc::new(node, GFP_KERNEL)?);
            }
        }
        Ok(())
    }
}

impl Nodes for NodeCache {
    type Ref<'a> = Arc<Node>;

    fn node(&self, ptr: &NodePtr) -> Result<Arc<Node>> {
        self.get(ptr)
    }

    fn prefetch(&self, ptrs: &[NodePtr]) {
        NodeCache::prefetch(self, ptrs);
    }

    fn name(&self) -> &str {
        NodeCache::name(self)
    }
}
