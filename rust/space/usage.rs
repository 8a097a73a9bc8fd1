// SPDX-License-Identifier: GPL-2.0
//! How much space block groups of each type and profile have, as users are told.

use super::block_group::BlockGroup;
use super::space_info::Space;
use crate::format::chunk::block_group_flags as bg;
use crate::volume::fs::Fs;

/// The block groups of one type and profile. All but their number is in bytes; what is kept twice
/// counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Type and profile.
    pub flags: u64,
    /// How many block groups there are.
    pub groups: u64,
    /// Their size.
    pub total: u64,
    /// In extents that have an extent item.
    pub used: u64,
    /// Allocated, and without an extent item yet.
    pub reserved: u64,
    /// Freed, and not to be used again yet.
    pub pinned: u64,
    /// What can never be used, as it surrounds copies of the superblock.
    pub supers: u64,
    /// Free, in block groups that nothing is allocated from for the time being.
    pub read_only: u64,
}

/// Sums for every type and profile that one device can have, in the order in which they are listed.
pub type Usages = [Usage; 6];

/// Sums over no block groups.
pub const NONE: Usages = [
    Usage::none(bg::DATA),
    Usage::none(bg::DATA | bg::DUP),
    Usage::none(bg::SYSTEM),
    Usage::none(bg::SYSTEM | bg::DUP),
    Usage::none(bg::METADATA),
    Usage::none(bg::METADATA | bg::DUP),
];

impl Usage {
    const fn none(flags: u64) -> Self {
        Usage {
            flags,
            groups: 0,
            total: 0,
            used: 0,
            reserved: 0,
            pinned: 0,
            supers: 0,
            read_only: 0,
        }
    }

    /// How often everything is on the device.
    pub const fn copies(&self) -> u64 {
        if self.flags & bg::DUP != 0 {
            2
        } else {
            1
        }
    }

    /// What is in use, in bytes. Data counts from when it has its place. Tree blocks count with the
    /// commit: until then each stands beside the one that it replaces.
    pub fn in_use(&self) -> u64 {
        if self.flags & bg::DATA != 0 {
            self.used.saturating_add(self.reserved)
        } else {
            self.used
        }
    }

    /// What can be allocated without a new chunk, in bytes.
    pub(crate) fn available(&self) -> u64 {
        self.total
            .saturating_sub(self.supers)
            .saturating_sub(self.used)
            .saturating_sub(self.reserved)
            .saturating_sub(self.pinned)
            .saturating_sub(self.read_only)
    }

    fn add(&mut self, group: &BlockGroup) {
        let add = |sum: &mut u64, bytes: u64| *sum = sum.saturating_add(bytes);
        add(&mut self.groups, 1);
        add(&mut self.total, group.length);
        add(&mut self.used, group.used());
        add(&mut self.reserved, group.reserved());
        add(&mut self.pinned, group.pinned());
        add(&mut self.supers, group.super_bytes());
        if group.is_read_only() {
            add(&mut self.read_only, group.available());
        }
    }
}

impl Space {
    /// The sums over all block groups.
    pub(crate) fn usages(&self) -> Usages {
        let mut sums = NONE;
        for group in self.block_groups() {
            let flags = group.kind().flag() | group.profile();
            if let Some(sum) = sums.iter_mut().find(|sum| sum.flags == flags) {
                sum.add(group);
            }
        }
        sums
    }
}

/// The bytes of the device that chunks take up.
pub fn allocated(sums: &Usages) -> u64 {
    sums.iter().fold(0u64, |bytes, sum| {
        bytes.saturating_add(sum.total.saturating_mul(sum.copies()))
    })
}

impl Fs {
    /// What is in use as of the last operation. Nothing if the last commit tells: since the mount
    /// there was no operation, or one has failed. Takes a leaf lock alone.
    pub fn usages(&self) -> Option<Usages> {
        self.check_failed().ok()?;
        self.reservations.lock().usages
    }
}
