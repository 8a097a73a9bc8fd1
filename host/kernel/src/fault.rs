// SPDX-License-Identifier: GPL-2.0
//! Allocation failures on demand, per thread.
//!
//! Every allocation of the stand-in ([`KVec`](crate::alloc::KVec), [`KBox`](crate::alloc::KBox),
//! [`Arc`](crate::sync::Arc), nodes of [`RBTree`](crate::rbtree::RBTree)) asks [`check`] first. A
//! test counts the allocations of an operation with [`count`], then runs it once for each with
//! that one failing, and walks every error path.

use crate::alloc::AllocError;
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static FAIL_AT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Makes the allocation after the next `n` ones of this thread fail, and restarts the count. Later
/// ones succeed again: a caller that goes on after an error must be right as well.
pub fn fail_alloc_after(n: u64) {
    COUNT.set(0);
    FAIL_AT.set(Some(n));
}

/// Lets all allocations of this thread succeed again, and restarts the count.
pub fn clear() {
    COUNT.set(0);
    FAIL_AT.set(None);
}

/// Allocations that this thread asked for since the last [`clear`] or [`fail_alloc_after`].
pub fn count() -> u64 {
    COUNT.get()
}

/// Counts one allocation and tells whether it may succeed.
pub(crate) fn check() -> Result<(), AllocError> {
    let n = COUNT.get();
    COUNT.set(n + 1);
    if FAIL_AT.get() == Some(n) {
        Err(AllocError)
    } else {
        Ok(())
    }
}
