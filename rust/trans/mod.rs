// SPDX-License-Identifier: GPL-2.0
//! Transactions: the running transaction, its commit, and the views of what is committed.
//!
//! A change of the volume is made through a [`Transaction`], which holds the writer's mutex. A
//! [`Reader`] is one consistent view: that of a commit. A [`View`] is either, or the running view:
//! the newest commit with the changes of the running transaction. docs/LOCKING.md has the order of
//! locks.

pub(crate) mod abort;
pub(crate) mod commit;
pub mod commit_roots;
pub mod commit_stats;
pub mod dirty;
pub mod epoch;
pub(crate) mod objectid;
pub(crate) mod orphans;
pub mod pressure;
pub mod reader;
pub(crate) mod root_tree;
pub mod running;
pub mod running_view;
pub(crate) mod sealed;
pub mod transaction;
pub(crate) mod tree_log;

pub use commit_roots::CommitRoots;
pub use epoch::{EpochGuard, Epochs};
pub use reader::Reader;
pub use running_view::{RunningView, View};
pub use transaction::{Reserve, Transaction};
