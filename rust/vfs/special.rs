// SPDX-License-Identifier: GPL-2.0
//! Device files, pipes and sockets.

use super::inode;
use super::table::Table;
use crate::bindings;

pub(super) static INODE_OPERATIONS: Table<bindings::inode_operations> = Table::new(inode::COMMON);
