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

use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};

/// The commits that are being read, behind a leaf lock.
pub struct Epochs {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    committed: u64,
    /// Generation and number of guards, in ascending order, none with zero guards.
    entered: KVec<(u64, usize)>,
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
            Some((entered, count)) if *entered == transid => *count = count.saturating_add(1),
            _ => inner.entered.push((transid, 1), GFP_KERNEL)?,
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
    }

    /// The oldest generation that is being read.
    pub fn oldest(&self) -> Option<u64> {
        self.inner
            .lock()
            .entered
            .first()
            .map(|(transid, _)| *transid)
    }

    /// Whether what transaction `transid` freed may be allocated again.
    pub fn is_reusable(&self, transid: u64) -> bool {
        let inner = self.inner.lock();
        let oldest = inner.entered.first().map(|(transid, _)| *transid);
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
        if let Some((_, count)) = entered.find(|(entered, _)| *entered == transid) {
            *count = count.saturating_add(1);
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
            .position(|(entered, _)| *entered == transid);
        let Some(place) = place else {
            return;
        };
        if let Some((_, count)) = inner.entered.get_mut(place) {
            *count = count.saturating_sub(1);
            if *count == 0 {
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
