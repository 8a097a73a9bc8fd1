// SPDX-License-Identifier: GPL-2.0
//! Operation tables: statics whose addresses the kernel keeps.

/// A table of callbacks, which is never changed.
#[repr(transparent)]
pub(super) struct Table<T>(T);

// SAFETY: A table is only read. What its pointers lead to are functions and other statics.
unsafe impl<T> Sync for Table<T> {}

impl<T> Table<T> {
    /// Makes a table; it is meant to be a static.
    pub(super) const fn new(table: T) -> Self {
        Self(table)
    }

    /// The address for the kernel to keep, which it can only if this is a static.
    pub(super) const fn as_ptr(&'static self) -> *const T {
        &raw const self.0
    }
}
