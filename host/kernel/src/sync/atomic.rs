// SPDX-License-Identifier: GPL-2.0
//! The kernel's atomics: the ordering is an argument, and a type.

use core::cell::UnsafeCell;
use core::sync::atomic as std_atomic;

pub use ordering::{Acquire, Full, Relaxed, Release};

pub mod ordering {
    //! Memory orderings.

    use core::sync::atomic::Ordering as Std;

    /// Any ordering.
    pub trait Ordering {
        #[doc(hidden)]
        const STD: Std;
        #[doc(hidden)]
        const STD_FAILURE: Std;
    }

    /// What loads can have.
    pub trait AcquireOrRelaxed: Ordering {}
    /// What stores can have.
    pub trait ReleaseOrRelaxed: Ordering {}

    macro_rules! orderings {
        ($($(#[$doc:meta])* $name:ident = $std:ident, $failure:ident;)*) => { $(
            $(#[$doc])*
            pub struct $name;

            impl Ordering for $name {
                const STD: Std = Std::$std;
                const STD_FAILURE: Std = Std::$failure;
            }
        )* };
    }

    orderings! {
        /// No ordering.
        Relaxed = Relaxed, Relaxed;
        /// Later accesses stay after the load.
        Acquire = Acquire, Acquire;
        /// Earlier accesses stay before the store.
        Release = Release, Relaxed;
        /// Both, for all accesses.
        Full = SeqCst, SeqCst;
    }

    impl AcquireOrRelaxed for Relaxed {}
    impl AcquireOrRelaxed for Acquire {}
    impl ReleaseOrRelaxed for Relaxed {}
    impl ReleaseOrRelaxed for Release {}
}

/// Types that can be atomic.
///
/// # Safety
///
/// `Std` must be the atomic of the same size, alignment and values.
pub unsafe trait AtomicType: Copy {
    #[doc(hidden)]
    type Std;
    #[doc(hidden)]
    fn load(a: &Self::Std, o: std_atomic::Ordering) -> Self;
    #[doc(hidden)]
    fn store(a: &Self::Std, v: Self, o: std_atomic::Ordering);
    #[doc(hidden)]
    fn swap(a: &Self::Std, v: Self, o: std_atomic::Ordering) -> Self;
    #[doc(hidden)]
    fn compare_exchange(
        a: &Self::Std,
        old: Self,
        new: Self,
        ok: std_atomic::Ordering,
        fail: std_atomic::Ordering,
    ) -> Result<Self, Self>;
}

/// Atomic types that wrap around when added to.
pub trait AtomicAdd<Rhs>: AtomicType {
    #[doc(hidden)]
    fn fetch_add(a: &Self::Std, v: Rhs, o: std_atomic::Ordering) -> Self;
    #[doc(hidden)]
    fn fetch_sub(a: &Self::Std, v: Rhs, o: std_atomic::Ordering) -> Self;
}

/// A value that threads may change without a lock.
#[repr(transparent)]
pub struct Atomic<T: AtomicType>(UnsafeCell<T>);

// SAFETY: All accesses through a shared reference are atomic.
unsafe impl<T: AtomicType> Send for Atomic<T> {}
// SAFETY: As above.
unsafe impl<T: AtomicType> Sync for Atomic<T> {}

impl<T: AtomicType> Atomic<T> {
    /// A new atomic.
    pub const fn new(v: T) -> Self {
        Self(UnsafeCell::new(v))
    }

    /// The value, which nobody else can see.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }

    fn std(&self) -> &T::Std {
        // SAFETY: `T::Std` has the layout and values of `T`, and the cell allows the change.
        unsafe { &*self.0.get().cast() }
    }

    /// Reads.
    pub fn load<O: ordering::AcquireOrRelaxed>(&self, _: O) -> T {
        T::load(self.std(), O::STD)
    }

    /// Writes.
    pub fn store<O: ordering::ReleaseOrRelaxed>(&self, v: T, _: O) {
        T::store(self.std(), v, O::STD)
    }

    /// Writes, and returns what was there.
    pub fn xchg<O: ordering::Ordering>(&self, v: T, _: O) -> T {
        T::swap(self.std(), v, O::STD)
    }

    /// Writes `new` if `old` is there; returns what was there.
    pub fn cmpxchg<O: ordering::Ordering>(&self, old: T, new: T, _: O) -> Result<T, T> {
        T::compare_exchange(self.std(), old, new, O::STD, O::STD_FAILURE)
    }

    /// Adds.
    pub fn add<Rhs>(&self, v: Rhs, _: Relaxed)
    where
        T: AtomicAdd<Rhs>,
    {
        T::fetch_add(self.std(), v, std_atomic::Ordering::Relaxed);
    }

    /// Adds, and returns what was there.
    pub fn fetch_add<Rhs, O: ordering::Ordering>(&self, v: Rhs, _: O) -> T
    where
        T: AtomicAdd<Rhs>,
    {
        T::fetch_add(self.std(), v, O::STD)
    }

    /// Subtracts, and returns what was there.
    pub fn fetch_sub<Rhs, O: ordering::Ordering>(&self, v: Rhs, _: O) -> T
    where
        T: AtomicAdd<Rhs>,
    {
        T::fetch_sub(self.std(), v, O::STD)
    }
}

impl<T: AtomicType + core::fmt::Debug> core::fmt::Debug for Atomic<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.load(Relaxed).fmt(f)
    }
}

macro_rules! atomic_types {
    ($($t:ty = $std:ident;)*) => { $(
        // SAFETY: The atomics of `core` have the layout of their values.
        unsafe impl AtomicType for $t {
            type Std = std_atomic::$std;

            fn load(a: &Self::Std, o: std_atomic::Ordering) -> Self {
                a.load(o)
            }

            fn store(a: &Self::Std, v: Self, o: std_atomic::Ordering) {
                a.store(v, o)
            }

            fn swap(a: &Self::Std, v: Self, o: std_atomic::Ordering) -> Self {
                a.swap(v, o)
            }

            fn compare_exchange(
                a: &Self::Std,
                old: Self,
                new: Self,
                ok: std_atomic::Ordering,
                fail: std_atomic::Ordering,
            ) -> Result<Self, Self> {
                a.compare_exchange(old, new, ok, fail)
            }
        }
    )* };
}

atomic_types! {
    bool = AtomicBool;
    i32 = AtomicI32;
    i64 = AtomicI64;
    isize = AtomicIsize;
    u32 = AtomicU32;
    u64 = AtomicU64;
    usize = AtomicUsize;
}

macro_rules! atomic_adds {
    ($($t:ty)*) => { $(
        impl AtomicAdd<$t> for $t {
            fn fetch_add(a: &Self::Std, v: $t, o: std_atomic::Ordering) -> Self {
                a.fetch_add(v, o)
            }

            fn fetch_sub(a: &Self::Std, v: $t, o: std_atomic::Ordering) -> Self {
                a.fetch_sub(v, o)
            }
        }
    )* };
}

atomic_adds!(i32 i64 isize u32 u64 usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchanges_and_adds() {
        let a = Atomic::new(5u64);
        assert_eq!(a.fetch_add(2, Full), 5);
        assert_eq!(a.cmpxchg(7, 9, Acquire), Ok(7));
        assert_eq!(a.cmpxchg(7, 1, Release), Err(9));
        assert_eq!(a.xchg(0, Relaxed), 9);
        assert_eq!(a.load(Acquire), 0);
    }
}
