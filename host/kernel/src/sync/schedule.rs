// SPDX-License-Identifier: GPL-2.0
//! Locks and condition variables for shuttle's scheduler, with as few switches as show every order
//! of critical sections: one before a lock is taken, and one where a thread has to wait.
//!
//! Shuttle's own also switch inside of critical sections and after them, where all that the others
//! could do is to come to the same lock; that multiplies the orders to walk by many powers and
//! shows nothing more.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, LockResult, PoisonError, TryLockError, TryLockResult};
use std::task::{Poll, Waker};
use std::time::Duration;

/// Threads that wait, first come first.
struct Queue(std::sync::Mutex<Vec<(Arc<AtomicBool>, Waker)>>);

impl Queue {
    const fn new() -> Queue {
        Queue(std::sync::Mutex::new(Vec::new()))
    }

    fn waiters(&self) -> std::sync::MutexGuard<'_, Vec<(Arc<AtomicBool>, Waker)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `release` and waits to be woken.
    fn wait(&self, release: impl FnOnce()) {
        let woken = Arc::new(AtomicBool::new(false));
        let mut release = Some(release);
        shuttle::future::block_on(poll_fn(|context| {
            if let Some(release) = release.take() {
                let waker = context.waker().clone();
                self.waiters().push((woken.clone(), waker));
                release();
            }
            if woken.load(SeqCst) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
    }

    fn wake(&self, count: usize) {
        let mut waiters = self.waiters();
        let count = count.min(waiters.len());
        for (woken, waker) in waiters.drain(..count) {
            woken.store(true, SeqCst);
            waker.wake();
        }
    }
}

/// A lock, in the shape of `std::sync::Mutex`.
pub struct Mutex<T: ?Sized> {
    blocked: Queue,
    data: std::sync::Mutex<T>,
}

/// The lock is held as long as this lives.
pub struct MutexGuard<'a, T: ?Sized> {
    lock: &'a Mutex<T>,
    data: Option<std::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    /// A lock over `value`.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex {
            blocked: Queue::new(),
            data: std::sync::Mutex::new(value),
        }
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock and takes it.
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        shuttle::thread::sleep(Duration::ZERO);
        Ok(self.relock())
    }

    /// Takes the lock where the thread was just scheduled.
    fn relock(&self) -> MutexGuard<'_, T> {
        loop {
            match self.take() {
                Some(guard) => return guard,
                None => self.blocked.wait(|| ()),
            }
        }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        shuttle::thread::sleep(Duration::ZERO);
        self.take().ok_or(TryLockError::WouldBlock)
    }

    fn take(&self) -> Option<MutexGuard<'_, T>> {
        let data = match self.data.try_lock() {
            Ok(data) => data,
            Err(TryLockError::Poisoned(data)) => data.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard {
            lock: self,
            data: Some(data),
        })
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.data.as_ref().unwrap()
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.data.as_mut().unwrap()
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.data = None;
        self.lock.blocked.wake(1);
    }
}

/// A condition variable, in the shape of `std::sync::Condvar`.
pub struct Condvar(Queue);

impl Condvar {
    /// One that nobody waits for.
    pub const fn new() -> Condvar {
        Condvar(Queue::new())
    }

    /// Releases the lock, waits to be notified and takes the lock again.
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let lock = guard.lock;
        self.0.wait(|| drop(guard));
        Ok(lock.relock())
    }

    /// Wakes one waiter.
    pub fn notify_one(&self) {
        self.0.wake(1);
    }

    /// Wakes all waiters.
    pub fn notify_all(&self) {
        self.0.wake(usize::MAX);
    }
}
