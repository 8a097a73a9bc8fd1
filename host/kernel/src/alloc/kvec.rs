// SPDX-License-Identifier: GPL-2.0
//! The kernel's `Vec`: it grows only where the caller allows and can see it fail.

use super::allocator::{Allocator, KVmalloc, Kmalloc, Vmalloc};
use super::{AllocError, Box, Flags};
use crate::error::{code::EINVAL, Error};
use crate::init::Zeroable;
use core::borrow::{Borrow, BorrowMut};
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut, Index, IndexMut};
use core::slice::SliceIndex;
use std::vec::Vec as StdVec;

/// A growable array.
pub struct Vec<T, A: Allocator>(StdVec<T>, PhantomData<fn() -> A>);

/// A vector in physically contiguous memory.
pub type KVec<T> = Vec<T, Kmalloc>;
/// A vector in virtually contiguous memory.
pub type VVec<T> = Vec<T, Vmalloc>;
/// A vector in either.
pub type KVVec<T> = Vec<T, KVmalloc>;

/// A vector of the given elements, or an allocation error.
#[macro_export]
macro_rules! kvec {
    () => (
        $crate::alloc::KVec::new()
    );
    ($elem:expr; $n:expr) => (
        $crate::alloc::KVec::from_elem($elem, $n, $crate::alloc::flags::GFP_KERNEL)
    );
    ($($x:expr),+ $(,)?) => (
        $crate::alloc::KBox::new([$($x),+], $crate::alloc::flags::GFP_KERNEL)
            .map($crate::alloc::KVec::from)
    );
}

/// There was no space, and nothing was allocated.
pub struct PushError<T>(pub T);

/// The index is out of bounds.
pub struct RemoveError;

/// The element could not be inserted.
pub enum InsertError<T> {
    /// Past the end.
    IndexOutOfBounds(T),
    /// No space.
    OutOfCapacity(T),
}

impl<T> core::fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Not enough capacity")
    }
}

impl core::fmt::Debug for RemoveError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Index out of bounds")
    }
}

impl<T> core::fmt::Debug for InsertError<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::IndexOutOfBounds(_) => write!(f, "Index out of bounds"),
            Self::OutOfCapacity(_) => write!(f, "Not enough capacity"),
        }
    }
}

impl<T> From<PushError<T>> for Error {
    fn from(_: PushError<T>) -> Error {
        EINVAL
    }
}

impl From<RemoveError> for Error {
    fn from(_: RemoveError) -> Error {
        EINVAL
    }
}

impl<T> From<InsertError<T>> for Error {
    fn from(_: InsertError<T>) -> Error {
        EINVAL
    }
}

impl<T, A: Allocator> Vec<T, A> {
    /// An empty vector without an allocation.
    pub const fn new() -> Self {
        Self(StdVec::new(), PhantomData)
    }

    /// An empty vector with space for `capacity` elements.
    pub fn with_capacity(capacity: usize, flags: Flags) -> Result<Self, AllocError> {
        let mut v = Self::new();
        v.reserve(capacity, flags)?;
        Ok(v)
    }

    /// `n` elements of zero bytes.
    pub fn zeroed(n: usize, flags: Flags) -> Result<Self, AllocError>
    where
        T: Zeroable,
    {
        let mut v = Self::with_capacity(n, flags)?;
        for slot in &mut v.0.spare_capacity_mut()[..n] {
            *slot = MaybeUninit::zeroed();
        }
        // SAFETY: The first `n` elements are all zero bytes, a value of a `Zeroable` type.
        unsafe { v.0.set_len(n) };
        Ok(v)
    }

    /// `n` clones of `value`.
    pub fn from_elem(value: T, n: usize, flags: Flags) -> Result<Self, AllocError>
    where
        T: Clone,
    {
        let mut v = Self::with_capacity(n, flags)?;
        v.0.resize(n, value);
        Ok(v)
    }

    /// Elements that fit without an allocation.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Declares `additional` more elements initialised.
    ///
    /// # Safety
    ///
    /// They must be, and lie within the capacity.
    pub unsafe fn inc_len(&mut self, additional: usize) {
        // SAFETY: By the caller.
        unsafe { self.0.set_len(self.0.len() + additional) }
    }

    /// The elements.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }

    /// The elements, to change.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.0
    }

    /// Pointer to the first element.
    pub fn as_ptr(&self) -> *const T {
        self.0.as_ptr()
    }

    /// Pointer to the first element.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.0.as_mut_ptr()
    }

    /// The space after the last element.
    pub fn spare_capacity_mut(&mut self) -> &mut [MaybeUninit<T>] {
        self.0.spare_capacity_mut()
    }

    /// Makes space for `additional` more elements.
    pub fn reserve(&mut self, additional: usize, _flags: Flags) -> Result<(), AllocError> {
        if self.0.capacity() - self.0.len() >= additional {
            return Ok(());
        }
        crate::fault::check()?;
        self.0.try_reserve(additional).map_err(|_| AllocError)
    }

    /// Appends an element.
    pub fn push(&mut self, v: T, flags: Flags) -> Result<(), AllocError> {
        self.reserve(1, flags)?;
        self.0.push(v);
        Ok(())
    }

    /// Appends an element if there is space.
    pub fn push_within_capacity(&mut self, v: T) -> Result<(), PushError<T>> {
        if self.0.len() == self.0.capacity() {
            return Err(PushError(v));
        }
        self.0.push(v);
        Ok(())
    }

    /// Inserts an element if there is space.
    pub fn insert_within_capacity(
        &mut self,
        index: usize,
        element: T,
    ) -> Result<(), InsertError<T>> {
        if index > self.0.len() {
            return Err(InsertError::IndexOutOfBounds(element));
        }
        if self.0.len() == self.0.capacity() {
            return Err(InsertError::OutOfCapacity(element));
        }
        self.0.insert(index, element);
        Ok(())
    }

    /// Takes the last element.
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    /// Takes the element at `i`; those after it move up.
    pub fn remove(&mut self, i: usize) -> Result<T, RemoveError> {
        if i >= self.0.len() {
            return Err(RemoveError);
        }
        Ok(self.0.remove(i))
    }

    /// Drops all elements.
    pub fn clear(&mut self) {
        self.0.clear()
    }

    /// Drops the elements after the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len)
    }

    /// Takes all elements.
    pub fn drain_all(&mut self) -> DrainAll<'_, T> {
        DrainAll(self.0.drain(..))
    }

    /// Keeps the elements for which `f` holds.
    pub fn retain(&mut self, f: impl FnMut(&mut T) -> bool) {
        self.0.retain_mut(f)
    }
}

impl<T: Clone, A: Allocator> Vec<T, A> {
    /// Appends `n` clones of `value`.
    pub fn extend_with(&mut self, n: usize, value: T, flags: Flags) -> Result<(), AllocError> {
        self.reserve(n, flags)?;
        self.0.resize(self.0.len() + n, value);
        Ok(())
    }

    /// Appends clones of the elements of `other`.
    pub fn extend_from_slice(&mut self, other: &[T], flags: Flags) -> Result<(), AllocError> {
        self.reserve(other.len(), flags)?;
        self.0.extend_from_slice(other);
        Ok(())
    }

    /// Truncates, or appends clones of `value`, to `new_len` elements.
    pub fn resize(&mut self, new_len: usize, value: T, flags: Flags) -> Result<(), AllocError> {
        if new_len > self.len() {
            self.extend_with(new_len - self.len(), value, flags)
        } else {
            self.truncate(new_len);
            Ok(())
        }
    }
}

impl<T> Vec<T, KVmalloc> {
    /// Gives memory back that exceeds the elements and `min_capacity`.
    pub fn shrink_to(&mut self, min_capacity: usize, _flags: Flags) -> Result<(), AllocError> {
        self.0.shrink_to(min_capacity);
        Ok(())
    }
}

impl<T, A: Allocator, const N: usize> From<Box<[T; N], A>> for Vec<T, A> {
    fn from(b: Box<[T; N], A>) -> Self {
        Self(StdVec::from(Box::into_inner(b)), PhantomData)
    }
}

impl<T, A: Allocator> Default for Vec<T, A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: core::fmt::Debug, A: Allocator> core::fmt::Debug for Vec<T, A> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

impl<T, A: Allocator> Deref for Vec<T, A> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, A: Allocator> DerefMut for Vec<T, A> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T, A: Allocator> Borrow<[T]> for Vec<T, A> {
    fn borrow(&self) -> &[T] {
        &self.0
    }
}

impl<T, A: Allocator> BorrowMut<[T]> for Vec<T, A> {
    fn borrow_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T: Eq, A: Allocator> Eq for Vec<T, A> {}

impl<T, I: SliceIndex<[T]>, A: Allocator> Index<I> for Vec<T, A> {
    type Output = I::Output;

    fn index(&self, index: I) -> &I::Output {
        &self.0[index]
    }
}

impl<T, I: SliceIndex<[T]>, A: Allocator> IndexMut<I> for Vec<T, A> {
    fn index_mut(&mut self, index: I) -> &mut I::Output {
        &mut self.0[index]
    }
}

macro_rules! slice_eq {
    ($([$($vars:tt)*] $lhs:ty, $rhs:ty,)*) => { $(
        impl<T: PartialEq<U>, U, $($vars)*> PartialEq<$rhs> for $lhs {
            fn eq(&self, other: &$rhs) -> bool {
                self[..] == other[..]
            }
        }
    )* };
}

slice_eq! {
    [A1: Allocator, A2: Allocator] Vec<T, A1>, Vec<U, A2>,
    [A: Allocator] Vec<T, A>, &[U],
    [A: Allocator] Vec<T, A>, &mut [U],
    [A: Allocator] &[T], Vec<U, A>,
    [A: Allocator] &mut [T], Vec<U, A>,
    [A: Allocator] Vec<T, A>, [U],
    [A: Allocator] [T], Vec<U, A>,
    [A: Allocator, const N: usize] Vec<T, A>, [U; N],
    [A: Allocator, const N: usize] Vec<T, A>, &[U; N],
}

impl<'a, T, A: Allocator> IntoIterator for &'a Vec<T, A> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'a, T, A: Allocator> IntoIterator for &'a mut Vec<T, A> {
    type Item = &'a mut T;
    type IntoIter = core::slice::IterMut<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter_mut()
    }
}

/// The elements of a vector that was given up.
pub struct IntoIter<T, A: Allocator>(std::vec::IntoIter<T>, PhantomData<fn() -> A>);

impl<T, A: Allocator> IntoIter<T, A> {
    /// The elements that are left, as a vector.
    pub fn collect(self, _flags: Flags) -> Vec<T, A> {
        Vec(self.0.collect(), PhantomData)
    }
}

impl<T, A: Allocator> Iterator for IntoIter<T, A> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<T, A: Allocator> IntoIterator for Vec<T, A> {
    type Item = T;
    type IntoIter = IntoIter<T, A>;

    fn into_iter(self) -> IntoIter<T, A> {
        IntoIter(self.0.into_iter(), PhantomData)
    }
}

/// The elements of a vector that keeps its memory.
pub struct DrainAll<'vec, T>(std::vec::Drain<'vec, T>);

impl<T> Iterator for DrainAll<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use crate::prelude::*;

    #[test]
    fn growth_is_counted_and_can_fail() {
        crate::fault::clear();
        let mut v = KVec::with_capacity(2, GFP_KERNEL).unwrap();
        v.push(1u8, GFP_KERNEL).unwrap();
        assert_eq!(crate::fault::count(), 1);
        crate::fault::fail_alloc_after(0);
        let room = v.capacity() - v.len();
        for _ in 0..room {
            v.push(2, GFP_KERNEL).unwrap();
        }
        assert_eq!(Error::from(v.push(3, GFP_KERNEL).unwrap_err()), ENOMEM);
        assert_eq!(v.len(), 1 + room);
        crate::fault::clear();
    }

    #[test]
    fn compares_with_arrays_and_slices() {
        let v = crate::kvec![1, 2, 3].unwrap();
        assert_eq!(v, [1, 2, 3]);
        assert_eq!(KVec::<u8>::zeroed(3, GFP_KERNEL).unwrap(), [0u8; 3]);
    }
}
