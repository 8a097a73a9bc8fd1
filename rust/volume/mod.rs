// SPDX-License-Identifier: GPL-2.0
//! One mounted volume: block groups, free space, delayed refs, transactions, commit and epochs.
//!
//! # Locks
//!
//! Outermost first; a lock is taken only while those above it, or none, are held:
//!
//! 1. locks of the VFS (`s_umount`, inodes, folios);
//! 2. the writer's mutex, [`fs::Shared::writer`]: held by a [`transaction::Transaction`] from begin until its commit is
//!    sealed or it is given up, by an operation that joins the running transaction from join to end, and by a
//!    [`live::Live`] view of what is not committed. It protects the running trees, block groups, free space, and what
//!    was freed and waits for readers. It is not held while a commit is written: see `sealed.rs`;
//! 3. the leaves: the last commit's roots, the sealed commit, which trees differ from it, the room that is promised,
//!    the chunk map, the epochs, and the shards of the node cache. Each is taken to look or to swap one value, never
//!    across I/O, and no other lock is taken under it. [`crate::state`] is a leaf as well. Whoever holds the writer's
//!    mutex may wait for the sealed commit to be on disk: writing it takes no lock but leaves.
//!
//! Readers take the leaves alone. What they read does not change: nodes and roots are those of one commit, and an
//! epoch keeps the space behind them from being used again. A transaction allocates with NOFS in force.

mod abort;
pub mod backref;
pub mod block_group;
pub mod chunk_alloc;
mod commit;
pub mod commit_roots;
pub mod commit_stats;
mod cow;
pub mod csum_tree;
pub mod delayed_ref;
pub mod dev_extent;
mod dev_stats;
pub mod dirty;
pub mod epoch;
pub mod extent_item;
mod extent_tree;
pub mod free_space;
pub mod free_space_bitmap;
pub mod free_space_load;
pub mod free_space_tree;
pub mod freeze;
pub mod fs;
pub mod in_flight;
pub mod live;
mod objectid;
mod open;
pub mod options;
mod orphans;
pub mod pressure;
pub mod reader;
pub mod refs;
pub mod room;
mod root_tree;
pub mod running;
mod sealed;
pub mod space;
mod space_alloc;
mod space_flight;
pub mod transaction;
pub mod usage;
mod writable;

pub use commit_roots::CommitRoots;
pub use epoch::{EpochGuard, Epochs};
pub use fs::Fs;
pub use in_flight::DataExtent;
pub use live::{Live, View};
pub use options::OpenOptions;
pub use reader::Reader;
pub use room::DataReservation;
pub use transaction::{Reserve, Transaction};
