// SPDX-License-Identifier: GPL-2.0
//! Fallible allocation: the kernel's boxes and vectors over the host's allocator.

pub mod allocator;
pub mod kbox;
pub mod kvec;

pub use kbox::{Box, KBox, KVBox, VBox};
pub use kvec::{IntoIter, KVVec, KVec, VVec, Vec};

pub use allocator::Allocator;

/// There was no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AllocError;

/// How to allocate. The host ignores all but [`flags::__GFP_ZERO`]'s existence.
#[derive(Clone, Copy, PartialEq)]
pub struct Flags(u32);

impl Flags {
    /// Whether all of `flags` are set.
    pub fn contains(self, flags: Flags) -> bool {
        (self & flags) == flags
    }
}

impl core::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}

impl core::ops::BitAnd for Flags {
    type Output = Self;

    fn bitand(self, rhs: Self) -> Self {
        Self(self.0 & rhs.0)
    }
}

impl core::ops::Not for Flags {
    type Output = Self;

    fn not(self) -> Self {
        Self(!self.0)
    }
}

/// Allocation flags, by their C names.
pub mod flags {
    use super::Flags;

    /// Zeroed memory.
    pub const __GFP_ZERO: Flags = Flags(1 << 8);
    /// Memory that the kernel need not have mapped.
    pub const __GFP_HIGHMEM: Flags = Flags(1 << 1);
    /// No report of a failure.
    pub const __GFP_NOWARN: Flags = Flags(1 << 13);
    /// The caller cannot sleep.
    pub const GFP_ATOMIC: Flags = Flags(1 << 5);
    /// The caller can sleep.
    pub const GFP_KERNEL: Flags = Flags((1 << 10) | (1 << 11));
    /// Accounted to the memory cgroup.
    pub const GFP_KERNEL_ACCOUNT: Flags = Flags(GFP_KERNEL.0 | (1 << 22));
    /// No reclaim.
    pub const GFP_NOWAIT: Flags = Flags((1 << 11) | (1 << 13));
}
