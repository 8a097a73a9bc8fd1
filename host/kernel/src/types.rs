// SPDX-License-Identifier: GPL-2.0
//! Small types without a home of their own.

use core::ops::{Deref, DerefMut};

/// Runs a cleanup when dropped, unless dismissed.
pub struct ScopeGuard<T, F: FnOnce(T)>(Option<(T, F)>);

impl<T, F: FnOnce(T)> ScopeGuard<T, F> {
    /// A guard over `data`, which the cleanup receives.
    pub fn new_with_data(data: T, cleanup: F) -> Self {
        Self(Some((data, cleanup)))
    }

    /// Returns the data; the cleanup will not run.
    pub fn dismiss(mut self) -> T {
        // The option is empty only after `dismiss` or drop, and both consume the guard.
        self.0.take().unwrap().0
    }
}

impl ScopeGuard<(), fn(())> {
    /// A guard that runs `cleanup`.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(cleanup: impl FnOnce()) -> ScopeGuard<(), impl FnOnce(())> {
        ScopeGuard::new_with_data((), move |()| cleanup())
    }
}

impl<T, F: FnOnce(T)> Deref for ScopeGuard<T, F> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.as_ref().unwrap().0
    }
}

impl<T, F: FnOnce(T)> DerefMut for ScopeGuard<T, F> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.as_mut().unwrap().0
    }
}

impl<T, F: FnOnce(T)> Drop for ScopeGuard<T, F> {
    fn drop(&mut self) {
        if let Some((data, cleanup)) = self.0.take() {
            cleanup(data);
        }
    }
}
