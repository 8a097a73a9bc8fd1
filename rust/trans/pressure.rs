// SPDX-License-Identifier: GPL-2.0
//! What the running transaction keeps in memory, for the machine to weigh.
//!
//! Tree blocks that were changed are not given back before a commit has written them. Memory
//! reclaim learns here how many there are; once it has asked in vain for as many, it is time to
//! commit.

use kernel::sync::atomic::{Atomic, Relaxed};

/// The dirty blocks of a volume, and who asks for them. No locks: memory reclaim calls this while
/// anything may be held.
pub struct Pressure {
    dirty: Atomic<usize>,
    /// How many reclaim has asked for since the last commit.
    owed: Atomic<usize>,
}

impl Pressure {
    /// Nothing is dirty.
    pub const fn new() -> Self {
        Self {
            dirty: Atomic::new(0),
            owed: Atomic::new(0),
        }
    }

    /// The number of tree blocks that only a commit lets go of.
    pub fn dirty(&self) -> usize {
        self.dirty.load(Relaxed)
    }

    /// Tells how many there are now.
    pub(super) fn set_dirty(&self, blocks: usize) {
        self.dirty.store(blocks, Relaxed);
    }

    /// Notes that nothing is dirty any more, as of a commit.
    pub(super) fn relieve(&self) {
        self.set_dirty(0);
        self.owed.store(0, Relaxed);
    }

    /// Asks for `blocks` more, which were not to be had otherwise. Returns whether a commit is due.
    /// Each asks in proportion to its need, so that a machine that is merely busy does not commit
    /// all the time.
    pub fn ask(&self, blocks: usize) -> bool {
        let dirty = self.dirty();
        if dirty == 0 {
            return false;
        }
        let owed = self.owed.load(Relaxed).saturating_add(blocks);
        self.owed.store(owed, Relaxed);
        owed >= dirty
    }

    /// Whether reclaim has asked for as much as there is.
    pub fn wants_commit(&self) -> bool {
        self.ask(0)
    }
}

impl Default for Pressure {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_due_once_all_was_asked_for() {
        let pressure = Pressure::new();
        assert!(!pressure.ask(1000), "nothing is dirty");
        pressure.set_dirty(10);
        assert!(!pressure.wants_commit());
        assert!(!pressure.ask(6));
        assert!(pressure.ask(6));
        assert!(pressure.wants_commit());
        pressure.relieve();
        assert!(!pressure.wants_commit());
        pressure.set_dirty(3);
        assert!(!pressure.ask(2), "what was asked before was given");
        assert!(pressure.ask(1));
    }
}
