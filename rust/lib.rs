// SPDX-License-Identifier: GPL-2.0
//! The rbtrfs engine on the host: the modules that the kernel builds, less `vfs/` and `ioctl/`.
//!
//! `rbtrfs_main.rs` is the root of the same modules in the kernel. Here `kernel` is the stand-in of
//! `host/kernel`, so that tests, fuzzers and the command line run the very lines that the kernel
//! runs.

#![no_std]
#![feature(arbitrary_self_types)]
#![deny(missing_docs, unsafe_code)]
// Nothing that comes from disk or from user space may end in a panic. `rbtrfs_main.rs` has
// the same list.
#![deny(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::todo,
    clippy::undocumented_unsafe_blocks,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::unwrap_used
)]
#![cfg_attr(
    test,
    allow(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

#[cfg(test)]
extern crate std;

pub use kernel::platform;

pub mod backref;
pub mod balance;
pub mod device;
pub mod extent;
pub mod format;
pub mod log;
pub mod mount;
mod number_set;
pub mod resize;
pub mod scrub;
pub mod send;
pub mod sort;
pub mod space;
pub mod state;
pub mod subvol;
pub mod trans;
pub mod tree;
pub mod trim;
pub mod volume;
