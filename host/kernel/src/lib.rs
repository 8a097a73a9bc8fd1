// SPDX-License-Identifier: GPL-2.0
//! Host stand-in for the part of Linux's `kernel` crate that the rbtrfs engine uses.
//!
//! Names and signatures are those of `rust/kernel` in Linux 7.3, so that one source compiles in the
//! kernel and here. What is here and not there serves tests alone: [`fault`] makes allocations
//! fail, [`log`] captures what the engine would print, and [`platform`] holds what the engine
//! reaches through `crate::platform` (in the kernel, its VFS layer implements the same functions).

#![feature(coerce_unsized, dispatch_from_dyn, unsize)]
#![deny(unsafe_op_in_unsafe_fn)]

pub mod alloc;
pub mod error;
pub mod fault;
pub mod fmt;
pub mod init;
pub mod log;
pub mod platform;
pub mod prelude;
mod print;
pub mod rbtree;
pub mod sizes;
pub mod sync;
pub mod types;

pub use core::ffi;

#[doc(hidden)]
pub use print::emit as __emit;

/// Fails the build unless the constant condition holds.
#[macro_export]
macro_rules! static_assert {
    ($condition:expr $(, $arg:literal)?) => {
        const _: () = ::core::assert!($condition $(, $arg)?);
    };
}

/// Like [`static_assert!`], inside a function.
#[macro_export]
macro_rules! const_assert {
    ($condition:expr $(, $arg:literal)?) => {
        const { ::core::assert!($condition $(, $arg)?) }
    };
}
