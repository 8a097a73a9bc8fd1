// SPDX-License-Identifier: GPL-2.0
//! Whether sends and relocations exclude each other: the mount option `send_balance`.
//!
//! The mode is looked at when a send or a relocation begins, and at no other time: how a send reads
//! does not depend on it. So it can be changed while either runs. What runs goes on; what begins
//! from then on is judged by the new mode.

use super::State;

/// Whether sends and relocations exclude each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendBalance {
    /// While one runs, the other is refused.
    #[default]
    Exclusive,
    /// Both run side by side.
    Concurrent,
}

impl SendBalance {
    /// The name, as in the mount option.
    pub const fn name(self) -> &'static str {
        match self {
            SendBalance::Exclusive => "exclusive",
            SendBalance::Concurrent => "concurrent",
        }
    }
}

impl State {
    /// The mode.
    pub fn send_balance(&self) -> SendBalance {
        self.inner.lock().send_balance
    }

    /// Changes the mode for what begins from now on.
    pub fn set_send_balance(&self, mode: SendBalance) {
        self.inner.lock().send_balance = mode;
    }
}
