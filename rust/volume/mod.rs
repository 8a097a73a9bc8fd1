// SPDX-License-Identifier: GPL-2.0
//! One mounted volume: block groups, free space, delayed refs, transactions, commit and epochs.
//!
//! # Locks
//!
//! Outermost first; a lock is taken only while those above it, or none, are held:
//!
//! 1. locks of the VFS (`s_umount`, inodes, folios);
//! 2. the writer's mutex, [`fs::Shared::writer`]: held by a
//!    [`crate::trans::transaction::Transaction`] from begin until its commit is sealed or it is
//!    given up, by an operation that joins the running transaction from join to end, and by a
//!    [`crate::trans::running_view::RunningView`] view of what is not committed. It protects the
//!    running trees, block groups, free space, and what was freed and waits for readers. It is not
//!    held while a commit is written: see `sealed.rs`;
//! 3. the leaves: the last commit's roots, the sealed commit, which trees differ from it, the space
//!    that is reserved, the chunk map, the epochs, and the shards of the node cache. Each is taken
//!    to look or to swap one value, never across I/O, and no other lock is taken under it.
//!    [`crate::state`] is a leaf as well. Whoever holds the writer's mutex may wait for the sealed
//!    commit to be on disk: writing it takes no lock but leaves.
//!
//! Readers take the leaves alone. What they read does not change: nodes and roots are those of one
//! commit, and an epoch keeps the space behind them from being used again. A transaction allocates
//! with NOFS in force.

pub(crate) mod dev_stats;
pub mod fs;
mod open;
pub mod open_options;
pub(crate) mod writable;

pub use fs::Fs;
pub use open_options::OpenOptions;
