// SPDX-License-Identifier: GPL-2.0
//! Mount options: one table of them, what a mount was given, and what of that is in force.
//!
//! The names, the values and the rules are those of the C driver of Linux 7.3
//! (`btrfs_fs_parameters`, `btrfs_check_options`). An option is carried out, or it is a hint: one
//! that says how to do something, and that changes nothing about what is read. What would change
//! that and cannot be done is refused with a message. No lock is taken here, and nothing is read
//! from a device.

mod number;
mod options;
mod parse;
mod show;
mod table;

pub use number::size;
pub use options::{
    Compress, Facts, MountOptions, Rescue, Settings, SpaceCache, Subvol, COMMIT_INTERVAL,
};
pub use parse::{Parsed, Value};
pub use table::{Parameter, Takes, PARAMETERS};

use kernel::fmt;

/// How important a message about options is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The mount fails.
    Error,
    /// The option is taken, and the administrator should know.
    Warning,
}

/// Where messages about options go. A message has no newline.
pub type Log<'a> = dyn FnMut(Level, fmt::Arguments<'_>) + 'a;
