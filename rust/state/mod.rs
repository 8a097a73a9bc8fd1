// SPDX-License-Identifier: GPL-2.0
//! `FsState` behind its mutex: who sends, who relocates, and which exclusive operation runs.
//!
//! Sends and relocations exclude each other, unless [`SendBalance::Concurrent`] says otherwise.
//! Whoever starts one asks for a token here, and the drop of the token undoes what it stands for,
//! whichever way its owner leaves. The mutex is taken to look and to change, never across I/O, a
//! commit, an allocation or a wait for user space, and it is a leaf: no other lock is taken under
//! it. So a send that is stuck on a full pipe holds up nobody: it owns a token, not a lock.
//!
//! One condition variable tells of every end: of a relocation, and of a change of the exclusive
//! operation.

use core::pin::Pin;

use kernel::prelude::*;
use kernel::sync::{new_condvar, new_mutex, CondVar, Mutex};

mod balance;
mod exclusive;
mod flags;
mod log;
mod ratelimit;
mod relocation;
mod scrub;
mod send;
mod send_balance;
#[cfg(test)]
mod tests;

pub use balance::{
    BalanceControl, BalanceProgress, BalanceRun, BalanceStatus, CancelBalance, Ending,
    PausedBalance,
};
pub use exclusive::{ExclusiveOperation, ExclusiveToken, Operation, Refusal};
pub use log::Log;
pub use relocation::RelocationToken;
pub use scrub::{ScrubProgress, ScrubToken};
pub use send::SendToken;
pub use send_balance::SendBalance;

use balance::Balance;
use flags::FsFlags;
use ratelimit::RateLimit;
use scrub::RunningScrub;
use send::Sends;

/// What owns the volume's one exclusive operation.
enum Exclusive {
    None,
    Balance(Balance),
    Other(Operation),
}

/// Everything that [`State`]'s mutex protects.
struct FsState {
    /// Among them `BALANCE_RUNNING`.
    flags: FsFlags,
    /// Whether sends and relocations exclude each other.
    send_balance: SendBalance,
    /// The sends under way, with their number, `send_in_progress`.
    sends: Sends,
    exclusive: Exclusive,
    /// Somebody asked the exclusive operation, one other than balance, to end.
    exclusive_canceled: bool,
    /// The scrub under way.
    scrub: Option<RunningScrub>,
    /// The identity of the next scrub.
    next_scrub: u64,
    /// The identity of the next balance.
    next_balance: u64,
    send_refused: RateLimit,
    relocation_refused: RateLimit,
}

/// A volume's send and balance state.
pub struct State {
    inner: Pin<KBox<Mutex<FsState>>>,
    /// Told whenever a relocation or a scrub ends, or a balance changes what it is.
    changed: Pin<KBox<CondVar>>,
}

impl State {
    /// The state of a volume on which nothing runs.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<State> {
        let fresh = FsState {
            flags: FsFlags::NONE,
            send_balance: SendBalance::default(),
            sends: Sends::new(),
            exclusive: Exclusive::None,
            exclusive_canceled: false,
            scrub: None,
            next_scrub: 0,
            next_balance: 0,
            send_refused: RateLimit::new(),
            relocation_refused: RateLimit::new(),
        };
        Ok(State {
            inner: KBox::pin_init(new_mutex!(fresh), GFP_KERNEL)?,
            changed: KBox::pin_init(new_condvar!(), GFP_KERNEL)?,
        })
    }

    /// The number of sends under way.
    pub fn send_in_progress(&self) -> u32 {
        self.inner.lock().sends.send_in_progress()
    }

    /// Whether a relocation is under way (`BALANCE_RUNNING`).
    pub fn relocation_running(&self) -> bool {
        self.inner.lock().flags.has(FsFlags::BALANCE_RUNNING)
    }

    /// The number of sends that use subvolume `root` as what they send, as parent or as clone
    /// source. While it is not zero the subvolume must not be deleted or made writable (`EPERM`)
    /// nor be deduplicated into (`EAGAIN`).
    pub fn sends_of(&self, root: u64) -> usize {
        self.inner.lock().sends.of(root)
    }

    /// The exclusive operation, as sysfs shows it.
    pub fn exclusive_operation(&self) -> ExclusiveOperation {
        match &self.inner.lock().exclusive {
            Exclusive::None => ExclusiveOperation::None,
            Exclusive::Balance(balance) if balance.is_running() => ExclusiveOperation::Balance,
            Exclusive::Balance(_) => ExclusiveOperation::BalancePaused,
            Exclusive::Other(operation) => ExclusiveOperation::Other(*operation),
        }
    }

    /// Ends the life of the state at unmount: nothing new starts, and a balance that runs (one that
    /// the mount resumed; any other holds the mount busy) is paused. Returns when it has.
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        inner.flags.set(FsFlags::CLOSING);
        if let Exclusive::Balance(balance) = &mut inner.exclusive {
            balance.request_pause();
        }
        while inner.flags.has(FsFlags::BALANCE_RUNNING) {
            self.changed.wait(&mut inner);
        }
    }
}
