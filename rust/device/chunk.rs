// SPDX-License-Identifier: GPL-2.0
//! One chunk: its checks, and where its copies are.

use super::BlockDevice;
use crate::format::chunk::{block_group_flags as flags, Stripe, STRIPE_LEN};
use crate::format::{item_type, objectid, read, read_at, BlockSize, Key};
use crate::fs_err;
use core::fmt;
use kernel::prelude::*;

type Item = crate::format::chunk::Chunk;

/// A mapped range of logical addresses. One that [`Chunk::parse`] made lies within the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where the range starts, in logical bytes.
    pub logical: u64,
    /// Its length in bytes.
    pub length: u64,
    /// [`crate::format::chunk::block_group_flags`].
    pub flags: u64,
    /// Where the first copy starts, in physical bytes.
    pub first: u64,
    /// Where the second copy starts, for DUP.
    pub second: Option<u64>,
}

/// What a chunk is held against.
#[derive(Clone, Copy, Debug)]
pub struct ChunkLimits {
    /// The size of a sector.
    pub sectorsize: BlockSize,
    /// The id of the only device.
    pub devid: u64,
    /// Its UUID.
    pub dev_uuid: [u8; 16],
    /// How much of it the volume uses, in bytes.
    pub device_bytes: u64,
}

/// Where a chunk item was found, for messages.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// The system chunk array of the superblock.
    SysArray,
    /// The chunk tree.
    Leaf {
        /// The leaf's logical address, in bytes.
        bytenr: u64,
        /// The item's slot.
        slot: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::SysArray => write!(f, "corrupt superblock syschunk array:"),
            Origin::Leaf { bytenr, slot } => {
                write!(f, "corrupt leaf: root=3 block={bytenr} slot={slot}")
            }
        }
    }
}

/// What is wrong with a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The key is not that of a chunk item.
    Key(Key),
    /// The item has not the size that its stripes need.
    ItemSize(usize),
    /// The number of stripes does not fit the profile.
    NumStripes(u16),
    /// The start is not aligned to sectors.
    Logical,
    /// The chunk's sector size is not the volume's.
    SectorSize(u32),
    /// The length is zero, not aligned, or beyond all addresses.
    Length(u64),
    /// The stripe length is not 64 KiB.
    StripeLen(u64),
    /// Unknown bits, no type, mixed types, or several profiles.
    Type(u64),
    /// RAID, which needs more than one device.
    Profile(u64),
    /// A stripe is on a device that is not there.
    Device(u64),
    /// A stripe does not lie within the device, or is not aligned.
    Physical(u64),
    /// Another chunk has a part of the same addresses.
    Overlap(u64),
    /// Another chunk has a part of the same physical range.
    PhysicalOverlap(u64),
    /// The chunk tree and the system chunk array disagree.
    SysArray,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Key(key) => write!(f, "invalid chunk key {key}"),
            Fault::ItemSize(size) => write!(f, "invalid chunk item size: have {size}"),
            Fault::NumStripes(n) => write!(f, "invalid chunk num_stripes, have {n}"),
            Fault::Logical => write!(f, "invalid chunk logical, should be aligned to sectors"),
            Fault::SectorSize(size) => write!(f, "invalid chunk sectorsize, have {size}"),
            Fault::Length(length) => write!(f, "invalid chunk length, have {length}"),
            Fault::StripeLen(len) => write!(f, "invalid chunk stripe length: {len}"),
            Fault::Type(flags) => write!(f, "invalid chunk type: {flags:#x}"),
            Fault::Profile(flags) => {
                let name = profile_name(*flags);
                write!(
                    f,
                    "profile {name} ({flags:#x}) is not supported, only single and dup are"
                )
            }
            Fault::Device(devid) => write!(f, "devid {devid} is missing"),
            Fault::Physical(at) => write!(f, "invalid stripe at physical {at}"),
            Fault::Overlap(other) => write!(f, "overlaps with chunk at logical {other}"),
            Fault::PhysicalOverlap(other) => {
                write!(f, "overlaps on the device with chunk at logical {other}")
            }
            Fault::SysArray => write!(f, "differs from the superblock's system chunk array"),
        }
    }
}

impl Fault {
    /// `EINVAL` for what other btrfs can mount, `EUCLEAN` for nonsense.
    pub fn errno(&self) -> Error {
        match self {
            Fault::Profile(_) | Fault::Device(_) => EINVAL,
            _ => EUCLEAN,
        }
    }

    /// Prints the fault of the chunk at `logical` and returns its error.
    pub fn report(&self, device: &dyn BlockDevice, origin: Origin, logical: u64) -> Error {
        fs_err!(device, "{origin} chunk_start={logical}, {self}");
        self.errno()
    }
}

/// The name that btrfs-progs have for the profile in `flags`.
pub fn profile_name(flags: u64) -> &'static str {
    match flags & flags::PROFILE_MASK {
        0 => "single",
        0x8 => "raid0",
        0x10 => "raid1",
        0x20 => "dup",
        0x40 => "raid10",
        0x80 => "raid5",
        0x100 => "raid6",
        0x200 => "raid1c3",
        0x400 => "raid1c4",
        _ => "unknown",
    }
}

impl Chunk {
    /// Reads the chunk item `bytes` at `key` and checks all that can be checked of it alone.
    pub fn parse(
        key: &Key,
        bytes: &[u8],
        limits: &ChunkLimits,
    ) -> core::result::Result<Chunk, Fault> {
        if !key.is(objectid::FIRST_CHUNK_TREE, item_type::CHUNK_ITEM) {
            return Err(Fault::Key(*key));
        }
        let short = |_| Fault::ItemSize(bytes.len());
        let item: Item = read(bytes).map_err(short)?;
        let num_stripes = item.num_stripes.get();
        if item_size(num_stripes) != Some(bytes.len()) {
            return Err(Fault::ItemSize(bytes.len()));
        }
        let chunk = Chunk {
            logical: key.offset,
            length: item.length.get(),
            flags: item.typ.get(),
            first: 0,
            second: None,
        };
        chunk.check_type()?;
        chunk.check_range(&item, limits)?;
        let copies = if chunk.flags & flags::DUP != 0 { 2 } else { 1 };
        if num_stripes != copies {
            return Err(Fault::NumStripes(num_stripes));
        }
        let first: Stripe = read_at(bytes, size_of::<Item>()).map_err(short)?;
        let first = chunk.check_stripe(&first, limits)?;
        let second = if copies == 2 {
            let at = size_of::<Item>() + size_of::<Stripe>();
            let second: Stripe = read_at(bytes, at).map_err(short)?;
            Some(chunk.check_stripe(&second, limits)?)
        } else {
            None
        };
        Ok(Chunk {
            first,
            second,
            ..chunk
        })
    }

    fn check_type(&self) -> core::result::Result<(), Fault> {
        let profile = self.flags & flags::PROFILE_MASK;
        if self.flags & !(flags::TYPE_MASK | flags::PROFILE_MASK) != 0 || profile.count_ones() > 1 {
            return Err(Fault::Type(self.flags));
        }
        // Mixed block groups are a feature that is refused, so each chunk has one type.
        if (self.flags & flags::TYPE_MASK).count_ones() != 1 {
            return Err(Fault::Type(self.flags));
        }
        if profile & !flags::DUP != 0 {
            return Err(Fault::Profile(self.flags));
        }
        Ok(())
    }

    fn check_range(&self, item: &Item, limits: &ChunkLimits) -> core::result::Result<(), Fault> {
        let aligned = |value: u64| value % limits.sectorsize == 0;
        if !aligned(self.logical) {
            return Err(Fault::Logical);
        }
        if item.sector_size.get() != u32::from(limits.sectorsize) {
            return Err(Fault::SectorSize(item.sector_size.get()));
        }
        if self.length == 0
            || !aligned(self.length)
            || self.logical.checked_add(self.length).is_none()
        {
            return Err(Fault::Length(self.length));
        }
        if item.stripe_len.get() != STRIPE_LEN {
            return Err(Fault::StripeLen(item.stripe_len.get()));
        }
        Ok(())
    }

    /// Returns where the stripe starts.
    fn check_stripe(
        &self,
        stripe: &Stripe,
        limits: &ChunkLimits,
    ) -> core::result::Result<u64, Fault> {
        if stripe.devid.get() != limits.devid || stripe.dev_uuid != limits.dev_uuid {
            return Err(Fault::Device(stripe.devid.get()));
        }
        let start = stripe.offset.get();
        let aligned = start % limits.sectorsize == 0;
        let end = start.checked_add(self.length);
        if !aligned || end.is_none_or(|end| end > limits.device_bytes) {
            return Err(Fault::Physical(start));
        }
        Ok(start)
    }

    /// The first logical address after the range.
    pub fn end(&self) -> u64 {
        self.logical.saturating_add(self.length)
    }

    /// Whether `logical` lies within the range.
    pub fn contains(&self, logical: u64) -> bool {
        self.logical <= logical && logical < self.end()
    }

    /// The number of copies, 1 or 2.
    pub fn copies(&self) -> u32 {
        if self.second.is_some() {
            2
        } else {
            1
        }
    }

    /// The physical start of each copy, in bytes.
    pub fn stripes(&self) -> impl Iterator<Item = u64> {
        [Some(self.first), self.second].into_iter().flatten()
    }
}

/// The size in bytes of a chunk item with so many stripes.
pub fn item_size(num_stripes: u16) -> Option<usize> {
    usize::from(num_stripes)
        .checked_mul(size_of::<Stripe>())?
        .checked_add(size_of::<Item>())
}
