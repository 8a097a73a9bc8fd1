// SPDX-License-Identifier: GPL-2.0
//! Back references: which files refer to an extent.

pub mod owners;
pub mod sharing;
