// SPDX-License-Identifier: GPL-2.0
//! The kernel's `Box`.

use super::allocator::{Allocator, KVmalloc, Kmalloc, Vmalloc};
use super::{AllocError, Flags};
use crate::init::{InPlaceInit, InPlaceWrite, Init, PinInit, Zeroable};
use core::borrow::{Borrow, BorrowMut};
use core::marker::{PhantomData, Unsize};
use core::mem::MaybeUninit;
use core::ops::{CoerceUnsized, Deref, DerefMut, DispatchFromDyn};
use core::pin::Pin;
use std::boxed::Box as StdBox;

/// An owned allocation.
pub struct Box<T: ?Sized, A: Allocator>(StdBox<T>, PhantomData<fn() -> A>);

/// A box of physically contiguous memory.
pub type KBox<T> = Box<T, Kmalloc>;
/// A box of virtually contiguous memory.
pub type VBox<T> = Box<T, Vmalloc>;
/// A box of either.
pub type KVBox<T> = Box<T, KVmalloc>;

impl<T, A: Allocator> Box<T, A> {
    /// Allocates and moves `x` in.
    pub fn new(x: T, flags: Flags) -> Result<Self, AllocError> {
        Ok(Box::new_uninit(flags)?.write(x))
    }

    /// Allocates without a value.
    pub fn new_uninit(_flags: Flags) -> Result<Box<MaybeUninit<T>, A>, AllocError> {
        crate::fault::check()?;
        Ok(Box(StdBox::new_uninit(), PhantomData))
    }

    /// Allocates with all bytes zero.
    pub fn zeroed(flags: Flags) -> Result<Self, AllocError>
    where
        T: Zeroable,
    {
        let mut b = Self::new_uninit(flags)?;
        *b.0 = MaybeUninit::zeroed();
        // SAFETY: All zero bytes are a value of a `Zeroable` type.
        Ok(unsafe { b.assume_init() })
    }

    /// Allocates, moves `x` in and pins it.
    pub fn pin(x: T, flags: Flags) -> Result<Pin<Self>, AllocError> {
        Ok(Self::new(x, flags)?.into())
    }

    /// The pinned form of the box.
    pub fn into_pin(this: Self) -> Pin<Self> {
        this.into()
    }

    /// Moves the value out.
    pub fn into_inner(b: Self) -> T {
        *b.0
    }

    /// Gives the allocation up; the value lives as long as the caller likes.
    pub fn leak<'a>(b: Self) -> &'a mut T
    where
        T: 'a,
    {
        StdBox::leak(b.0)
    }

    /// The pointer, which [`Self::from_raw`] takes back.
    pub fn into_raw(b: Self) -> *mut T {
        StdBox::into_raw(b.0)
    }

    /// The box of a pointer from [`Self::into_raw`].
    ///
    /// # Safety
    ///
    /// `raw` must come from `into_raw` and be taken back once.
    pub unsafe fn from_raw(raw: *mut T) -> Self {
        // SAFETY: By the caller.
        Self(unsafe { StdBox::from_raw(raw) }, PhantomData)
    }

    /// Drops the value and keeps the memory.
    pub fn drop_contents(this: Self) -> Box<MaybeUninit<T>, A> {
        let raw = StdBox::into_raw(this.0);
        // SAFETY: `raw` points to a value that nobody uses any more, and `MaybeUninit<T>` has the
        // layout of `T`.
        unsafe {
            raw.drop_in_place();
            Box(StdBox::from_raw(raw.cast()), PhantomData)
        }
    }
}

impl<T, A: Allocator> Box<MaybeUninit<T>, A> {
    /// Writes the value.
    pub fn write(mut self, value: T) -> Box<T, A> {
        self.0.write(value);
        // SAFETY: It was just written.
        unsafe { self.assume_init() }
    }

    /// Declares the value written.
    ///
    /// # Safety
    ///
    /// The value must have been initialised.
    pub unsafe fn assume_init(self) -> Box<T, A> {
        // SAFETY: By the caller.
        Box(unsafe { self.0.assume_init() }, PhantomData)
    }
}

impl<T, A: Allocator> InPlaceWrite<T> for Box<MaybeUninit<T>, A> {
    type Initialized = Box<T, A>;

    fn write_init<E>(mut self, init: impl Init<T, E>) -> Result<Box<T, A>, E> {
        // SAFETY: The slot is valid, and initialised when `Ok` comes back.
        unsafe {
            init.__pinned_init(self.0.as_mut_ptr())?;
            Ok(self.assume_init())
        }
    }

    fn write_pin_init<E>(mut self, init: impl PinInit<T, E>) -> Result<Pin<Box<T, A>>, E> {
        // SAFETY: The slot is valid, does not move, and is initialised when `Ok` comes back.
        unsafe {
            init.__pinned_init(self.0.as_mut_ptr())?;
            Ok(self.assume_init().into())
        }
    }
}

impl<T, A: Allocator> InPlaceInit<T> for Box<T, A> {
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

impl<T: ?Sized, A: Allocator> From<Box<T, A>> for Pin<Box<T, A>> {
    fn from(b: Box<T, A>) -> Self {
        // SAFETY: The value lives on the heap and cannot be moved out of a pinned box.
        unsafe { Pin::new_unchecked(b) }
    }
}

impl<T: ?Sized, A: Allocator> Unpin for Box<T, A> {}

impl<T: ?Sized + Unsize<U>, U: ?Sized, A: Allocator> CoerceUnsized<Box<U, A>> for Box<T, A> {}
impl<T: ?Sized + Unsize<U>, U: ?Sized, A: Allocator> DispatchFromDyn<Box<U, A>> for Box<T, A> {}

impl<T: ?Sized, A: Allocator> Deref for Box<T, A> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized, A: Allocator> DerefMut for Box<T, A> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: ?Sized, A: Allocator> Borrow<T> for Box<T, A> {
    fn borrow(&self) -> &T {
        self
    }
}

impl<T: ?Sized, A: Allocator> BorrowMut<T> for Box<T, A> {
    fn borrow_mut(&mut self) -> &mut T {
        self
    }
}

impl<T: ?Sized + core::fmt::Display, A: Allocator> core::fmt::Display for Box<T, A> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + core::fmt::Debug, A: Allocator> core::fmt::Debug for Box<T, A> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use crate::prelude::*;

    #[test]
    fn a_box_coerces_to_a_trait_object() {
        trait Speak {
            fn say(&self) -> u32;
        }
        impl Speak for u32 {
            fn say(&self) -> u32 {
                *self
            }
        }
        let b: KBox<dyn Speak> = KBox::new(7u32, GFP_KERNEL).unwrap();
        assert_eq!(b.say(), 7);
    }

    #[test]
    fn the_planned_allocation_fails() {
        crate::fault::fail_alloc_after(1);
        assert!(KBox::new(1, GFP_KERNEL).is_ok());
        assert!(KBox::new(2, GFP_KERNEL).is_err());
        assert!(KBox::new(3, GFP_KERNEL).is_ok());
        assert_eq!(crate::fault::count(), 3);
        crate::fault::clear();
    }
}
