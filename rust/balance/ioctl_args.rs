// SPDX-License-Identifier: GPL-2.0
//! The 1,024 bytes in which the balance ioctls take requests and tell how far a balance is.

use zerocopy::little_endian::U64;
use zerocopy::FromZeros;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::format::balance::{BalanceItem, DiskBalanceArgs};
use crate::state::{BalanceControl, BalanceStatus};
use kernel::prelude::*;

const RUNNING: u64 = 1 << 0;
const PAUSE_REQUESTED: u64 = 1 << 1;
const CANCEL_REQUESTED: u64 = 1 << 2;

/// `struct btrfs_ioctl_balance_args`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IoctlBalanceArgs {
    /// What to balance, out: what is balanced.
    pub flags: U64,
    /// Out: whether it runs, and what was asked of it.
    pub state: U64,
    /// Filters for data.
    pub data: DiskBalanceArgs,
    /// Filters for metadata.
    pub meta: DiskBalanceArgs,
    /// Filters for system chunks.
    pub sys: DiskBalanceArgs,
    /// Out: block groups that the balance expects to relocate.
    pub expected: U64,
    /// Out: block groups that it has looked at.
    pub considered: U64,
    /// Out: block groups that it has relocated.
    pub completed: U64,
    /// Not used.
    pub unused: [U64; 72],
}

const _: () = assert!(size_of::<IoctlBalanceArgs>() == 1024);

impl IoctlBalanceArgs {
    /// The request: its item as it is kept on disk, and no progress yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn control(&self) -> Result<KBox<BalanceControl>> {
        BalanceControl::new(&BalanceItem {
            flags: self.flags,
            data: self.data,
            meta: self.meta,
            sys: self.sys,
            unused: [U64::ZERO; 4],
        })
    }

    /// Shows `status`.
    pub fn show(&mut self, status: &BalanceStatus) {
        let item = &status.control.item;
        let mut state = 0;
        for (holds, bit) in [
            (status.running, RUNNING),
            (status.pause_requested, PAUSE_REQUESTED),
            (status.cancel_requested, CANCEL_REQUESTED),
        ] {
            if holds {
                state |= bit;
            }
        }
        self.zero();
        self.flags = item.flags;
        self.state.set(state);
        self.data = item.data;
        self.meta = item.meta;
        self.sys = item.sys;
        self.expected.set(status.control.progress.expected);
        self.considered.set(status.control.progress.considered);
        self.completed.set(status.control.progress.completed);
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;
    use crate::state::BalanceProgress;

    #[test]
    fn a_status_is_shown_where_user_space_looks() {
        let mut item = BalanceItem::new_zeroed();
        item.flags.set(3);
        item.meta.limit.set(0x0102);
        let mut control = BalanceControl::new(&item).unwrap();
        control.progress = BalanceProgress {
            expected: 4,
            considered: 5,
            completed: 6,
        };
        let status = BalanceStatus {
            control,
            running: true,
            pause_requested: false,
            cancel_requested: true,
        };
        let mut args = IoctlBalanceArgs::new_zeroed();
        args.unused[0].set(9);
        args.show(&status);
        let bytes = args.as_bytes();
        assert_eq!((bytes[0], bytes[8]), (3, 5));
        assert_eq!(bytes[152 + 72..152 + 74], [2, 1]);
        assert_eq!((bytes[424], bytes[432], bytes[440]), (4, 5, 6));
        assert!(bytes[448..].iter().all(|byte| *byte == 0));
        assert_eq!(args.control().unwrap().item.meta.limit.get(), 0x0102);
    }
}
