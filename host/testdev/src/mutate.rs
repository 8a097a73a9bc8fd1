// SPDX-License-Identifier: GPL-2.0
//! Damage with checksums that fit, so that it is met in every part of the engine and not at its
//! door.

use crate::MemDevice;
use kernel::error::Result;
use kernel::prelude::{EUCLEAN, GFP_KERNEL};
use kernel::sync::Arc;
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_engine::format::crc::checksum;
use rbtrfs_engine::format::header::{HEADER_SIZE, ITEM_SIZE, KEY_PTR_SIZE};
use rbtrfs_engine::format::superblock::COPIES;
use rbtrfs_engine::format::{item_type, tree_id, Key};
use rbtrfs_engine::tree::Nodes;
use rbtrfs_engine::volume::{Fs, OpenOptions};
use std::collections::BTreeSet;

/// The size of the checksum field of tree blocks and superblocks.
const CSUM: usize = 32;
const SUPERBLOCK: usize = 4096;
/// Where in the superblock the array of system chunks and what is after it start.
const SUPERBLOCK_END: usize = 811 + 2048 + 4 * 168;

/// A block with a checksum.
struct Block {
    /// Where its copies are on the device.
    copies: Vec<u64>,
    bytes: Vec<u8>,
}

impl Block {
    fn is_superblock(&self) -> bool {
        self.copies[0] == COPIES[0]
    }

    fn count(&self) -> usize {
        u32::from_le_bytes(self.bytes[96..100].try_into().unwrap()) as usize
    }

    fn is_leaf(&self) -> bool {
        self.bytes[100] == 0
    }

    /// Where an item's head or a pointer is.
    fn head(&self, slot: usize) -> usize {
        let size = if self.is_leaf() {
            ITEM_SIZE
        } else {
            KEY_PTR_SIZE
        };
        HEADER_SIZE + slot * size
    }

    /// Where an item's data is.
    fn data(&self, slot: usize) -> core::ops::Range<usize> {
        let field = |at| u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap()) as usize;
        let start = HEADER_SIZE + field(self.head(slot) + 17);
        start..start + field(self.head(slot) + 21)
    }
}

/// A sound volume, and where in it damage can be done.
pub struct Seed {
    image: MemDevice,
    blocks: Vec<Block>,
    /// Numbers that mean something in this volume: addresses of blocks, sizes, and limits.
    numbers: Vec<u64>,
}

/// The bytes that say what damage to do, read front to back; zeros when they are used up.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> usize {
        usize::from(self.byte()) | (usize::from(self.byte()) << 8)
    }

    /// A number below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        self.number().checked_rem(end).unwrap_or(0)
    }
}

impl Seed {
    /// Takes an image apart that the engine can read.
    ///
    /// # Errors
    ///
    /// Those of opening and reading it.
    pub fn new(image: MemDevice) -> Result<Self> {
        let device: Arc<dyn BlockDevice> = Arc::new(image.clone(), GFP_KERNEL)?;
        let options = OpenOptions {
            read_only: true,
            ..OpenOptions::default()
        };
        let fs = Fs::open(device, &options)?;
        let reader = fs.reader()?;
        let mut trees = vec![tree_id::ROOT, tree_id::CHUNK];
        let mut cursor = reader.cursor(reader.root(tree_id::ROOT)?);
        cursor.seek(&Key::MIN)?;
        while let Some(key) = cursor.key() {
            if key.typ == item_type::ROOT_ITEM {
                trees.push(key.objectid);
            }
            cursor.next()?;
        }
        let mut bytes = vec![0; SUPERBLOCK];
        image.copy_out(COPIES[0], &mut bytes);
        let copies = COPIES.into_iter().filter(|at| at + 4096 < image.size());
        let mut blocks = vec![Block {
            copies: copies.collect(),
            bytes,
        }];
        let mut seen = BTreeSet::new();
        let nodesize = u64::from(fs.geometry.nodesize);
        for tree in trees {
            let mut stack = vec![reader.root(tree)?.into()];
            while let Some(ptr) = stack.pop() {
                let node = reader.node(&ptr)?;
                if !seen.insert(node.bytenr()) {
                    continue;
                }
                let mirrors = fs.chunk_map().mirrors(node.bytenr(), nodesize)?;
                blocks.push(Block {
                    copies: mirrors.iter().collect(),
                    bytes: node.bytes().to_vec(),
                });
                for slot in 0..node.nritems() as usize {
                    if !node.is_leaf() {
                        stack.push(node.child_ptr(slot, tree).ok_or(EUCLEAN)?);
                    }
                }
            }
        }
        let mut numbers = vec![0, 1, 2, 3, 4, 5, 7, 8, 12, 16, 53, 127, 128, 255, 256, 4095];
        numbers.extend([4096, 4097, 65535, 65536, 131072, 131073, 1 << 20, 1 << 31]);
        numbers.extend([
            u64::MAX,
            u64::MAX - 1,
            u64::MAX - 4095,
            1 << 63,
            i64::MAX as u64,
        ]);
        numbers.extend([u64::from(u32::MAX), 1 << 32, 1 << 24, 1 << 40, nodesize]);
        numbers.extend([
            nodesize - HEADER_SIZE as u64,
            image.size(),
            image.size() - 4096,
        ]);
        numbers.extend(fs.chunk_map().iter().map(|chunk| chunk.logical));
        numbers.extend(seen);
        Ok(Self {
            image,
            blocks,
            numbers,
        })
    }

    /// The image with the damage that `script` says, some bytes for each place; any bytes will do.
    pub fn damaged(&self, script: &[u8]) -> MemDevice {
        let image = self.image.clone();
        let mut script = Script(script);
        let mut changed: Vec<(usize, Block)> = vec![];
        while !script.0.is_empty() {
            let index = script.below(self.blocks.len());
            let place = changed.iter().position(|(at, _)| *at == index);
            let place = place.unwrap_or_else(|| {
                let block = &self.blocks[index];
                let (copies, bytes) = (block.copies.clone(), block.bytes.clone());
                changed.push((index, Block { copies, bytes }));
                changed.len() - 1
            });
            self.damage(index, &mut changed[place].1.bytes, &mut script);
        }
        for (_, mut block) in changed {
            for copy in &block.copies {
                if block.is_superblock() {
                    // Each copy has its own address.
                    block.bytes[48..56].copy_from_slice(&copy.to_le_bytes());
                }
                let sum = checksum(&block.bytes[CSUM..]);
                block.bytes[..4].copy_from_slice(&sum.to_le_bytes());
                image.copy_in(*copy, &block.bytes);
            }
        }
        image
    }

    /// Changes one field of a block; `bytes` may be changed already.
    fn damage(&self, index: usize, bytes: &mut [u8], script: &mut Script<'_>) {
        let block = &self.blocks[index];
        let kind = script.byte();
        let slot = script.below(block.count());
        let (at, end) = if block.is_superblock() {
            (CSUM, SUPERBLOCK_END)
        } else {
            match kind % 8 {
                0 => (CSUM, HEADER_SIZE),
                1 | 2 => (block.head(slot), block.head(slot + 1)),
                3 if block.is_leaf() => {
                    // Another item's bytes, or as many of them as fit.
                    let from = block.data(script.below(block.count()));
                    let to = block.data(slot);
                    let len = from.len().min(to.len());
                    bytes[to][..len].copy_from_slice(&block.bytes[from][..len]);
                    return;
                }
                _ if block.is_leaf() => (block.data(slot).start, block.data(slot).end),
                _ => (block.head(slot), block.head(slot + 1)),
            }
        };
        let at = at + script.below(end.saturating_sub(at));
        // An item can be empty at the end of the block.
        let Some(place) = bytes.get_mut(at..) else {
            return;
        };
        let width = (1 << (kind >> 6)).min(place.len());
        let place = &mut place[..width];
        let mut old = [0; 8];
        old[..width].copy_from_slice(place);
        let old = u64::from_le_bytes(old);
        let new = match (kind >> 3) & 7 {
            0 | 1 => self.numbers[script.below(self.numbers.len())],
            2 => old.wrapping_add(1),
            3 => old.wrapping_sub(1),
            4 => old ^ (1 << (script.byte() & 63)),
            5 => old.wrapping_add(script.number() as u64),
            6 => old.wrapping_sub(script.number() as u64),
            _ => script.number() as u64,
        };
        place.copy_from_slice(&new.to_le_bytes()[..width]);
    }
}
