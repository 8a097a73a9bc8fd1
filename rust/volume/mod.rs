// SPDX-License-Identifier: GPL-2.0
//! A mounted volume: opening it, what may be written, and [`fs::Fs`], which has the state of all
//! floors below.
//!
//! docs/LOCKING.md has the order of locks. In short: the writer's mutex, [`fs::Shared::writer`], is
//! held by whoever changes trees and by a view of what is not committed. Outside of it is taken
//! [`fs::Shared::before_commit`]; the other locks of [`fs::Shared`] are leaves. Readers of a commit
//! take leaves alone. What they read does not change, and an epoch keeps its addresses from being
//! allocated again.

pub mod before_commit;
pub(crate) mod dev_stats;
pub(crate) mod device_extent;
pub mod fs;
mod open;
pub mod open_options;
pub mod read_session;
mod replay;
pub(crate) mod writable;

pub use before_commit::BeforeCommit;
pub use fs::Fs;
pub use open_options::OpenOptions;
pub use read_session::{ReadSession, Stamp};
