// SPDX-License-Identifier: GPL-2.0
//! What a block must be before anybody uses it: the node that its parent points to, whole and in
//! order.
//!
//! What the items of a leaf hold is held against the rules of [`super::check`].

use super::check::{check_items, ItemFault, Limits};
use super::node::{Geometry, Node, NodePtr};
use crate::format::checksum::CSUM_FIELD;
use crate::format::header::{
    Header, Item, KeyPtr, BACKREF_REV_SHIFT, HEADER_FLAG_RELOC, HEADER_FLAG_WRITTEN, HEADER_SIZE,
    ITEM_SIZE, KEY_PTR_SIZE, MAX_LEVEL, MIXED_BACKREF_REV,
};
use crate::format::{tree_id, Checksum, ChecksumType, Key};
use core::fmt;
use kernel::prelude::*;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The header has another address.
    Start(u64),
    /// The header has another volume's UUID.
    Fsid,
    /// The checksum in the header, and that of the bytes; the level, which may help to guess.
    Checksum(Checksum, Checksum, u8),
    /// The level is not the one that the parent has.
    Level(u8),
    /// The generation is not the one that the parent has.
    Transid(u64),
    /// The owner is not the tree that is walked, nor one that may share with it.
    Owner(u64),
    /// The first key is not the one that the parent has.
    FirstKey(Option<Key>),
    /// The header's flags are not those of a block on disk.
    Flags(u64),
    /// The number of entries does not fit, or is zero where it cannot be.
    Nritems(u32),
    /// The key in this slot is not above the one before.
    KeyOrder(usize, Key),
    /// The data of the item in this slot ends here, not where the data before it starts.
    ItemEnd(usize, u64),
    /// The data of the item in this slot overlaps with the items.
    ItemOverlap(usize),
    /// The pointer in this slot is zero or not aligned.
    BlockPtr(usize, u64),
    /// An item breaks a rule for its type.
    Item(ItemFault),
}

impl Fault {
    /// `EIO` where the block is not what was written, `EUCLEAN` where what was written is wrong.
    pub fn errno(&self) -> Error {
        match self {
            Fault::Start(_) | Fault::Fsid | Fault::Checksum(..) | Fault::Transid(_) => EIO,
            _ => EUCLEAN,
        }
    }

    /// Whether the message is a warning, as those on checksums are.
    pub fn is_warning(&self) -> bool {
        matches!(self, Fault::Checksum(..))
    }
}

/// A fault with all that its message needs.
pub struct Report<'a> {
    /// What is wrong.
    pub fault: Fault,
    /// What the parent says.
    pub ptr: &'a NodePtr,
    /// The copy that was read, from 1 on; 0 for a node in memory.
    pub mirror: u32,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault {
            Fault::Start(_) | Fault::Fsid | Fault::Checksum(..) => self.write_misplaced(f),
            Fault::Level(_) | Fault::Transid(_) | Fault::Owner(_) | Fault::FirstKey(_) => {
                self.write_mismatch(f)
            }
            _ => self.write_disorder(f),
        }
    }
}

// Three functions, as every `write!` takes up stack of its own.
impl Report<'_> {
    fn kind(&self) -> &'static str {
        if self.ptr.level == 0 {
            "leaf"
        } else {
            "node"
        }
    }

    /// What is not the block that was written here.
    #[inline(never)]
    fn write_misplaced(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytenr, mirror) = (self.ptr.bytenr, self.mirror);
        match self.fault {
            Fault::Start(found) => {
                write!(
                    f,
                    "bad tree block start, mirror {mirror} want {bytenr} have {found}"
                )
            }
            Fault::Fsid => write!(f, "bad fsid on logical {bytenr} mirror {mirror}"),
            Fault::Checksum(wanted, found, level) => write!(
                f,
                "checksum verify failed on logical {bytenr} mirror {mirror} \
                 wanted {wanted} found {found} level {level}"
            ),
            _ => Ok(()),
        }
    }

    /// What is not the block that the parent means.
    #[inline(never)]
    fn write_mismatch(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NodePtr {
            bytenr,
            generation,
            level,
            tree,
            first_key,
        } = self.ptr;
        let mirror = self.mirror;
        match self.fault {
            Fault::Level(found) => write!(
                f,
                "level verify failed on logical {bytenr} mirror {mirror} wanted {level} found {found}"
            ),
            Fault::Transid(found) => write!(
                f,
                "parent transid verify failed on logical {bytenr} mirror {mirror} \
                 wanted {generation} found {found}"
            ),
            Fault::Owner(found) => write!(
                f,
                "corrupt {}, root={tree} block={bytenr} mirror={mirror} owner mismatch, \
                 have {found} expect {tree}",
                self.kind()
            ),
            Fault::FirstKey(found) => {
                write!(
                    f,
                    "tree first key mismatch detected, bytenr={bytenr} mirror={mirror} \
                     parent_transid={generation} key expected="
                )?;
                write_key(f, *first_key)?;
                write!(f, " has=")?;
                write_key(f, found)
            }
            _ => Ok(()),
        }
    }

    /// What is out of order in the block.
    #[inline(never)]
    fn write_disorder(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytenr, tree, mirror) = (self.ptr.bytenr, self.ptr.tree, self.mirror);
        let kind = self.kind();
        write!(
            f,
            "corrupt {kind}: root={tree} block={bytenr} mirror={mirror}"
        )?;
        match self.fault {
            Fault::Flags(flags) => write!(f, ", invalid flags {flags:#x}"),
            Fault::Nritems(found) => write!(f, ", invalid nritems, have {found}"),
            Fault::KeyOrder(slot, key) => write!(f, " slot={slot}, bad key order, current {key}"),
            Fault::ItemEnd(slot, end) => write!(f, " slot={slot}, unexpected item end, have {end}"),
            Fault::ItemOverlap(slot) => write!(f, " slot={slot}, slot overlaps with its data"),
            Fault::BlockPtr(slot, ptr) => write!(f, " slot={slot}, invalid block pointer {ptr}"),
            Fault::Item(fault) => write!(f, " {fault}"),
            _ => Ok(()),
        }
    }
}

fn write_key(f: &mut fmt::Formatter<'_>, key: Option<Key>) -> fmt::Result {
    match key {
        Some(key) => write!(f, "{key}"),
        None => write!(f, "none"),
    }
}

/// What a block has to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Everything.
    All,
    /// Everything but its checksum, to read what is left of a damaged volume.
    AllButChecksum,
}

/// Makes a node of a block that was read, if it is what `ptr` says, in order, and of items that are
/// right.
///
/// # Errors
///
/// The first fault that was found.
pub fn verify(
    bytes: KVVec<u8>,
    ptr: &NodePtr,
    limits: &Limits,
    check: Check,
) -> core::result::Result<Node, Fault> {
    let node = Node::from_bytes(bytes);
    let header = node.header().ok_or(Fault::Nritems(0))?;
    check_written(header, ptr, &limits.geometry)?;
    if check == Check::All {
        check_sum(&node, header, limits.geometry.checksum)?;
    }
    check_parent(&node, ptr)?;
    check_layout(&node, header, &limits.geometry)?;
    check_items(&node, limits).map_err(Fault::Item)?;
    Ok(node)
}

/// Checks that these are the bytes that were written to this place.
fn check_written(
    header: &Header,
    ptr: &NodePtr,
    geometry: &Geometry,
) -> core::result::Result<(), Fault> {
    let found = header.bytenr.get();
    if found != ptr.bytenr {
        return Err(Fault::Start(found));
    }
    if header.fsid != geometry.fsid {
        return Err(Fault::Fsid);
    }
    Ok(())
}

/// Checks that none of the bytes changed since they were written.
fn check_sum(node: &Node, header: &Header, kind: ChecksumType) -> core::result::Result<(), Fault> {
    let wanted = kind.stored(&header.csum);
    let found = kind.of(node.bytes().get(CSUM_FIELD..).unwrap_or(&[]));
    if wanted != found {
        return Err(Fault::Checksum(wanted, found, header.level));
    }
    Ok(())
}

/// Checks a node, which may be in memory already, against what its parent says.
pub fn check_parent(node: &Node, ptr: &NodePtr) -> core::result::Result<(), Fault> {
    let header = node.header().ok_or(Fault::Nritems(0))?;
    if header.level != ptr.level || header.level >= MAX_LEVEL {
        return Err(Fault::Level(header.level));
    }
    let generation = header.generation.get();
    if ptr.generation != 0 && generation != ptr.generation {
        return Err(Fault::Transid(generation));
    }
    if !may_own(ptr.tree, header.owner.get()) {
        return Err(Fault::Owner(header.owner.get()));
    }
    if let Some(first_key) = ptr.first_key {
        let found = node.key(0);
        if found != Some(first_key) {
            return Err(Fault::FirstKey(found));
        }
    }
    Ok(())
}

/// Whether a block that `owner` allocated may be met in `tree`. Subvolumes share blocks; a tree of
/// 0 is one that is not known, and the trees of a relocation belong to many.
fn may_own(tree: u64, owner: u64) -> bool {
    match tree {
        0 | tree_id::TREE_RELOC => true,
        _ if tree_id::is_fs_tree(tree) => tree_id::is_fs_tree(owner),
        _ => owner == tree,
    }
}

fn check_layout(
    node: &Node,
    header: &Header,
    geometry: &Geometry,
) -> core::result::Result<(), Fault> {
    let flags = header.flags.get();
    if flags & HEADER_FLAG_WRITTEN == 0 || flags >> BACKREF_REV_SHIFT > MIXED_BACKREF_REV {
        return Err(Fault::Flags(flags));
    }
    if header.level == 0 {
        check_leaf(node, header)
    } else {
        check_interior(node, header, geometry)
    }
}

fn check_leaf(node: &Node, header: &Header) -> core::result::Result<(), Fault> {
    let nritems = header.nritems.get();
    let data_size = node.bytes().len().saturating_sub(HEADER_SIZE);
    let heads = (nritems as usize).saturating_mul(ITEM_SIZE);
    let reloc = header.flags.get() & HEADER_FLAG_RELOC != 0;
    if heads > data_size || nritems == 0 && !reloc && never_empty(header.owner.get()) {
        return Err(Fault::Nritems(nritems));
    }
    let items: &[Item] = array(node, heads).ok_or(Fault::Nritems(nritems))?;
    let mut expected = data_size as u64;
    // No item has the lowest key: 0 is not a type.
    let mut before = Key::MIN;
    for (slot, item) in items.iter().enumerate() {
        let key = Key::from(item.key);
        if key <= before {
            return Err(Fault::KeyOrder(slot, key));
        }
        before = key;
        let start = u64::from(item.offset.get());
        let end = start.saturating_add(u64::from(item.size.get()));
        if end != expected {
            return Err(Fault::ItemEnd(slot, end));
        }
        if start < heads as u64 {
            return Err(Fault::ItemOverlap(slot));
        }
        expected = start;
    }
    Ok(())
}

/// The first `size` bytes after the header as an array.
fn array<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    node: &Node,
    size: usize,
) -> Option<&[T]> {
    let end = HEADER_SIZE.checked_add(size)?;
    <[T]>::ref_from_bytes(node.bytes().get(HEADER_SIZE..end)?).ok()
}

/// Whether an empty leaf of this owner can only be an error.
fn never_empty(owner: u64) -> bool {
    matches!(
        owner,
        0 | tree_id::ROOT
            | tree_id::EXTENT
            | tree_id::CHUNK
            | tree_id::DEV
            | tree_id::FS
            | tree_id::DATA_RELOC
    )
}

fn check_interior(
    node: &Node,
    header: &Header,
    geometry: &Geometry,
) -> core::result::Result<(), Fault> {
    let nritems = header.nritems.get();
    let data_size = node.bytes().len().saturating_sub(HEADER_SIZE);
    let size = (nritems as usize).saturating_mul(KEY_PTR_SIZE);
    if nritems == 0 || size > data_size {
        return Err(Fault::Nritems(nritems));
    }
    let ptrs: &[KeyPtr] = array(node, size).ok_or(Fault::Nritems(nritems))?;
    let mut before: Option<Key> = None;
    for (slot, ptr) in ptrs.iter().enumerate() {
        let key = Key::from(ptr.key);
        if before.is_some_and(|before| key <= before) {
            return Err(Fault::KeyOrder(slot, key));
        }
        before = Some(key);
        let bytenr = ptr.blockptr.get();
        if bytenr == 0 || !geometry.is_sector_aligned(bytenr) {
            return Err(Fault::BlockPtr(slot, bytenr));
        }
    }
    Ok(())
}
