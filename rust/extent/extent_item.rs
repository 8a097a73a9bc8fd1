// SPDX-License-Identifier: GPL-2.0
//! One extent item as a value: parsed with all checks, changed, and encoded again. Pure, no I/O.
//!
//! The order of inline references is part of the format: types ascend, and within a type the
//! sequence number (the hash of a data reference, the tree or the parent of any other) descends. C
//! btrfs refuses leaves that break it.

use super::refs::{CountedRef, RefKind};
use crate::format::extent::{
    ExtentDataRef, ExtentItem, InlineRef, SharedDataRef, TreeBlockInfo, FLAG_DATA,
    FLAG_FULL_BACKREF, FLAG_TREE_BLOCK,
};
use crate::format::header::{HEADER_SIZE, ITEM_SIZE, MAX_LEVEL};
use crate::format::{item_type, objectid, read_at, tree_id, Key};
use crate::tree::Geometry;
use kernel::alloc::AllocError;
use kernel::prelude::*;
use zerocopy::IntoBytes;

/// Why an extent item, or a reference item beside it, cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The bytes are not a valid item; what is wrong, in words for the log.
    Malformed(&'static str),
    /// Memory ran out.
    NoMemory,
}

impl From<AllocError> for Fault {
    fn from(_: AllocError) -> Self {
        Fault::NoMemory
    }
}

/// The size in bytes that an extent item stays below; further references become items of their own.
pub fn max_item_size(geometry: &Geometry) -> usize {
    let leaf_data = usize::from(geometry.nodesize).saturating_sub(HEADER_SIZE);
    (leaf_data >> 4).saturating_sub(ITEM_SIZE)
}

/// An extent item.
#[derive(Debug)]
pub struct ExtentRecord {
    /// The number of references, inline and keyed.
    pub refs: u64,
    /// The transaction that allocated the extent.
    pub generation: u64,
    /// The flags, of which one of `FLAG_DATA` and `FLAG_TREE_BLOCK` is set.
    pub flags: u64,
    /// First key and level, in the item of a tree block that is not skinny.
    pub block_info: Option<TreeBlockInfo>,
    /// The inline references, in the order of the format.
    inline: KVec<CountedRef>,
}

/// The size in bytes of an inline reference.
const fn inline_size(kind: &RefKind) -> usize {
    match kind {
        RefKind::TreeBlock { .. } | RefKind::SharedBlock { .. } => size_of::<InlineRef>(),
        RefKind::Data { .. } => 1 + size_of::<ExtentDataRef>(),
        RefKind::SharedData { .. } => size_of::<InlineRef>() + size_of::<SharedDataRef>(),
    }
}

/// Whether `kind` is sound as a reference of the extent at `bytenr`.
fn check_kind(kind: &RefKind, geometry: &Geometry) -> core::result::Result<(), Fault> {
    match *kind {
        RefKind::TreeBlock { .. } => Ok(()),
        RefKind::SharedBlock { parent } | RefKind::SharedData { parent } => {
            if parent == 0 || !geometry.is_sector_aligned(parent) {
                return Err(Fault::Malformed("parent is not the address of a block"));
            }
            Ok(())
        }
        RefKind::Data { root, ino, offset } => {
            if !tree_id::is_fs_tree(root) && root != tree_id::DATA_RELOC && root != tree_id::ROOT {
                return Err(Fault::Malformed("data reference by a tree without files"));
            }
            if !(objectid::FIRST_FREE..=objectid::LAST_FREE).contains(&ino) {
                return Err(Fault::Malformed("data reference by no inode"));
            }
            if !geometry.is_sector_aligned(offset) {
                return Err(Fault::Malformed("data reference at an unaligned offset"));
            }
            Ok(())
        }
    }
}

impl ExtentRecord {
    /// A record without references.
    pub fn new(generation: u64, flags: u64, block_info: Option<TreeBlockInfo>) -> Self {
        ExtentRecord {
            refs: 0,
            generation,
            flags,
            block_info,
            inline: KVec::new(),
        }
    }

    /// Parses the extent item `bytes`, keyed `key`, checking all that can be checked without other
    /// items.
    pub fn parse(
        key: &Key,
        bytes: &[u8],
        geometry: &Geometry,
    ) -> core::result::Result<Self, Fault> {
        let short = |_| Fault::Malformed("item is too short");
        let head: ExtentItem = read_at(bytes, 0).map_err(short)?;
        let flags = head.flags.get();
        let mut at = size_of::<ExtentItem>();
        let mut block_info = None;
        match flags & (FLAG_DATA | FLAG_TREE_BLOCK) {
            FLAG_DATA => {
                if key.typ != item_type::EXTENT_ITEM || !geometry.is_sector_aligned(key.offset) {
                    return Err(Fault::Malformed("key is not that of a data extent"));
                }
                if flags & FLAG_FULL_BACKREF != 0 {
                    return Err(Fault::Malformed("data extent with full back references"));
                }
            }
            FLAG_TREE_BLOCK if key.typ == item_type::METADATA_ITEM => {
                if key.offset >= u64::from(MAX_LEVEL) {
                    return Err(Fault::Malformed("level is too high"));
                }
            }
            FLAG_TREE_BLOCK => {
                if key.typ != item_type::EXTENT_ITEM || key.offset != u64::from(geometry.nodesize) {
                    return Err(Fault::Malformed("key is not that of a tree block"));
                }
                let info: TreeBlockInfo = read_at(bytes, at).map_err(short)?;
                if info.level >= MAX_LEVEL {
                    return Err(Fault::Malformed("level is too high"));
                }
                at = at.saturating_add(size_of::<TreeBlockInfo>());
                block_info = Some(info);
            }
            _ => return Err(Fault::Malformed("neither data nor tree block")),
        }
        if key.objectid == 0 || !geometry.is_sector_aligned(key.objectid) {
            return Err(Fault::Malformed("address is not aligned"));
        }
        let mut record = ExtentRecord {
            refs: head.refs.get(),
            generation: head.generation.get(),
            flags,
            block_info,
            inline: KVec::new(),
        };
        record.parse_inline(bytes, at, geometry)?;
        Ok(record)
    }

    fn parse_inline(
        &mut self,
        bytes: &[u8],
        mut at: usize,
        geometry: &Geometry,
    ) -> core::result::Result<(), Fault> {
        let mut last = (0u8, u64::MAX);
        while at < bytes.len() {
            let found = parse_inline_ref(bytes, at)?;
            check_kind(&found.kind, geometry)?;
            if found.kind.is_data() != (self.flags & FLAG_DATA != 0) {
                return Err(Fault::Malformed("reference of the wrong kind"));
            }
            if found.count == 0 {
                return Err(Fault::Malformed("reference with count 0"));
            }
            let place = (found.kind.item_type(), found.kind.sequence());
            if place.0 < last.0 || (place.0 == last.0 && place.1 > last.1) {
                return Err(Fault::Malformed("inline references out of order"));
            }
            last = place;
            at = at.saturating_add(inline_size(&found.kind));
            self.inline.push(found, GFP_KERNEL)?;
        }
        if self.inline_refs() > self.refs {
            return Err(Fault::Malformed("more inline references than references"));
        }
        Ok(())
    }

    /// The inline references, in the order of the format.
    pub fn inline(&self) -> &[CountedRef] {
        &self.inline
    }

    /// The sum of the counts of the inline references.
    pub fn inline_refs(&self) -> u64 {
        self.inline
            .iter()
            .fold(0u64, |sum, r| sum.saturating_add(u64::from(r.count)))
    }

    /// The item's size in bytes.
    pub fn encoded_size(&self) -> usize {
        let info = self.block_info.map_or(0, |_| size_of::<TreeBlockInfo>());
        self.inline
            .iter()
            .fold(size_of::<ExtentItem>().saturating_add(info), |sum, r| {
                sum.saturating_add(inline_size(&r.kind))
            })
    }

    /// The item's bytes. Fails with `ENOMEM`.
    pub fn encode(&self) -> Result<KVec<u8>> {
        let mut bytes = KVec::with_capacity(self.encoded_size(), GFP_KERNEL)?;
        let head = ExtentItem {
            refs: self.refs.into(),
            generation: self.generation.into(),
            flags: self.flags.into(),
        };
        bytes.extend_from_slice(head.as_bytes(), GFP_KERNEL)?;
        if let Some(info) = &self.block_info {
            bytes.extend_from_slice(info.as_bytes(), GFP_KERNEL)?;
        }
        for r in &self.inline {
            bytes.push(r.kind.item_type(), GFP_KERNEL)?;
            match r.kind {
                RefKind::TreeBlock { root: number } | RefKind::SharedBlock { parent: number } => {
                    bytes.extend_from_slice(&number.to_le_bytes(), GFP_KERNEL)?;
                }
                RefKind::SharedData { parent } => {
                    bytes.extend_from_slice(&parent.to_le_bytes(), GFP_KERNEL)?;
                    bytes.extend_from_slice(&r.count.to_le_bytes(), GFP_KERNEL)?;
                }
                RefKind::Data { .. } => {
                    bytes.extend_from_slice(&encode_keyed(r)?, GFP_KERNEL)?;
                }
            }
        }
        Ok(bytes)
    }

    /// Where `kind` stands among the inline references, or where it would have to be put.
    fn find(&self, kind: &RefKind) -> core::result::Result<usize, usize> {
        let place = (kind.item_type(), kind.sequence());
        for (at, r) in self.inline.iter().enumerate() {
            if r.kind == *kind {
                return Ok(at);
            }
            let other = (r.kind.item_type(), r.kind.sequence());
            // Behind those of equal hash: one of them may be the one looked for.
            if other.0 > place.0 || (other.0 == place.0 && other.1 < place.1) {
                return Err(at);
            }
        }
        Err(self.inline.len())
    }

    /// The number of inline references that `kind` holds, 0 if none.
    pub fn inline_count(&self, kind: &RefKind) -> u32 {
        self.find(kind)
            .ok()
            .and_then(|at| self.inline.get(at))
            .map_or(0, |r| r.count)
    }

    /// Sets the number of inline references that `kind` holds; `refs` is not touched. A new holder
    /// is put in its place, one without references goes. Fails with `ENOMEM`.
    pub fn set_inline(&mut self, kind: RefKind, count: u32) -> Result {
        match self.find(&kind) {
            Ok(at) if count == 0 => {
                self.inline.remove(at).map_err(|_| EINVAL)?;
            }
            Ok(at) => self.inline.get_mut(at).ok_or(EINVAL)?.count = count,
            Err(_) if count == 0 => {}
            Err(at) => {
                self.inline.reserve(1, GFP_KERNEL)?;
                self.inline
                    .insert_within_capacity(at, CountedRef { kind, count })
                    .map_err(|_| EINVAL)?;
            }
        }
        Ok(())
    }

    /// Whether one more inline reference of this kind keeps the item within its limit.
    pub fn fits_inline(&self, kind: &RefKind, geometry: &Geometry) -> bool {
        self.encoded_size().saturating_add(inline_size(kind)) < max_item_size(geometry)
    }
}

fn parse_inline_ref(bytes: &[u8], at: usize) -> core::result::Result<CountedRef, Fault> {
    let cut = |_| Fault::Malformed("inline reference is cut off");
    let head: InlineRef = read_at(bytes, at).map_err(cut)?;
    let number = head.offset.get();
    let after = at.saturating_add(size_of::<InlineRef>());
    let (kind, count) = match head.typ {
        item_type::TREE_BLOCK_REF => (RefKind::TreeBlock { root: number }, 1),
        item_type::SHARED_BLOCK_REF => (RefKind::SharedBlock { parent: number }, 1),
        item_type::SHARED_DATA_REF => {
            let data: SharedDataRef = read_at(bytes, after).map_err(cut)?;
            (RefKind::SharedData { parent: number }, data.count.get())
        }
        item_type::EXTENT_DATA_REF => {
            let data: ExtentDataRef = read_at(bytes, at.saturating_add(1)).map_err(cut)?;
            (data_kind(&data), data.count.get())
        }
        _ => return Err(Fault::Malformed("unknown type of inline reference")),
    };
    Ok(CountedRef { kind, count })
}

fn data_kind(data: &ExtentDataRef) -> RefKind {
    RefKind::Data {
        root: data.root.get(),
        ino: data.objectid.get(),
        offset: data.offset.get(),
    }
}

/// Whether items of this type, keyed by an extent's address, are references to it.
pub const fn is_keyed_ref(typ: u8) -> bool {
    matches!(
        typ,
        item_type::TREE_BLOCK_REF
            | item_type::EXTENT_DATA_REF
            | item_type::SHARED_BLOCK_REF
            | item_type::SHARED_DATA_REF
    )
}

/// Parses a reference that is an item of its own; its key's type is one for which [`is_keyed_ref`]
/// holds.
pub fn parse_keyed(
    key: &Key,
    bytes: &[u8],
    geometry: &Geometry,
) -> core::result::Result<CountedRef, Fault> {
    let size = Fault::Malformed("reference item of the wrong size");
    let (kind, count, len) = match key.typ {
        item_type::TREE_BLOCK_REF => (RefKind::TreeBlock { root: key.offset }, 1, 0),
        item_type::SHARED_BLOCK_REF => (RefKind::SharedBlock { parent: key.offset }, 1, 0),
        item_type::SHARED_DATA_REF => {
            let data: SharedDataRef = read_at(bytes, 0).map_err(|_| size)?;
            let kind = RefKind::SharedData { parent: key.offset };
            (kind, data.count.get(), size_of::<SharedDataRef>())
        }
        item_type::EXTENT_DATA_REF => {
            let data: ExtentDataRef = read_at(bytes, 0).map_err(|_| size)?;
            (
                data_kind(&data),
                data.count.get(),
                size_of::<ExtentDataRef>(),
            )
        }
        _ => return Err(Fault::Malformed("not a reference item")),
    };
    if bytes.len() != len {
        return Err(size);
    }
    check_kind(&kind, geometry)?;
    if count == 0 {
        return Err(Fault::Malformed("reference with count 0"));
    }
    Ok(CountedRef { kind, count })
}

/// The bytes of a reference that is an item of its own. Fails with `ENOMEM`.
pub fn encode_keyed(r: &CountedRef) -> Result<KVec<u8>> {
    let mut bytes = KVec::new();
    match r.kind {
        RefKind::TreeBlock { .. } | RefKind::SharedBlock { .. } => {}
        RefKind::SharedData { .. } => {
            bytes.extend_from_slice(&r.count.to_le_bytes(), GFP_KERNEL)?;
        }
        RefKind::Data { root, ino, offset } => {
            let data = ExtentDataRef {
                root: root.into(),
                objectid: ino.into(),
                offset: offset.into(),
                count: r.count.into(),
            };
            bytes.extend_from_slice(data.as_bytes(), GFP_KERNEL)?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{BlockSize, ChecksumType};

    const GEOMETRY: &Geometry = &Geometry {
        nodesize: BlockSize::new(16384).unwrap(),
        sectorsize: BlockSize::new(4096).unwrap(),
        checksum: ChecksumType::Crc32c,
        fsid: [0; 16],
        chunk_tree_uuid: [0; 16],
    };
    const BYTENR: u64 = 30 << 20;

    fn data(n: u64) -> RefKind {
        RefKind::Data {
            root: 5,
            ino: 257 + n,
            offset: n << 12,
        }
    }

    fn data_key() -> Key {
        Key::new(BYTENR, item_type::EXTENT_ITEM, 8192)
    }

    fn add(record: &mut ExtentRecord, kind: RefKind, count: u32) {
        let have = record.inline_count(&kind);
        record.set_inline(kind, have + count).unwrap();
        record.refs += u64::from(count);
    }

    #[test]
    fn a_tree_block_item_is_what_btrfs_writes() {
        let mut record = ExtentRecord::new(7, FLAG_TREE_BLOCK, None);
        add(&mut record, RefKind::TreeBlock { root: 5 }, 1);
        let mut expected = std::vec![];
        expected.extend_from_slice(&1u64.to_le_bytes());
        expected.extend_from_slice(&7u64.to_le_bytes());
        expected.extend_from_slice(&2u64.to_le_bytes());
        expected.push(176);
        expected.extend_from_slice(&5u64.to_le_bytes());
        assert_eq!(&*record.encode().unwrap(), &expected[..]);
        assert_eq!(record.encoded_size(), 33);
    }

    #[test]
    fn inline_refs_are_ordered_and_survive_a_round_trip() {
        let mut record = ExtentRecord::new(7, FLAG_DATA, None);
        add(&mut record, RefKind::SharedData { parent: 4096 }, 2);
        add(&mut record, RefKind::SharedData { parent: 8192 }, 1);
        for n in [3, 1, 4, 0, 5, 9, 2, 6] {
            add(&mut record, data(n), 1 + n as u32);
        }
        let places: std::vec::Vec<_> = record
            .inline()
            .iter()
            .map(|r| (r.kind.item_type(), r.kind.sequence()))
            .collect();
        for pair in places.windows(2) {
            assert!(pair[0].0 < pair[1].0 || (pair[0].0 == pair[1].0 && pair[0].1 > pair[1].1));
        }
        let bytes = record.encode().unwrap();
        assert_eq!(bytes.len(), record.encoded_size());
        let again = ExtentRecord::parse(&data_key(), &bytes, GEOMETRY).unwrap();
        assert_eq!(again.inline(), record.inline());
        assert_eq!(again.refs, record.refs);
        assert_eq!(again.inline_count(&data(9)), 10);
        assert_eq!(again.inline_count(&data(7)), 0);
    }

    /// Two data references with the same hash.
    fn colliding() -> (RefKind, RefKind) {
        let kind = |ino, offset| RefKind::Data {
            root: 5,
            ino,
            offset,
        };
        (kind(236507, 2342010880), kind(1047484, 4091428864))
    }

    #[test]
    fn refs_of_equal_hash_are_told_apart() {
        let (a, b) = colliding();
        assert!(a != b && a.key(BYTENR) == b.key(BYTENR));
        let mut record = ExtentRecord::new(7, FLAG_DATA, None);
        add(&mut record, a, 1);
        add(&mut record, b, 2);
        let bytes = record.encode().unwrap();
        let mut again = ExtentRecord::parse(&data_key(), &bytes, GEOMETRY).unwrap();
        assert_eq!((again.inline_count(&a), again.inline_count(&b)), (1, 2));
        again.set_inline(a, 0).unwrap();
        assert_eq!((again.inline_count(&a), again.inline_count(&b)), (0, 2));
    }

    #[test]
    fn an_item_stays_below_its_limit() {
        assert_eq!(max_item_size(GEOMETRY), 992);
        let mut record = ExtentRecord::new(7, FLAG_DATA, None);
        let mut n = 0;
        while record.fits_inline(&data(n), GEOMETRY) {
            add(&mut record, data(n), 1);
            n += 1;
        }
        // (992 - 24) / 29, where an item of just the limit is too large.
        assert_eq!(n, 33);
        assert!(record.encoded_size() < 992);
        assert!(
            record.fits_inline(&RefKind::SharedData { parent: 4096 }, GEOMETRY)
                == (24 + 33 * 29 + 13 < 992)
        );
    }

    #[test]
    fn bad_items_are_refused() {
        let mut record = ExtentRecord::new(7, FLAG_DATA, None);
        add(&mut record, data(1), 1);
        add(&mut record, RefKind::SharedData { parent: 4096 }, 1);
        let good = record.encode().unwrap();
        let parse = |key: &Key, bytes: &[u8]| ExtentRecord::parse(key, bytes, GEOMETRY).err();
        assert_eq!(parse(&data_key(), &good), None);
        for len in 0..good.len() {
            // Cutting a whole reference off is valid; it then is a keyed one.
            let valid = len == 24 || len == 24 + 29;
            assert_eq!(parse(&data_key(), &good[..len]).is_none(), valid, "{len}");
        }
        let skinny = Key::new(BYTENR, item_type::METADATA_ITEM, 0);
        assert!(parse(&skinny, &good).is_some());
        let change = |at: usize, value: u8| {
            let mut bad = std::vec::Vec::from(&good[..]);
            bad[at] = value;
            parse(&data_key(), &bad)
        };
        assert!(
            change(0, 1).is_some(),
            "more inline references than references"
        );
        assert!(change(16, 3).is_some(), "both kinds");
        assert!(change(17, 1).is_some(), "full back references of data");
        assert!(
            change(24, item_type::TREE_BLOCK_REF).is_some(),
            "wrong kind"
        );
        assert!(change(24, 1).is_some(), "unknown type");
        assert!(change(24 + 25, 0).is_some(), "count 0");
        assert!(change(24 + 17, 1).is_some(), "unaligned offset");
        assert!(change(24 + 29 + 1, 1).is_some(), "unaligned parent");
    }

    #[test]
    fn wrong_order_is_refused() {
        let mut record = ExtentRecord::new(7, FLAG_TREE_BLOCK, None);
        let key = Key::new(BYTENR, item_type::METADATA_ITEM, 1);
        add(&mut record, RefKind::TreeBlock { root: 5 }, 1);
        add(&mut record, RefKind::TreeBlock { root: 257 }, 1);
        let good = record.encode().unwrap();
        assert!(ExtentRecord::parse(&key, &good, GEOMETRY).is_ok());
        let mut swapped = std::vec::Vec::from(&good[..24]);
        swapped.extend_from_slice(&good[33..]);
        swapped.extend_from_slice(&good[24..33]);
        assert_eq!(
            ExtentRecord::parse(&key, &swapped, GEOMETRY).unwrap_err(),
            Fault::Malformed("inline references out of order")
        );
    }

    #[test]
    fn old_tree_block_items_hold_level_and_key() {
        let first = Key::new(256, item_type::INODE_ITEM, 0);
        let info = TreeBlockInfo {
            key: first.into(),
            level: 2,
        };
        let mut record = ExtentRecord::new(7, FLAG_TREE_BLOCK | FLAG_FULL_BACKREF, Some(info));
        add(&mut record, RefKind::SharedBlock { parent: 65536 }, 1);
        let bytes = record.encode().unwrap();
        assert_eq!(bytes.len(), 24 + 18 + 9);
        let key = Key::new(BYTENR, item_type::EXTENT_ITEM, 16384);
        let again = ExtentRecord::parse(&key, &bytes, GEOMETRY).unwrap();
        let info = again.block_info.unwrap();
        assert_eq!((info.level, Key::from(info.key)), (2, first));
        let wrong_size = Key::new(BYTENR, item_type::EXTENT_ITEM, 8192);
        assert!(ExtentRecord::parse(&wrong_size, &bytes, GEOMETRY).is_err());
    }

    #[test]
    fn keyed_refs_round_trip() {
        for (kind, count) in [
            (RefKind::TreeBlock { root: 5 }, 1),
            (RefKind::SharedBlock { parent: 65536 }, 1),
            (RefKind::SharedData { parent: 65536 }, 9),
            (data(3), 70000),
        ] {
            let r = CountedRef { kind, count };
            let bytes = encode_keyed(&r).unwrap();
            assert_eq!(parse_keyed(&kind.key(BYTENR), &bytes, GEOMETRY), Ok(r));
            let mut longer = std::vec::Vec::from(&bytes[..]);
            longer.push(0);
            assert!(parse_keyed(&kind.key(BYTENR), &longer, GEOMETRY).is_err());
        }
        let zero = CountedRef {
            kind: data(3),
            count: 0,
        };
        let bytes = encode_keyed(&zero).unwrap();
        assert!(parse_keyed(&data(3).key(BYTENR), &bytes, GEOMETRY).is_err());
    }
}
