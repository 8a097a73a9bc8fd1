// SPDX-License-Identifier: GPL-2.0
//! The balance item: what a balance was asked to do, kept while it runs or is paused.

use zerocopy::little_endian::{U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The filters for one type of block groups, 136 bytes: the same on disk and in ioctls.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DiskBalanceArgs {
    /// Profiles to take.
    pub profiles: U64,
    /// Usage in percent; as a range, the minimum in the low half and the maximum in the high one.
    pub usage: U64,
    /// The device's id.
    pub devid: U64,
    /// Start of a range of the device, in bytes.
    pub pstart: U64,
    /// End of that range.
    pub pend: U64,
    /// Start of a logical range, in bytes.
    pub vstart: U64,
    /// End of that range.
    pub vend: U64,
    /// The profile to convert to.
    pub target: U64,
    /// Which of the filters are in force.
    pub flags: U64,
    /// The number of block groups to take; as a range, minimum low and maximum high.
    pub limit: U64,
    /// The least number of stripes.
    pub stripes_min: U32,
    /// The largest number of stripes.
    pub stripes_max: U32,
    /// Zero.
    pub unused: [U64; 6],
}

/// The balance item, 448 bytes; keyed by ([`super::objectid::BALANCE`], `TEMPORARY_ITEM`, 0).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BalanceItem {
    /// Which types of block groups to balance, and `FORCE`.
    pub flags: U64,
    /// Filters for data.
    pub data: DiskBalanceArgs,
    /// Filters for metadata.
    pub meta: DiskBalanceArgs,
    /// Filters for system.
    pub sys: DiskBalanceArgs,
    /// Zero.
    pub unused: [U64; 4],
}

const _: () = assert!(size_of::<DiskBalanceArgs>() == 136 && size_of::<BalanceItem>() == 448);
