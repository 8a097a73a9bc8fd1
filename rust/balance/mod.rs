// SPDX-License-Identifier: GPL-2.0
//! Balance: filters, control, the walk of backrefs and the relocation of block groups.

pub mod args;
pub mod chunks;
pub mod closure;
pub mod control;
pub mod copy;
pub mod dropped;
pub mod filter;
pub mod moves;
pub mod progress;
pub mod relocate;
pub mod usage;
