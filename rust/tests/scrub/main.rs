// SPDX-License-Identifier: GPL-2.0
//! Scrub on real images: what it counts, what it finds, what it repairs, and how it ends.

#[path = "../support/mod.rs"]
mod support;

mod beside;
mod counters;
mod ends;
mod faults;
mod places;
mod repair;
