// SPDX-License-Identifier: GPL-2.0
//! The kernel's `Arc`: no weak references, fallible allocation.

use crate::alloc::{AllocError, Flags};
use crate::init::{InPlaceInit, InPlaceWrite, Init, PinInit};
use core::borrow::{Borrow, BorrowMut};
use core::marker::Unsize;
use core::mem::MaybeUninit;
use core::ops::{CoerceUnsized, Deref, DerefMut, DispatchFromDyn};
use core::pin::Pin;
use std::sync::Arc as StdArc;

/// A shared reference that counts.
pub struct Arc<T: ?Sized>(StdArc<T>);

impl<T> Arc<T> {
    /// Allocates and moves `contents` in.
    pub fn new(contents: T, _flags: Flags) -> Result<Self, AllocError> {
        crate::fault::check()?;
        Ok(Self(StdArc::new(contents)))
    }
}

impl<T: ?Sized> Arc<T> {
    /// Whether both point to the same value.
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        StdArc::ptr_eq(&this.0, &other.0)
    }

    /// The address of the value.
    pub fn as_ptr(this: &Self) -> *const T {
        StdArc::as_ptr(&this.0)
    }

    /// A borrow that can become an `Arc` again.
    pub fn as_arc_borrow(&self) -> ArcBorrow<'_, T> {
        ArcBorrow(self)
    }
}

impl<T> InPlaceInit<T> for Arc<T> {
    type PinnedSelf = Self;

    fn try_pin_init<E: From<AllocError>>(
        init: impl PinInit<T, E>,
        flags: Flags,
    ) -> Result<Self, E> {
        UniqueArc::try_pin_init(init, flags).map(Arc::from)
    }

    fn try_init<E: From<AllocError>>(init: impl Init<T, E>, flags: Flags) -> Result<Self, E> {
        UniqueArc::try_init(init, flags).map(Arc::from)
    }
}

impl<T: ?Sized> Clone for Arc<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: ?Sized> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized> AsRef<T> for Arc<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: ?Sized> Borrow<T> for Arc<T> {
    fn borrow(&self) -> &T {
        self
    }
}

impl<T: ?Sized> From<UniqueArc<T>> for Arc<T> {
    fn from(item: UniqueArc<T>) -> Self {
        Self(item.0)
    }
}

impl<T: ?Sized> From<Pin<UniqueArc<T>>> for Arc<T> {
    fn from(item: Pin<UniqueArc<T>>) -> Self {
        // SAFETY: An `Arc` does not let its value be moved.
        unsafe { Pin::into_inner_unchecked(item) }.into()
    }
}

impl<T: ?Sized + Unsize<U>, U: ?Sized> CoerceUnsized<Arc<U>> for Arc<T> {}
impl<T: ?Sized + Unsize<U>, U: ?Sized> DispatchFromDyn<Arc<U>> for Arc<T> {}

impl<T: ?Sized + core::fmt::Display> core::fmt::Display for Arc<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + core::fmt::Debug> core::fmt::Debug for Arc<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        (**self).fmt(f)
    }
}

/// A borrowed `Arc`.
pub struct ArcBorrow<'a, T: ?Sized>(&'a Arc<T>);

impl<T: ?Sized> Clone for ArcBorrow<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for ArcBorrow<'_, T> {}

impl<T: ?Sized> Deref for ArcBorrow<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0
    }
}

impl<T: ?Sized> From<ArcBorrow<'_, T>> for Arc<T> {
    fn from(b: ArcBorrow<'_, T>) -> Self {
        b.0.clone()
    }
}

/// An `Arc` that nobody shares yet.
pub struct UniqueArc<T: ?Sized>(StdArc<T>);

impl<T> UniqueArc<T> {
    /// Allocates and moves `value` in.
    pub fn new(value: T, flags: Flags) -> Result<Self, AllocError> {
        Ok(Self::new_uninit(flags)?.write(value))
    }

    /// Allocates without a value.
    pub fn new_uninit(_flags: Flags) -> Result<UniqueArc<MaybeUninit<T>>, AllocError> {
        crate::fault::check()?;
        Ok(UniqueArc(StdArc::new_uninit()))
    }
}

impl<T> UniqueArc<MaybeUninit<T>> {
    /// Writes the value.
    pub fn write(mut self, value: T) -> UniqueArc<T> {
        self.deref_mut().write(value);
        // SAFETY: It was just written.
        unsafe { self.assume_init() }
    }

    /// Declares the value written.
    ///
    /// # Safety
    ///
    /// The value must have been initialised.
    pub unsafe fn assume_init(self) -> UniqueArc<T> {
        // SAFETY: By the caller.
        UniqueArc(unsafe { self.0.assume_init() })
    }

    /// Initialises the value in place.
    pub fn init_with<E>(self, init: impl Init<T, E>) -> Result<UniqueArc<T>, E> {
        self.write_init(init)
    }

    /// Initialises the value in place, and pins it.
    pub fn pin_init_with<E>(self, init: impl PinInit<T, E>) -> Result<Pin<UniqueArc<T>>, E> {
        self.write_pin_init(init)
    }
}

impl<T> InPlaceWrite<T> for UniqueArc<MaybeUninit<T>> {
    type Initialized = UniqueArc<T>;

    fn write_init<E>(mut self, init: impl Init<T, E>) -> Result<UniqueArc<T>, E> {
        // SAFETY: The slot is valid, and initialised when `Ok` comes back.
        unsafe {
            init.__pinned_init(self.deref_mut().as_mut_ptr())?;
            Ok(self.assume_init())
        }
    }

    fn write_pin_init<E>(mut self, init: impl PinInit<T, E>) -> Result<Pin<UniqueArc<T>>, E> {
        // SAFETY: The slot is valid, does not move, and is initialised when `Ok` comes back.
        unsafe {
            init.__pinned_init(self.deref_mut().as_mut_ptr())?;
            Ok(self.assume_init().into())
        }
    }
}

impl<T> InPlaceInit<T> for UniqueArc<T> {
    type PinnedSelf = Pin<Self>;

    fn try_pin_init<E: From<AllocError>>(
        init: impl PinInit<T, E>,
        flags: Flags,
    ) -> Result<Pin<Self>, E> {
        Self::new_uninit(flags)?.write_pin_init(init)
    }

    fn try_init<E: From<AllocError>>(init: impl Init<T, E>, flags: Flags) -> Result<Self, E> {
        Self::new_uninit(flags)?.write_init(init)
    }
}

impl<T: ?Sized> From<UniqueArc<T>> for Pin<UniqueArc<T>> {
    fn from(obj: UniqueArc<T>) -> Self {
        // SAFETY: The value lives on the heap and cannot be moved out of a pinned `UniqueArc`.
        unsafe { Pin::new_unchecked(obj) }
    }
}

impl<T: ?Sized> Deref for UniqueArc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized> DerefMut for UniqueArc<T> {
    fn deref_mut(&mut self) -> &mut T {
        // A `UniqueArc` is never cloned, so the count is one.
        StdArc::get_mut(&mut self.0).expect("a UniqueArc is not shared")
    }
}

impl<T: ?Sized> Borrow<T> for UniqueArc<T> {
    fn borrow(&self) -> &T {
        self
    }
}

impl<T: ?Sized> BorrowMut<T> for UniqueArc<T> {
    fn borrow_mut(&mut self) -> &mut T {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alloc::flags::GFP_KERNEL;
    use crate::sync::{new_mutex, Mutex};

    #[test]
    fn coerces_to_a_trait_object_and_shares() {
        trait Speak {
            fn say(&self) -> u32;
        }
        impl Speak for u32 {
            fn say(&self) -> u32 {
                *self
            }
        }
        let a: Arc<dyn Speak> = Arc::new(3u32, GFP_KERNEL).unwrap();
        assert_eq!(a.clone().say() + a.say(), 6);
    }

    #[test]
    fn a_mutex_is_made_in_place() {
        let m: Arc<Mutex<u32>> = Arc::pin_init(new_mutex!(1), GFP_KERNEL).unwrap();
        *m.lock() += 1;
        assert_eq!(*m.lock(), 2);
    }
}
