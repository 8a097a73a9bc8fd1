// SPDX-License-Identifier: GPL-2.0
//! Kernel interfaces as C declares them: those that the kernel crate binds, the headers that it
//! does not bind (`bindings_helper.h`, through a bindgen pass of our own), and the helpers of
//! `helpers.c`.
//!
//! Only `vfs/` uses this. A type that the kernel crate knows is the kernel crate's type; the few
//! that it knows by name alone (`fs_context` and so on) are defined here and pointers to them are
//! cast.

#![allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::indexing_slicing,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    unused_imports
)]

pub use kernel::bindings::*;
mod layout;

pub(crate) use layout::agree;

use kernel::ffi;
use pin_init::MaybeZeroable;

include!(concat!(env!("RBTRFS_OBJ"), "/rust/bindings/generated.rs"));
