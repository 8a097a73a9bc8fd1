// SPDX-License-Identifier: GPL-2.0
//! Reference counts, locks, condition variables and atomics.

pub mod arc;
pub mod atomic;
pub mod completion;
pub mod condvar;
pub mod lock;
#[cfg(feature = "shuttle")]
mod schedule;

pub use arc::{Arc, ArcBorrow, UniqueArc};
pub use completion::Completion;
pub use condvar::{new_condvar, CondVar, CondVarTimeoutResult};
pub use lock::mutex::{new_mutex, Mutex, MutexGuard};
pub use lock::spinlock::{new_spinlock, SpinLock, SpinLockGuard};
pub use lock::{Guard, Lock};

/// What lockdep tells classes of locks apart by; the host has no lockdep.
pub struct LockClassKey(());

impl LockClassKey {
    #[doc(hidden)]
    pub const fn new_static() -> Self {
        Self(())
    }
}

/// A class of locks for the place where this is written.
#[macro_export]
macro_rules! static_lock_class {
    () => {{
        static CLASS: $crate::sync::LockClassKey = $crate::sync::LockClassKey::new_static();
        ::core::pin::Pin::static_ref(&CLASS)
    }};
}
pub use static_lock_class;

/// The name that was given, or the place.
#[doc(hidden)]
#[macro_export]
macro_rules! optional_name {
    () => {
        c""
    };
    ($name:literal) => {
        match ::core::ffi::CStr::from_bytes_with_nul(::core::concat!($name, "\0").as_bytes()) {
            Ok(name) => name,
            Err(_) => c"",
        }
    };
}
