// SPDX-License-Identifier: GPL-2.0
//! Condition variables, whose interruptible waits see the signals of
//! [`platform::signal`](crate::platform::signal).

use super::lock::{imp, Backend, Guard};
use super::LockClassKey;
use crate::init::{pin_init_from_closure, PinInit};
use crate::platform::signal_pending;
use core::ffi::CStr;
use core::pin::Pin;
use core::ptr::addr_of_mut;
use std::time::{Duration, Instant};

/// An initialiser of a condition variable, with an optional name.
#[macro_export]
macro_rules! new_condvar {
    ($($name:literal)?) => {
        $crate::sync::CondVar::new($crate::optional_name!($($name)?), $crate::static_lock_class!())
    };
}
pub use new_condvar;

/// A condition variable. Waits may end early: check the condition again.
pub struct CondVar {
    _pin: core::marker::PhantomPinned,
    inner: imp::Condvar,
}

/// How often an interruptible wait looks for a signal.
#[cfg(not(feature = "shuttle"))]
const SIGNAL_POLL: Duration = Duration::from_millis(2);

impl CondVar {
    /// An initialiser of a condition variable.
    pub fn new(_name: &'static CStr, _key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        // SAFETY: The slot is written whole.
        unsafe {
            pin_init_from_closure(|slot: *mut Self| {
                addr_of_mut!((*slot).inner).write(imp::Condvar::new());
                Ok(())
            })
        }
    }

    /// Releases the lock, waits to be notified and takes the lock again.
    pub fn wait<T, B: Backend>(&self, guard: &mut Guard<'_, T, B>) {
        let inner = guard.inner.take().unwrap();
        guard.inner = Some(self.inner.wait(inner).unwrap_or_else(|e| e.into_inner()));
    }

    /// Like [`Self::wait`], but a signal ends it. Returns whether a signal is pending.
    #[must_use = "wait_interruptible returns if a signal is pending, so the caller must check the return value"]
    pub fn wait_interruptible<T, B: Backend>(&self, guard: &mut Guard<'_, T, B>) -> bool {
        self.wait_until(guard, None);
        signal_pending()
    }

    /// Like [`Self::wait_interruptible`], for at most `jiffies` (milliseconds here).
    #[must_use = "wait_interruptible_timeout returns if a signal is pending, so the caller must check the return value"]
    pub fn wait_interruptible_timeout<T, B: Backend>(
        &self,
        guard: &mut Guard<'_, T, B>,
        jiffies: u64,
    ) -> CondVarTimeoutResult {
        let end = Instant::now() + Duration::from_millis(jiffies);
        self.wait_until(guard, Some(end));
        let jiffies = end.saturating_duration_since(Instant::now()).as_millis() as u64;
        match (jiffies, signal_pending()) {
            (jiffies, true) => CondVarTimeoutResult::Signal { jiffies },
            (0, false) => CondVarTimeoutResult::Timeout,
            (jiffies, false) => CondVarTimeoutResult::Woken { jiffies },
        }
    }

    #[cfg(not(feature = "shuttle"))]
    fn wait_until<T, B: Backend>(&self, guard: &mut Guard<'_, T, B>, end: Option<Instant>) {
        while !signal_pending() {
            let slice = match end {
                None => SIGNAL_POLL,
                Some(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return;
                    }
                    left.min(SIGNAL_POLL)
                }
            };
            let inner = guard.inner.take().unwrap();
            let (inner, result) = self
                .inner
                .wait_timeout(inner, slice)
                .unwrap_or_else(|e| e.into_inner());
            guard.inner = Some(inner);
            if !result.timed_out() {
                return;
            }
        }
    }

    /// Under shuttle time does not pass: a wait ends by a notification.
    #[cfg(feature = "shuttle")]
    fn wait_until<T, B: Backend>(&self, guard: &mut Guard<'_, T, B>, _: Option<Instant>) {
        if !signal_pending() {
            self.wait(guard);
        }
    }

    /// Wakes one waiter.
    pub fn notify_one(&self) {
        self.inner.notify_one();
    }

    /// Wakes one waiter.
    pub fn notify_sync(&self) {
        self.inner.notify_one();
    }

    /// Wakes all waiters.
    pub fn notify_all(&self) {
        self.inner.notify_all();
    }
}

/// How a wait with a timeout ended.
pub enum CondVarTimeoutResult {
    /// The time was up.
    Timeout,
    /// Somebody notified.
    Woken {
        /// What was left of the time.
        jiffies: u64,
    },
    /// A signal is pending.
    Signal {
        /// What was left of the time.
        jiffies: u64,
    },
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;
    use crate::prelude::*;
    use crate::sync::{new_mutex, Arc, Mutex};

    #[test]
    fn wakes_and_is_interrupted() {
        let m: Arc<Mutex<bool>> = Arc::pin_init(new_mutex!(false), GFP_KERNEL).unwrap();
        let cv: Arc<CondVar> = Arc::pin_init(new_condvar!(), GFP_KERNEL).unwrap();
        let (m2, cv2) = (m.clone(), cv.clone());
        let t = std::thread::spawn(move || {
            *m2.lock() = true;
            cv2.notify_all();
        });
        let mut guard = m.lock();
        while !*guard {
            cv.wait(&mut guard);
        }
        drop(guard);
        t.join().unwrap();

        let me = crate::platform::signal::current();
        let t = std::thread::spawn(move || me.send(false));
        let mut guard = m.lock();
        assert!(cv.wait_interruptible(&mut guard));
        t.join().unwrap();
        crate::platform::signal::current().clear();
        assert!(!crate::platform::signal_pending());
    }
}
