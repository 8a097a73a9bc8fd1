// SPDX-License-Identifier: GPL-2.0
//! Balance: filters, control, the walk of backrefs and the relocation of block groups.

pub mod args;
pub mod backref_cache;
pub mod chunks;
pub mod committed_usage;
pub mod control;
pub mod copy;
pub mod data_relocation;
pub mod drop_progress;
pub mod filter;
pub mod ioctl_args;
pub mod relocate;
