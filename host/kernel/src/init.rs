// SPDX-License-Identifier: GPL-2.0
//! In-place initialisation, reduced to what locks inside boxes need.

use crate::alloc::{AllocError, Flags};
use crate::error::Error;
use core::convert::Infallible;

/// Initialises a `T` in place; the value may never be moved afterwards.
///
/// # Safety
///
/// `__pinned_init` must have initialised `slot` when it returns `Ok`, and must leave it to be freed
/// without a drop when it returns an error.
pub unsafe trait PinInit<T: ?Sized, E = Infallible>: Sized {
    /// # Safety
    ///
    /// `slot` must be valid for writes, and not be moved until dropped if this returns `Ok`.
    #[doc(hidden)]
    unsafe fn __pinned_init(self, slot: *mut T) -> Result<(), E>;
}

/// Initialises a `T` in place; the value may be moved.
///
/// # Safety
///
/// As for [`PinInit`].
pub unsafe trait Init<T: ?Sized, E = Infallible>: PinInit<T, E> {}

// SAFETY: The whole value is written.
unsafe impl<T, E> PinInit<T, E> for T {
    unsafe fn __pinned_init(self, slot: *mut T) -> Result<(), E> {
        // SAFETY: The caller guarantees that `slot` is valid for writes.
        unsafe { slot.write(self) };
        Ok(())
    }
}

// SAFETY: As above; a value that was written may be moved.
unsafe impl<T, E> Init<T, E> for T {}

type Makes<T, E> = core::marker::PhantomData<fn(*mut T) -> E>;

struct Closure<F, T: ?Sized, E>(F, Makes<T, E>);

// SAFETY: `pin_init_from_closure` passes the duty on to its caller.
unsafe impl<T: ?Sized, E, F: FnOnce(*mut T) -> Result<(), E>> PinInit<T, E> for Closure<F, T, E> {
    unsafe fn __pinned_init(self, slot: *mut T) -> Result<(), E> {
        (self.0)(slot)
    }
}

/// An initialiser from a function that fills the slot.
///
/// # Safety
///
/// `f` must do what [`PinInit`] demands.
pub unsafe fn pin_init_from_closure<T: ?Sized, E>(
    f: impl FnOnce(*mut T) -> Result<(), E>,
) -> impl PinInit<T, E> {
    Closure(f, core::marker::PhantomData)
}

/// Smart pointers that can allocate and initialise in place.
pub trait InPlaceInit<T>: Sized {
    /// The pinned form of the pointer.
    type PinnedSelf;

    /// Allocates and initialises a value that will not move.
    fn try_pin_init<E: From<AllocError>>(
        init: impl PinInit<T, E>,
        flags: Flags,
    ) -> Result<Self::PinnedSelf, E>;

    /// Like [`Self::try_pin_init`], with the kernel's error.
    fn pin_init<E>(init: impl PinInit<T, E>, flags: Flags) -> Result<Self::PinnedSelf, Error>
    where
        Error: From<E>,
    {
        // SAFETY: `__pinned_init` fulfils what `PinInit` demands, for the same slot.
        let init = unsafe {
            pin_init_from_closure(move |slot| init.__pinned_init(slot).map_err(Error::from))
        };
        Self::try_pin_init(init, flags)
    }

    /// Allocates and initialises a value.
    fn try_init<E: From<AllocError>>(init: impl Init<T, E>, flags: Flags) -> Result<Self, E>;
}

/// Allocated places that can be initialised.
pub trait InPlaceWrite<T>: Sized {
    /// The pointer to the initialised value.
    type Initialized;

    /// Initialises the place.
    fn write_init<E>(self, init: impl Init<T, E>) -> Result<Self::Initialized, E>;

    /// Initialises the place, whose value will not move.
    fn write_pin_init<E>(
        self,
        init: impl PinInit<T, E>,
    ) -> Result<core::pin::Pin<Self::Initialized>, E>;
}

/// Types for which all zero bytes are a value.
///
/// # Safety
///
/// All zero bytes must be a valid value of the type.
pub unsafe trait Zeroable {}

macro_rules! zeroable {
    ($($t:ty)*) => { $(
        // SAFETY: Zero is a value of the type.
        unsafe impl Zeroable for $t {}
    )* };
}

zeroable!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize bool char);

// SAFETY: Each element may be zero.
unsafe impl<T: Zeroable, const N: usize> Zeroable for [T; N] {}
