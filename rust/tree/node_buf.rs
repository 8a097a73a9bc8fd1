// SPDX-License-Identifier: GPL-2.0
//! A tree block that the running transaction may change.
//!
//! A [`NodeBuf`] is a [`Node`] whose bytes may be written to, so that a transaction reads its own
//! blocks with the very code that reads committed ones. The mutators are in `leaf_mut.rs` and
//! `interior_mut.rs`. All of them keep the layout that the verification of nodes asks for: entries
//! are in a row after the header, and a leaf's data is packed without holes from the end of the
//! block towards its front, first item last.
//!
//! What a mutator returns as an error is a request that the block cannot hold or a block that is
//! not what verification promises, never a panic.

use super::leaf_mut::item_head;
use super::node::{Geometry, Node};
use crate::format::checksum::{ChecksumType, CSUM_FIELD};
use crate::format::header::{
    Header, BACKREF_REV_SHIFT, HEADER_FLAG_RELOC, HEADER_FLAG_WRITTEN, HEADER_SIZE, ITEM_SIZE,
    KEY_PTR_SIZE, MAX_LEVEL, MIXED_BACKREF_REV,
};
use core::mem::offset_of;
use core::ops::Deref;
use kernel::prelude::*;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes};

/// What the header of a new block says.
#[derive(Clone, Copy, Debug)]
pub struct NewNode {
    /// The block's logical address, in bytes.
    pub bytenr: u64,
    /// The running transaction.
    pub generation: u64,
    /// The tree that the block is allocated for.
    pub owner: u64,
    /// 0 for a leaf.
    pub level: u8,
}

/// A tree block allocated by the running transaction, which alone may change it.
pub struct NodeBuf {
    node: Node,
}

impl Deref for NodeBuf {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl NodeBuf {
    /// Makes an empty block.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` if the level or the size is none that a block can have.
    pub fn new(geometry: &Geometry, new: &NewNode) -> Result<Self> {
        let nodesize = usize::from(geometry.nodesize);
        if new.level >= MAX_LEVEL || nodesize < HEADER_SIZE {
            return Err(EINVAL);
        }
        let header = Header {
            csum: [0; 32],
            fsid: geometry.fsid,
            bytenr: new.bytenr.into(),
            flags: U64::new(MIXED_BACKREF_REV << BACKREF_REV_SHIFT),
            chunk_tree_uuid: geometry.chunk_tree_uuid,
            generation: new.generation.into(),
            owner: new.owner.into(),
            nritems: 0.into(),
            level: new.level,
        };
        let mut bytes = KVVec::zeroed(nodesize, GFP_KERNEL)?;
        put(&mut bytes, 0, &header)?;
        Ok(Self {
            node: Node::from_bytes(bytes),
        })
    }

    /// Copies a committed node to the new address `bytenr`, for `owner`, in transaction
    /// `generation`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn copy_of(node: &Node, bytenr: u64, generation: u64, owner: u64) -> Result<Self> {
        let mut bytes = KVVec::new();
        bytes.extend_from_slice(node.bytes(), GFP_KERNEL)?;
        let flags = node.flags() & !(HEADER_FLAG_WRITTEN | HEADER_FLAG_RELOC);
        put(&mut bytes, offset_of!(Header, bytenr), &U64::new(bytenr))?;
        put(&mut bytes, offset_of!(Header, flags), &U64::new(flags))?;
        put(
            &mut bytes,
            offset_of!(Header, generation),
            &U64::new(generation),
        )?;
        put(&mut bytes, offset_of!(Header, owner), &U64::new(owner))?;
        Ok(Self {
            node: Node::from_bytes(bytes),
        })
    }

    /// The node, for reading.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Makes the block ready to be written: marks it as written, clears the bytes that nothing
    /// uses, so that no stale metadata reaches the disk, and computes the checksum, which is of
    /// type `kind`. Any later change asks for another call.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if the block is not what the mutators leave.
    pub fn seal(&mut self, kind: ChecksumType) -> Result {
        let flags = self.node.flags() | HEADER_FLAG_WRITTEN;
        let unused_start = self.entry_offset(self.entries())?;
        let unused_end = if self.is_leaf() {
            at_data(self.data_start()?)?
        } else {
            self.bytes().len()
        };
        let bytes = self.node.bytes_mut();
        bytes
            .get_mut(unused_start..unused_end)
            .ok_or(EUCLEAN)?
            .fill(0);
        put(bytes, offset_of!(Header, flags), &U64::new(flags))?;
        let csum = kind.of(bytes.get(CSUM_FIELD..).ok_or(EUCLEAN)?);
        put(bytes, offset_of!(Header, csum), csum.field())
    }

    /// Sets flags in the header.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if the block is shorter than a header.
    pub fn add_flags(&mut self, flags: u64) -> Result {
        let flags = self.node.flags() | flags;
        put(self.raw_mut(), offset_of!(Header, flags), &U64::new(flags))
    }

    /// The node as the node cache keeps it after the commit. [`NodeBuf::seal`] comes first.
    pub fn into_node(self) -> Node {
        self.node
    }

    /// Takes the block out of its place for a moment, leaving an empty buffer that answers every
    /// access with nothing, so that two blocks of one context can be changed together.
    pub(super) fn take(&mut self) -> NodeBuf {
        let empty = NodeBuf {
            node: Node::from_bytes(KVVec::new()),
        };
        core::mem::replace(self, empty)
    }

    /// The number of items or key pointers.
    pub fn entries(&self) -> usize {
        self.node.nritems() as usize
    }

    /// How many bytes entries and data can take together: those after the header.
    pub fn capacity(&self) -> usize {
        capacity(&self.node)
    }

    /// How many of them are in use.
    pub fn used(&self) -> usize {
        used_bytes(&self.node)
    }

    /// How many of them are free.
    pub fn free_space(&self) -> usize {
        self.capacity().saturating_sub(self.used())
    }

    /// Moves `count` entries of `src`, from slot `from` on, to slot `at` of `dst`, a block of the
    /// same level.
    ///
    /// # Errors
    ///
    /// `EOVERFLOW` if they do not fit; `EINVAL` if the levels differ or there are no such entries.
    pub(super) fn move_entries(
        src: &mut NodeBuf,
        from: usize,
        count: usize,
        dst: &mut NodeBuf,
        at: usize,
    ) -> Result {
        let end = from.checked_add(count).ok_or(EINVAL)?;
        if src.level() != dst.level() || end > src.entries() || at > dst.entries() {
            return Err(EINVAL);
        }
        if src.is_leaf() {
            Self::move_items(src, from, count, dst, at)
        } else {
            Self::move_ptrs(src, from, count, dst, at)
        }
    }

    /// The size of an entry in this kind of block, in bytes.
    pub(super) fn entry_size(&self) -> usize {
        if self.node.is_leaf() {
            ITEM_SIZE
        } else {
            KEY_PTR_SIZE
        }
    }

    /// Where entry `slot` starts in the block.
    pub(super) fn entry_offset(&self, slot: usize) -> Result<usize> {
        slot.checked_mul(self.entry_size())
            .and_then(|bytes| bytes.checked_add(HEADER_SIZE))
            .ok_or(EUCLEAN)
    }

    /// Shifts the entries from slot `from` on to slot `to` and sets their number accordingly. The
    /// heads that a shift to the right leaves behind are for the caller to fill.
    pub(super) fn shift_entries(&mut self, from: usize, to: usize) -> Result {
        let entries = self.entries();
        let after = entries
            .checked_sub(from)
            .and_then(|moved| moved.checked_add(to))
            .ok_or(EINVAL)?;
        let start = self.entry_offset(from)?;
        let end = self.entry_offset(entries)?;
        let target = self.entry_offset(to)?;
        let nritems = u32::try_from(after).map_err(|_| EOVERFLOW)?;
        let bytes = self.node.bytes_mut();
        copy_within(bytes, start, end, target)?;
        put(bytes, offset_of!(Header, nritems), &U32::new(nritems))
    }

    /// The bytes of the block, for the mutators.
    pub(super) fn raw_mut(&mut self) -> &mut [u8] {
        self.node.bytes_mut()
    }
}

/// How many bytes of a node are after its header.
pub(super) fn capacity(node: &Node) -> usize {
    node.bytes().len().saturating_sub(HEADER_SIZE)
}

/// How many of the bytes after the header a node uses for entries and data.
pub(super) fn used_bytes(node: &Node) -> usize {
    let entries = node.nritems() as usize;
    if !node.is_leaf() {
        return entries.saturating_mul(KEY_PTR_SIZE);
    }
    let data = match entries.checked_sub(1) {
        None => 0,
        Some(last) => match item_head(node, last) {
            Ok(item) => capacity(node).saturating_sub(item.offset.get() as usize),
            Err(_) => capacity(node),
        },
    };
    entries.saturating_mul(ITEM_SIZE).saturating_add(data)
}

/// Where data that starts `offset` bytes after the header starts in the block.
pub(super) fn at_data(offset: usize) -> Result<usize> {
    offset.checked_add(HEADER_SIZE).ok_or(EUCLEAN)
}

/// Writes `value` into `bytes`, `at` bytes from its start.
pub(super) fn put<T: IntoBytes + Immutable>(bytes: &mut [u8], at: usize, value: &T) -> Result {
    let src = value.as_bytes();
    let end = at.checked_add(src.len()).ok_or(EUCLEAN)?;
    bytes.get_mut(at..end).ok_or(EUCLEAN)?.copy_from_slice(src);
    Ok(())
}

/// `copy_within` that answers a range outside of `bytes` with an error.
pub(super) fn copy_within(bytes: &mut [u8], start: usize, end: usize, to: usize) -> Result {
    let len = end.checked_sub(start).ok_or(EUCLEAN)?;
    let to_end = to.checked_add(len).ok_or(EUCLEAN)?;
    if end > bytes.len() || to_end > bytes.len() {
        return Err(EUCLEAN);
    }
    bytes.copy_within(start..end, to);
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::format::{BlockSize, Key};
    use std::vec::Vec;

    const BYTENR: u64 = 0x40_0000;

    fn make(nodesize: u32, level: u8) -> Result<NodeBuf> {
        let geometry = Geometry {
            nodesize: BlockSize::new(nodesize).unwrap(),
            sectorsize: BlockSize::new(4096).unwrap(),
            checksum: ChecksumType::Crc32c,
            fsid: [1; 16],
            chunk_tree_uuid: [2; 16],
        };
        let new = NewNode {
            bytenr: BYTENR,
            generation: 9,
            owner: 5,
            level,
        };
        NodeBuf::new(&geometry, &new)
    }

    pub(in crate::tree) fn buf(level: u8) -> NodeBuf {
        make(4096, level).unwrap()
    }

    #[test]
    fn header_says_what_the_block_is() {
        let node = buf(3);
        assert_eq!((node.bytenr(), node.generation()), (BYTENR, 9));
        assert_eq!((node.owner(), node.level()), (5, 3));
        assert_eq!((node.fsid(), node.chunk_tree_uuid()), ([1; 16], [2; 16]));
        assert_eq!((node.entries(), node.flags()), (0, 1 << 56));
        assert_eq!(node.free_space(), 4096 - 101);
    }

    #[test]
    fn impossible_blocks_are_refused() {
        assert_eq!(make(4096, 8).err(), Some(EINVAL));
        assert_eq!(make(64, 0).err(), Some(EINVAL));
    }

    #[test]
    fn sealed_block_has_a_checksum_and_no_stale_bytes() {
        let mut leaf = buf(0);
        for slot in 0..10 {
            let key = Key::new(slot as u64, 1, 0);
            leaf.insert_item(slot, &key, 100).unwrap().fill(0xaa);
        }
        for _ in 0..8 {
            leaf.remove_item(1).unwrap();
        }
        leaf.seal(ChecksumType::Crc32c).unwrap();
        assert_eq!(leaf.flags(), HEADER_FLAG_WRITTEN | (1 << 56));
        let bytes = leaf.bytes();
        assert_eq!(bytes[..4], *ChecksumType::Crc32c.of(&bytes[32..]).bytes());
        assert!(bytes[4..32].iter().all(|byte| *byte == 0));
        let unused = HEADER_SIZE + 2 * ITEM_SIZE..4096 - 200;
        assert!(bytes[unused].iter().all(|byte| *byte == 0));
        assert!(bytes[4096 - 200..].iter().all(|byte| *byte == 0xaa));
    }

    #[test]
    fn copy_changes_only_the_header() {
        let mut leaf = buf(0);
        leaf.insert_item(0, &Key::new(1, 2, 3), 50).unwrap().fill(7);
        leaf.seal(ChecksumType::Crc32c).unwrap();
        let copy = NodeBuf::copy_of(&leaf, 2 * BYTENR, 10, 256).unwrap();
        assert_eq!(copy.bytenr(), 2 * BYTENR);
        assert_eq!((copy.generation(), copy.owner()), (10, 256));
        assert_eq!(copy.flags(), 1 << 56);
        assert_eq!(copy.bytes()[HEADER_SIZE..], leaf.bytes()[HEADER_SIZE..]);
    }

    #[test]
    fn entries_move_only_where_they_fit() {
        let (mut src, mut dst) = (buf(0), buf(0));
        src.insert_item(0, &Key::new(5, 1, 0), 2000)
            .unwrap()
            .fill(5);
        src.insert_item(1, &Key::new(6, 1, 0), 1000)
            .unwrap()
            .fill(6);
        dst.insert_item(0, &Key::new(4, 1, 0), 2500)
            .unwrap()
            .fill(4);
        assert_eq!(
            NodeBuf::move_entries(&mut src, 0, 2, &mut dst, 1),
            Err(EOVERFLOW)
        );
        assert_eq!(
            NodeBuf::move_entries(&mut src, 1, 2, &mut dst, 1),
            Err(EINVAL)
        );
        assert_eq!(
            NodeBuf::move_entries(&mut src, 0, 1, &mut buf(1), 0),
            Err(EINVAL)
        );
        NodeBuf::move_entries(&mut src, 1, 1, &mut dst, 1).unwrap();
        assert_eq!(src.used(), 2025);
        assert_eq!(dst.item(1), Some((Key::new(6, 1, 0), &[6u8; 1000][..])));
        assert_eq!(dst.item(0), Some((Key::new(4, 1, 0), &[4u8; 2500][..])));
    }

    /// Blocks that no verification has seen: every mutator answers, and none panics.
    #[test]
    fn damaged_blocks_cause_no_panic() {
        let mut seed = 88172645463325252u64;
        let mut random = move |bound: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % bound as u64) as usize
        };
        for round in 0..4000 {
            let mut bufs: Vec<NodeBuf> = (0..2).map(|_| buf((round % 2) as u8)).collect();
            for buf in &mut bufs {
                for slot in 0..20 {
                    let key = Key::new(slot as u64, 1, 0);
                    if buf.is_leaf() {
                        buf.insert_item(slot, &key, 80).unwrap();
                    } else {
                        buf.insert_ptr(slot, &key, 4096, 1).unwrap();
                    }
                }
                for _ in 0..=random(6) {
                    // The count, or a byte among the heads.
                    let at = match random(3) {
                        0 => offset_of!(Header, nritems) + random(4),
                        _ => HEADER_SIZE + random(20 * ITEM_SIZE),
                    };
                    buf.raw_mut()[at] = random(256) as u8;
                }
            }
            let (first, second) = bufs.split_at_mut(1);
            let (a, b) = (&mut first[0], &mut second[0]);
            let key = Key::new(3, 3, 3);
            for _ in 0..10 {
                let slot = random(24);
                let _ = a.insert_item(slot, &key, random(3000));
                let _ = a.remove_item(slot);
                let _ = a.set_item_key(slot, &key);
                let _ = a.item_mut(slot).map(|data| data.fill(1));
                let _ = a.insert_ptr(slot, &key, 1, 1);
                let _ = a.remove_ptr(slot);
                let _ = a.set_child(slot, 1, 1);
                let _ = a.set_ptr_key(slot, &key);
                let _ = NodeBuf::move_entries(a, random(24), random(24), b, slot);
                let _ = NodeBuf::move_entries(b, random(24), random(24), a, slot);
                let _ = a.seal(ChecksumType::Crc32c);
            }
        }
    }
}
