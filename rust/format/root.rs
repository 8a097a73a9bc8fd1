// SPDX-License-Identifier: GPL-2.0
//! Tree roots, and the references between subvolumes.

use super::inode::{inode_flags, InodeItem, Timespec};
use super::key::DiskKey;
use super::read_at;
use core::mem::offset_of;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::FromZeros as _;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use kernel::prelude::*;
use kernel::sync::{Arc, UniqueArc};

/// The subvolume is read-only.
pub const ROOT_SUBVOL_RDONLY: u64 = 1 << 0;
/// The subvolume is being deleted; set in memory and on disk.
pub const ROOT_SUBVOL_DEAD: u64 = 1 << 48;

/// A tree's root, 439 bytes; keyed by (tree id, generation of a snapshot or 0).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RootItem {
    /// Of old, the root directory; now mostly flags.
    pub inode: InodeItem,
    /// The generation of the root block.
    pub generation: U64,
    /// The root directory's inode number: 256 in a subvolume.
    pub root_dirid: U64,
    /// The root block's logical address, in bytes.
    pub bytenr: U64,
    /// A limit that nothing keeps.
    pub byte_limit: U64,
    /// Bytes used, not kept.
    pub bytes_used: U64,
    /// The last transaction in which blocks of this tree came to be shared.
    pub last_snapshot: U64,
    /// [`ROOT_SUBVOL_RDONLY`] and others; valid with [`inode_flags::ROOT_ITEM_INIT`] alone, as is
    /// `byte_limit`.
    pub flags: U64,
    /// The number of references; 0 while the subvolume is being deleted.
    pub refs: U32,
    /// How far deletion got.
    pub drop_progress: DiskKey,
    /// The level at which deletion stands.
    pub drop_level: u8,
    /// The root block's level.
    pub level: u8,
    /// Equals `generation`, or else the fields below are not valid.
    pub generation_v2: U64,
    /// The subvolume's UUID.
    pub uuid: [u8; 16],
    /// The UUID of the subvolume that this is a snapshot of.
    pub parent_uuid: [u8; 16],
    /// The UUID of the subvolume that this was received from.
    pub received_uuid: [u8; 16],
    /// The last transaction that changed an inode.
    pub ctransid: U64,
    /// The transaction that made the subvolume.
    pub otransid: U64,
    /// The sender's transaction of a received subvolume.
    pub stransid: U64,
    /// The transaction of receiving.
    pub rtransid: U64,
    /// Time of `ctransid`.
    pub ctime: Timespec,
    /// Time of `otransid`.
    pub otime: Timespec,
    /// Time of `stransid`.
    pub stime: Timespec,
    /// Time of `rtransid`.
    pub rtime: Timespec,
    /// Zero.
    pub reserved: [U64; 8],
}

/// The size in bytes of a root item before UUIDs and times were added.
pub const OLD_ROOT_ITEM_SIZE: usize = 239;

const ROOT_ITEM_SIZE: usize = size_of::<RootItem>();

const _: () = assert!(ROOT_ITEM_SIZE == 439);
const _: () = assert!(offset_of!(RootItem, generation_v2) == OLD_ROOT_ITEM_SIZE);

/// What a root item says of the root block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootBlock {
    /// Its logical address, in bytes.
    pub bytenr: u64,
    /// Its generation.
    pub generation: u64,
    /// Its level.
    pub level: u8,
}

impl RootItem {
    /// As [`Self::parse`], into memory of its own: for all but a short look, a root item is too
    /// large for the stack.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` for a bad size, `ENOMEM`.
    pub fn parse_boxed(bytes: &[u8]) -> Result<KBox<RootItem>> {
        let mut item = Self::zeroed_boxed()?;
        item.fill(bytes)?;
        Ok(item)
    }

    /// As [`Self::parse_boxed`], for many holders.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` for a bad size, `ENOMEM`.
    pub fn parse_shared(bytes: &[u8]) -> Result<Arc<RootItem>> {
        let item = UniqueArc::new_uninit(GFP_KERNEL)?;
        let mut item = item.write(RootItem::new_zeroed());
        item.fill(bytes)?;
        Ok(item.into())
    }

    /// All zero.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn zeroed_boxed() -> Result<KBox<RootItem>> {
        let item = KBox::new_uninit(GFP_KERNEL)?;
        Ok(KBox::write(item, RootItem::new_zeroed()))
    }

    /// A copy.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn try_clone(&self) -> Result<KBox<RootItem>> {
        let copy = KBox::new_uninit(GFP_KERNEL)?;
        Ok(KBox::write(copy, *self))
    }

    /// Where the root block is.
    pub fn block(&self) -> RootBlock {
        RootBlock {
            bytenr: self.bytenr.get(),
            generation: self.generation.get(),
            level: self.level,
        }
    }

    /// Where the root block is, by the bytes of a root item.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` for a bad size.
    pub fn block_of(bytes: &[u8]) -> Result<RootBlock> {
        if !matches!(bytes.len(), OLD_ROOT_ITEM_SIZE | ROOT_ITEM_SIZE) {
            return Err(EUCLEAN);
        }
        Ok(RootBlock {
            bytenr: read_at::<U64>(bytes, offset_of!(RootItem, bytenr))?.get(),
            generation: read_at::<U64>(bytes, offset_of!(RootItem, generation))?.get(),
            level: read_at(bytes, offset_of!(RootItem, level))?,
        })
    }

    /// Reads a root item of either size; fields that are absent or not valid read as zero.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` for any other size.
    pub fn parse(bytes: &[u8]) -> Result<RootItem> {
        let mut item = RootItem::new_zeroed();
        item.fill(bytes)?;
        Ok(item)
    }

    /// Reads into an item of zeros.
    fn fill(&mut self, bytes: &[u8]) -> Result {
        if !matches!(bytes.len(), OLD_ROOT_ITEM_SIZE | ROOT_ITEM_SIZE) {
            return Err(EUCLEAN);
        }
        let known = self.as_mut_bytes().get_mut(..bytes.len()).ok_or(EUCLEAN)?;
        known.copy_from_slice(bytes);
        if self.generation_v2 != self.generation {
            let tail = self.as_mut_bytes().get_mut(OLD_ROOT_ITEM_SIZE..);
            tail.ok_or(EUCLEAN)?.fill(0);
        }
        // Who made the item without saying so left anything there:
        // `btrfs_check_and_init_root_item`.
        if self.inode.flags.get() & inode_flags::ROOT_ITEM_INIT == 0 {
            self.flags = 0.into();
            self.byte_limit = 0.into();
        }
        Ok(())
    }

    /// Sets the flags, and that they are valid.
    pub fn set_flags(&mut self, flags: u64) {
        self.flags = flags.into();
        let of_inode = self.inode.flags.get();
        self.inode.flags = (of_inode | inode_flags::ROOT_ITEM_INIT).into();
    }

    /// Whether the subvolume is read-only.
    pub fn is_read_only(&self) -> bool {
        self.flags.get() & ROOT_SUBVOL_RDONLY != 0
    }

    /// Whether the subvolume is being deleted.
    pub fn is_dead(&self) -> bool {
        self.flags.get() & ROOT_SUBVOL_DEAD != 0 || self.refs.get() == 0
    }
}

/// A reference between a subvolume and the directory it is seen in, 18 bytes and the name.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RootRef {
    /// The directory's inode number in the parent.
    pub dirid: U64,
    /// The `DIR_INDEX` of the entry.
    pub sequence: U64,
    /// The name's length in bytes.
    pub name_len: U16,
}

const _: () = assert!(size_of::<RootRef>() == 18);
