// SPDX-License-Identifier: GPL-2.0
//! What a volume is doing now, a bit each: the C driver has them in `fs_info->flags`.

/// Some of the flags below, all under the mutex of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FsFlags(u32);

impl FsFlags {
    /// None.
    pub(super) const NONE: FsFlags = FsFlags(0);
    /// A relocation is under way: extents move, and in exclusive mode no send may begin
    /// (`BTRFS_FS_BALANCE_RUNNING`).
    pub(super) const BALANCE_RUNNING: FsFlags = FsFlags(1 << 0);
    /// The volume is being unmounted: nothing new may start (`BTRFS_FS_CLOSING_START`).
    pub(super) const CLOSING: FsFlags = FsFlags(1 << 1);

    /// Whether all of `flags` are set.
    pub(super) fn has(self, flags: FsFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Sets `flags`.
    pub(super) fn set(&mut self, flags: FsFlags) {
        self.0 |= flags.0;
    }

    /// Clears `flags`.
    pub(super) fn clear(&mut self, flags: FsFlags) {
        self.0 &= !flags.0;
    }
}
