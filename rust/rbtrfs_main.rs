// SPDX-License-Identifier: GPL-2.0
//! The kernel module: registration. `lib.rs` is the root of the same engine on the host.

#![deny(unsafe_code)]
// Nothing that comes from disk or from user space may end in a panic. `lib.rs` has the same list.
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
// On the host the same modules are public.
#![allow(unreachable_pub)]

use kernel::prelude::*;

pub use vfs::platform;

pub mod backref;
pub mod balance;
mod bindings;
pub mod device;
pub mod extent;
pub mod format;
mod ioctl;
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
#[expect(unsafe_code)]
mod vfs;
pub mod volume;

module! {
    type: Module,
    name: "rbtrfs",
    authors: ["The rbtrfs developers"],
    description: "btrfs volumes, with send and balance that exclude each other",
    license: "GPL",
}

struct Module {
    _registration: vfs::Registration,
}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _registration: vfs::Registration::new(module)?,
        })
    }
}
