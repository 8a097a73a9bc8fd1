// SPDX-License-Identifier: GPL-2.0
//! Epochs: which commits somebody still reads.
//!
//! A reader enters at the last commit and holds its generation until it leaves. What transaction T
//! freed is part of every commit before T and of none from T on. So the extent may be allocated
//! again when T is committed and every guard is of T or later: [`Epochs::is_reusable`].
//!
//! A reader enters first and looks for the last commit's roots then, and a commit publishes its
//! roots first and advances then. So whatever the timing, nobody reads a commit older than the
//! guard that it holds.

use crate::platform::uptime_ms;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_mutex, Arc, Mutex};

/// The commits that are being read, behind a leaf lock.
pub struct Epochs {
    inner: Arc<Mutex<Inner>>,
    /// A copy of `Inner::committed` that is read without the lock.
    committed: Atomic<u64>,
}

struct Inner {
    committed: u64,
    /// In ascending order of generations, none with zero guards.
    entered: KVec<Held>,
}

/// The guards of one generation.
struct Held {
    transid: u64,
    guards: usize,
    /// When the first of them entered, by [`uptime_ms`].
    since: u64,
}

/// Keeps what its commit refers to from being allocated again.
#[must_use = "what is read may be overwritten once the guard is dropped"]
pub struct EpochGuard {
    inner: Arc<Mutex<Inner>>,
    transid: u64,
}

impl Epochs {
    /// Epochs of a volume whose last commit is `committed`.
    pub fn new(committed: u64) -> Result<Self> {
        let inner = Inner {
            committed,
            entered: KVec::new(),
        };
        Ok(Self {
            inner: Arc::pin_init(new_mutex!(inner, "Epochs"), GFP_KERNEL)?,
            committed: Atomic::new(committed),
        })
    }

    /// Enters at the last commit.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn enter(&self) -> Result<EpochGuard> {
        let mut inner = self.inner.lock();
        let transid = inner.committed;
        match inner.entered.last_mut() {
            Some(entered) if entered.transid == transid => {
                entered.guards = entered.guards.saturating_add(1);
            }
            _ => {
                let entered = Held {
                    transid,
                    guards: 1,
                    since: uptime_ms(),
                };
                inner.entered.push(entered, GFP_KERNEL)?;
            }
        }
        Ok(EpochGuard {
            inner: self.inner.clone(),
            transid,
        })
    }

    /// Makes `transid` the last commit. Its roots must be published already.
    pub fn advance(&self, transid: u64) {
        let mut inner = self.inner.lock();
        inner.committed = inner.committed.max(transid);
        self.committed.store(inner.committed, Relaxed);
    }

    /// The last commit, without a lock: one that was published just now may not show yet.
    #[inline]
    pub fn committed(&self) -> u64 {
        self.committed.load(Relaxed)
    }

    /// The oldest generation that is being read.
    pub fn oldest(&self) -> Option<u64> {
        self.inner
            .lock()
            .entered
            .first()
            .map(|entered| entered.transid)
    }

    /// For how long the oldest generation that is being read has been read without a pause, in
    /// milliseconds; 0 if none is.
    pub fn oldest_age_ms(&self) -> u64 {
        let oldest = self
            .inner
            .lock()
            .entered
            .first()
            .map(|entered| entered.since);
        oldest.map_or(0, |since| uptime_ms().saturating_sub(since))
    }

    /// Whether what transaction `transid` freed may be allocated again.
    pub fn is_reusable(&self, transid: u64) -> bool {
        let inner = self.inner.lock();
        let oldest = inner.entered.first().map(|entered| entered.transid);
        transid <= inner.committed && oldest.is_none_or(|oldest| transid <= oldest)
    }
}

impl EpochGuard {
    /// The generation that is held.
    pub fn transid(&self) -> u64 {
        self.transid
    }
}

impl Clone for EpochGuard {
    fn clone(&self) -> Self {
        let mut inner = self.inner.lock();
        let transid = self.transid;
        let mut entered = inner.entered.iter_mut();
        if let Some(entered) = entered.find(|entered| entered.transid == transid) {
            entered.guards = entered.guards.saturating_add(1);
        }
        Self {
            inner: self.inner.clone(),
            transid,
        }
    }
}

impl Drop for EpochGuard {
    fn drop(&mut self) {
        let mut inner = self.inner.lock();
        let transid = self.transid;
        let place = inner
            .entered
            .iter()
            .position(|entered| entered.transid == transid);
        let Some(place) = place else {
            return;
        };
        if let Some(entered) = inner.entered.get_mut(place) {
            entered.guards = entered.guards.saturating_sub(1);
            if entered.guards == 0 {
                // The place was just found, so that there is something to remove.
                let _ = inner.entered.remove(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reader_can_reach_is_not_reused() {
        let epochs = Epochs::new(10).unwrap();
        assert_eq!(epochs.oldest(), None);
        // Freed by the running transaction: the last commit has it.
        assert!(!epochs.is_reusable(11));
        assert!(epochs.is_reusable(10));

        let reader = epochs.enter().unwrap();
        assert_eq!(reader.transid(), 10);
        epochs.advance(11);
        assert!(!epochs.is_reusable(11), "the reader of 10 may still look");
        assert!(epochs.is_reusable(10));

        let newer = epochs.enter().unwrap();
        assert_eq!((newer.transid(), epochs.oldest()), (11, Some(10)));
        drop(reader);
        assert!(epochs.is_reusable(11), "11 does not have what 11 freed");
        assert!(!epochs.is_reusable(12));
        drop(newer);
        assert_eq!(epochs.oldest(), None);
    }

    #[test]
    fn guards_count() {
        let epochs = Epochs::new(1).unwrap();
        let one = epochs.enter().unwrap();
        epochs.advance(2);
        let two = one.clone();
        drop(one);
        assert_eq!(epochs.oldest(), Some(1));
        drop(two);
        assert_eq!(epochs.oldest(), None);
    }

    #[test]
    fn entering_without_memory_holds_nothing() {
        let epochs = Epochs::new(1).unwrap();
        kernel::fault::fail_alloc_after(0);
        assert!(epochs.enter().is_err());
        kernel::fault::clear();
        assert_eq!(epochs.oldest(), None);
    }
}
