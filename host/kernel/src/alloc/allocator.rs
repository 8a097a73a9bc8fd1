// SPDX-License-Identifier: GPL-2.0
//! The kernel's allocators as marker types: on the host they all are the global one.

/// An allocator.
pub trait Allocator {}

/// Physically contiguous memory.
pub struct Kmalloc;
/// Virtually contiguous memory.
pub struct Vmalloc;
/// Physically contiguous memory if there is some, else virtually contiguous.
pub struct KVmalloc;

impl Allocator for Kmalloc {}
impl Allocator for Vmalloc {}
impl Allocator for KVmalloc {}
