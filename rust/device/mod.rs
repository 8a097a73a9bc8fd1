// SPDX-License-Identifier: GPL-2.0
//! Block devices, the map from logical to physical addresses, and superblocks.
//!
//! A chunk map never changes; a new one takes its place. Nothing here has a lock.
//!
//! The macros for messages format by `core`, of whose `Display` the kernel crate's is not: what
//! implements the former can be printed by `fs_err!`, not by `pr_err!`.

pub mod barrier;
pub mod block_device;
pub mod chunk;
pub mod chunk_map;
pub mod corrected;
pub mod features;
pub mod stats;
pub mod superblock;

pub use block_device::{BlockDevice, ReadIo, WriteIo};
pub use chunk::Chunk;
pub use chunk_map::{ChunkMap, Mirrors};
pub use superblock::SuperBuf;

/// Prints a critical error: `BTRFS critical (device vda): ...`. See [`fs_err!`].
#[macro_export]
macro_rules! fs_crit {
    ($fs:expr, $($arg:tt)*) => {
        $crate::device::apart(|| {
            ::kernel::pr_crit!(
                "BTRFS critical (device {}): {}\n",
                $fs.name(),
                ::core::format_args!($($arg)*)
            )
        })
    };
}

/// Prints an error: `BTRFS error (device vda): ...`. The first argument is anything with a
/// `name()`: a volume or its device.
#[macro_export]
macro_rules! fs_err {
    ($fs:expr, $($arg:tt)*) => {
        $crate::device::apart(|| {
            ::kernel::pr_err!(
                "BTRFS error (device {}): {}\n",
                $fs.name(),
                ::core::format_args!($($arg)*)
            )
        })
    };
}

/// Prints a warning: `BTRFS warning (device vda): ...`. See [`fs_err!`].
#[macro_export]
macro_rules! fs_warn {
    ($fs:expr, $($arg:tt)*) => {
        $crate::device::apart(|| {
            ::kernel::pr_warn!(
                "BTRFS warning (device {}): {}\n",
                $fs.name(),
                ::core::format_args!($($arg)*)
            )
        })
    };
}

/// Prints information: `BTRFS info (device vda): ...`. See [`fs_err!`].
#[macro_export]
macro_rules! fs_info {
    ($fs:expr, $($arg:tt)*) => {
        $crate::device::apart(|| {
            ::kernel::pr_info!(
                "BTRFS info (device {}): {}\n",
                $fs.name(),
                ::core::format_args!($($arg)*)
            )
        })
    };
}

/// Runs what prints a message, apart from the caller: so the message takes up stack only while it
/// is printed.
#[cold]
#[inline(never)]
pub fn apart(print: impl FnOnce()) {
    print();
}
