// SPDX-License-Identifier: GPL-2.0
//! Errors of the engine as errors of a program.

use anyhow::anyhow;
use kernel::error::Error;

/// Turns an engine's result into one that says what failed.
pub trait What<T> {
    /// Adds what was being done.
    fn what(self, doing: impl std::fmt::Display) -> anyhow::Result<T>;
}

impl<T> What<T> for Result<T, Error> {
    fn what(self, doing: impl std::fmt::Display) -> anyhow::Result<T> {
        self.map_err(|error| {
            let system = std::io::Error::from_raw_os_error(-error.to_errno());
            anyhow!("{doing}: {system}")
        })
    }
}
