// SPDX-License-Identifier: GPL-2.0
//! The memory of the node cache: never more than its limit, however many nodes pass through, and
//! less when asked.

use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc};
use rbtrfs_engine::device::{BlockDevice, Chunk, ChunkMap};
use rbtrfs_engine::format::chunk::block_group_flags as flags;
use rbtrfs_engine::format::crc::checksum;
use rbtrfs_engine::format::header::{Header, Item, HEADER_FLAG_WRITTEN, HEADER_SIZE};
use rbtrfs_engine::format::ChecksumType;
use rbtrfs_engine::format::{item_type, tree_id, BlockSize, Key};
use rbtrfs_engine::tree::check::Limits;
use rbtrfs_engine::tree::{Geometry, NodeCache, NodePtr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::vec::Vec;
use zerocopy::IntoBytes;

const NODES: u64 = 20_000;
const NODESIZE: u64 = 4096;
const LIMIT: usize = 256 << 10;
/// Where the one chunk starts.
const LOGICAL: u64 = 1 << 30;
const GEOMETRY: Geometry = Geometry {
    nodesize: BlockSize::new(NODESIZE as u32).unwrap(),
    sectorsize: BlockSize::new(4096).unwrap(),
    checksum: ChecksumType::Crc32c,
    fsid: [7; 16],
    chunk_tree_uuid: [8; 16],
};

const LIMITS: Limits = Limits {
    geometry: GEOMETRY,
    incompat: 0,
    newest: 6,
    writable: false,
};

/// A device of leaves with an item each, made as they are read.
struct Leaves {
    reads: AtomicU64,
}

impl BlockDevice for Leaves {
    fn name(&self) -> &str {
        "leaves"
    }

    fn size(&self) -> u64 {
        NODES * NODESIZE
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let bytenr = LOGICAL + offset;
        let header = Header {
            csum: [0; 32],
            fsid: GEOMETRY.fsid,
            bytenr: bytenr.into(),
            flags: (HEADER_FLAG_WRITTEN | (1 << 56)).into(),
            chunk_tree_uuid: GEOMETRY.chunk_tree_uuid,
            generation: 5.into(),
            owner: tree_id::FS.into(),
            nritems: 1.into(),
            level: 0,
        };
        let item = Item {
            key: Key::new(bytenr, item_type::STRING_ITEM, 0).into(),
            offset: (NODESIZE as u32 - HEADER_SIZE as u32).into(),
            size: 0.into(),
        };
        buf.fill(0);
        let head = [header.as_bytes(), item.as_bytes()].concat();
        buf[..head.len()].copy_from_slice(&head);
        let sum = checksum(&buf[32..]);
        buf[..4].copy_from_slice(&sum.to_le_bytes());
        Ok(())
    }

    fn write(&self, _offset: u64, _buf: &[u8]) -> Result {
        Err(EIO)
    }

    fn write_fua(&self, _offset: u64, _buf: &[u8]) -> Result {
        Err(EIO)
    }

    fn flush(&self) -> Result {
        Err(EIO)
    }

    fn discard(&self, _offset: u64, _len: u64) -> Result {
        Err(EIO)
    }
}

fn cache() -> (Arc<Leaves>, NodeCache) {
    let device = Arc::new(
        Leaves {
            reads: AtomicU64::new(0),
        },
        GFP_KERNEL,
    )
    .unwrap();
    let chunk = Chunk {
        logical: LOGICAL,
        length: NODES * NODESIZE,
        flags: flags::METADATA,
        first: 0,
        second: None,
    };
    let map = Arc::new(ChunkMap::new().with(chunk).unwrap(), GFP_KERNEL).unwrap();
    let chunks = Arc::pin_init(new_mutex!(map, "chunks"), GFP_KERNEL).unwrap();
    let cache = NodeCache::new(device.clone(), LIMITS, chunks, LIMIT).unwrap();
    (device, cache)
}

fn ptr(n: u64) -> NodePtr {
    let bytenr = LOGICAL + n * NODESIZE;
    NodePtr {
        bytenr,
        generation: 5,
        level: 0,
        tree: tree_id::FS,
        first_key: Some(Key::new(bytenr, item_type::STRING_ITEM, 0)),
    }
}

#[test]
fn a_large_walk_stays_within_a_small_limit() {
    let (device, cache) = cache();
    let mut most = 0;
    for n in 0..NODES {
        assert_eq!(cache.get(&ptr(n)).unwrap().bytenr(), ptr(n).bytenr);
        most = most.max(cache.bytes());
        assert!(cache.bytes() <= LIMIT, "{} after {n}", cache.bytes());
        assert!(cache.len() * NODESIZE as usize <= cache.bytes());
    }
    assert_eq!(device.reads.load(Ordering::Relaxed), NODES);
    // The limit is made use of.
    assert!(most > LIMIT * 3 / 4, "{most}");
    // What is read ahead counts as well.
    for n in (0..NODES).step_by(100) {
        let ahead: Vec<NodePtr> = (n..n + 100).map(ptr).collect();
        cache.prefetch(&ahead);
        assert!(cache.bytes() <= LIMIT, "{} ahead of {n}", cache.bytes());
    }
}

#[test]
fn what_is_used_again_and_again_stays() {
    let (device, cache) = cache();
    for n in 1..NODES {
        cache.get(&ptr(0)).unwrap();
        cache.get(&ptr(n)).unwrap();
    }
    assert_eq!(device.reads.load(Ordering::Relaxed), NODES);
}

#[test]
fn it_shrinks_to_what_is_asked_for() {
    let (device, cache) = cache();
    for n in 0..1000 {
        cache.get(&ptr(n)).unwrap();
    }
    let kept = cache.get(&ptr(999)).unwrap();
    for target in [LIMIT / 2, 0] {
        let before = cache.bytes();
        let freed = cache.shrink(target);
        assert!(cache.bytes() <= target && freed > 0);
        assert_eq!(cache.bytes(), before - freed);
    }
    assert!(cache.is_empty() && cache.reclaimable() == 0 && cache.reclaim(10) == 0);
    // Whoever holds a node has it still, and another reader gets one of its own.
    assert_eq!(kept.bytenr(), ptr(999).bytenr);
    let reads = device.reads.load(Ordering::Relaxed);
    cache.get(&ptr(999)).unwrap();
    assert_eq!(device.reads.load(Ordering::Relaxed), reads + 1);

    // As the kernel's shrinker asks: by numbers of nodes, until none is left.
    for n in 0..1000 {
        cache.get(&ptr(n)).unwrap();
    }
    let mut left = cache.reclaimable();
    assert_eq!(left, cache.len());
    while left > 0 {
        let evicted = cache.reclaim(8);
        assert!((1..=16).contains(&evicted), "{evicted} of {left}");
        left -= evicted;
        assert_eq!(cache.len(), left);
    }
    assert_eq!(cache.bytes(), 0);
}

#[test]
fn readers_and_the_shrinker_at_once_keep_the_limit() {
    let (_, cache) = cache();
    let (cache, done) = (&cache, &AtomicBool::new(false));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|start| {
                scope.spawn(move || {
                    for n in (0..NODES).step_by(7) {
                        let n = (n + start * 1000) % NODES;
                        assert_eq!(cache.get(&ptr(n)).unwrap().bytenr(), ptr(n).bytenr);
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            while !done.load(Ordering::SeqCst) {
                cache.reclaim(16);
                assert!(cache.bytes() <= LIMIT);
                std::thread::yield_now();
            }
        });
        for reader in readers {
            reader.join().unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(cache.bytes() <= LIMIT);
}
