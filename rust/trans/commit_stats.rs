// SPDX-License-Identifier: GPL-2.0
//! How many commits there were since the mount, and how long they took.

use crate::platform::uptime_ms;
use kernel::sync::atomic::{Atomic, Relaxed};

/// Counters of a mounted volume, in milliseconds. Each is right by itself; a reader may see them at
/// different times.
pub struct CommitStats {
    /// When the commit began that runs now; 0 if none does.
    began: Atomic<u64>,
    commits: Atomic<u64>,
    last: Atomic<u64>,
    max: Atomic<u64>,
    total: Atomic<u64>,
}

/// What the counters say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitTimes {
    /// Commits that ended well.
    pub commits: u64,
    /// For how long one runs now, in milliseconds.
    pub current: u64,
    /// The last one, in milliseconds.
    pub last: u64,
    /// The longest one, in milliseconds.
    pub max: u64,
    /// All of them, in milliseconds.
    pub total: u64,
}

impl CommitStats {
    /// No commits yet.
    pub const fn new() -> Self {
        Self {
            began: Atomic::new(0),
            commits: Atomic::new(0),
            last: Atomic::new(0),
            max: Atomic::new(0),
            total: Atomic::new(0),
        }
    }

    /// Notes that a commit begins. The caller is the volume's one writer.
    pub fn begin(&self) {
        self.began.store(uptime_ms().max(1), Relaxed);
    }

    /// Notes that the commit has ended.
    pub fn end(&self, well: bool) {
        let took = self.running_for();
        self.began.store(0, Relaxed);
        if well {
            self.commits.add(1, Relaxed);
            self.last.store(took, Relaxed);
            self.max.store(took.max(self.max.load(Relaxed)), Relaxed);
            self.total.add(took, Relaxed);
        }
    }

    fn running_for(&self) -> u64 {
        match self.began.load(Relaxed) {
            0 => 0,
            began => uptime_ms().saturating_sub(began),
        }
    }

    /// Forgets the longest one.
    pub fn reset_max(&self) {
        self.max.store(0, Relaxed);
    }

    /// What the counters say now.
    pub fn times(&self) -> CommitTimes {
        CommitTimes {
            commits: self.commits.load(Relaxed),
            current: self.running_for(),
            last: self.last.load(Relaxed),
            max: self.max.load(Relaxed),
            total: self.total.load(Relaxed),
        }
    }
}

impl Default for CommitStats {
    fn default() -> Self {
        Self::new()
    }
}
