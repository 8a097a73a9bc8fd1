// SPDX-License-Identifier: GPL-2.0
//! Growing and shrinking, on real images.

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod sizes;
