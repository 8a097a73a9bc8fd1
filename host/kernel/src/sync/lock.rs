// SPDX-License-Identifier: GPL-2.0
//! Locks. A lock that a panicking test held stays usable: the panic fails the test anyway.

use super::LockClassKey;
use crate::init::{pin_init_from_closure, PinInit};
use core::ffi::CStr;
use core::marker::{PhantomData, PhantomPinned};
use core::ops::{Deref, DerefMut};
use core::pin::Pin;
use core::ptr::addr_of_mut;

#[cfg(feature = "shuttle")]
pub(super) use super::schedule as imp;
#[cfg(not(feature = "shuttle"))]
pub(super) use std::sync as imp;

/// The kind of a lock.
pub trait Backend {}

/// A lock over a `T`.
pub struct Lock<T: ?Sized, B: Backend> {
    _backend: PhantomData<fn() -> B>,
    _pin: PhantomPinned,
    data: imp::Mutex<T>,
}

impl<T, B: Backend> Lock<T, B> {
    /// An initialiser of a lock over the value that `t` makes.
    pub fn new(
        t: impl PinInit<T>,
        _name: &'static CStr,
        _key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        // SAFETY: The slot is written whole; `t` fills a place that is moved once, before anything
        // can depend on its address, as the stand-in's initialisers are plain writes.
        unsafe {
            pin_init_from_closure(move |slot: *mut Self| {
                let mut value = core::mem::MaybeUninit::uninit();
                t.__pinned_init(value.as_mut_ptr())?;
                addr_of_mut!((*slot).data).write(imp::Mutex::new(value.assume_init()));
                Ok(())
            })
        }
    }
}

impl<T: ?Sized, B: Backend> Lock<T, B> {
    /// Waits for the lock and takes it.
    pub fn lock(&self) -> Guard<'_, T, B> {
        let inner = self.data.lock().unwrap_or_else(|e| e.into_inner());
        Guard {
            lock: self,
            inner: Some(inner),
        }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<Guard<'_, T, B>> {
        match self.data.try_lock() {
            Ok(inner) => Some(Guard {
                lock: self,
                inner: Some(inner),
            }),
            Err(std::sync::TryLockError::Poisoned(e)) => Some(Guard {
                lock: self,
                inner: Some(e.into_inner()),
            }),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}

/// The lock is held as long as this lives.
#[must_use = "the lock unlocks immediately when the guard is unused"]
pub struct Guard<'a, T: ?Sized, B: Backend> {
    lock: &'a Lock<T, B>,
    /// `None` only while a condition variable waits.
    pub(super) inner: Option<imp::MutexGuard<'a, T>>,
}

impl<'a, T: ?Sized, B: Backend> Guard<'a, T, B> {
    /// The lock that is held.
    pub fn lock_ref(&self) -> &'a Lock<T, B> {
        self.lock
    }

    /// The data, pinned.
    pub fn as_mut(&mut self) -> Pin<&mut T> {
        // SAFETY: The lock is pinned, and its data with it.
        unsafe { Pin::new_unchecked(self.inner.as_mut().unwrap()) }
    }
}

impl<T: ?Sized, B: Backend> Deref for Guard<'_, T, B> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().unwrap()
    }
}

impl<T: ?Sized + Unpin, B: Backend> DerefMut for Guard<'_, T, B> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().unwrap()
    }
}

pub mod mutex {
    //! Sleeping locks.

    /// The kind of [`Mutex`].
    pub struct MutexBackend(());

    impl super::Backend for MutexBackend {}

    /// A lock that sleeps.
    pub type Mutex<T> = super::Lock<T, MutexBackend>;
    /// Holds a [`Mutex`].
    pub type MutexGuard<'a, T> = super::Guard<'a, T, MutexBackend>;

    /// An initialiser of a mutex, with an optional name.
    #[macro_export]
    macro_rules! new_mutex {
        ($inner:expr $(, $name:literal)? $(,)?) => {
            $crate::sync::Mutex::new(
                $inner, $crate::optional_name!($($name)?), $crate::static_lock_class!())
        };
    }
    pub use new_mutex;
}

pub mod spinlock {
    //! Spinning locks; on the host they sleep.

    /// The kind of [`SpinLock`].
    pub struct SpinLockBackend(());

    impl super::Backend for SpinLockBackend {}

    /// A lock that spins: whoever holds it must not sleep.
    pub type SpinLock<T> = super::Lock<T, SpinLockBackend>;
    /// Holds a [`SpinLock`].
    pub type SpinLockGuard<'a, T> = super::Guard<'a, T, SpinLockBackend>;

    /// An initialiser of a spin lock, with an optional name.
    #[macro_export]
    macro_rules! new_spinlock {
        ($inner:expr $(, $name:literal)? $(,)?) => {
            $crate::sync::SpinLock::new(
                $inner, $crate::optional_name!($($name)?), $crate::static_lock_class!())
        };
    }
    pub use new_spinlock;
}
