// SPDX-License-Identifier: GPL-2.0
//! Space for data that is on its way to the device: allocated, or had by a file already, and in no
//! transaction.
//!
//! Whoever gives it back cannot fail. What that takes is made beforehand: a [`DeferredFree`] per
//! extent, which waits in a list if there is no memory to change the sets of extents, until the
//! next operation tries again.

use super::extent_set::Extent;
use super::space_info::{covering_mut, Space};
use kernel::prelude::*;

/// What space is that is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FreeKind {
    /// In an ordered extent.
    Ordered,
    /// A file has it, and it only ceases to be busy.
    Nocow,
    /// Just allocated, and not in an ordered extent yet.
    Allocated,
}

/// What it takes to give space back later on.
#[derive(Debug)]
pub(crate) struct DeferredFree {
    extent: Extent,
    kind: FreeKind,
    next: Option<KBox<DeferredFree>>,
}

impl DeferredFree {
    /// For an extent that is known when it is given back.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<KBox<Self>> {
        let unknown = DeferredFree {
            extent: Extent { start: 0, len: 0 },
            kind: FreeKind::Allocated,
            next: None,
        };
        Ok(KBox::new(unknown, GFP_KERNEL)?)
    }
}

/// Space that waits to be given back.
#[derive(Debug)]
pub(crate) struct DeferredFrees(Option<KBox<DeferredFree>>);

impl DeferredFrees {
    pub(crate) const fn none() -> Self {
        DeferredFrees(None)
    }

    fn push(&mut self, mut first: KBox<DeferredFree>) {
        first.next = self.0.take();
        self.0 = Some(first);
    }

    /// Takes all, to be given back in a space that was read anew: there, what was only allocated is
    /// free.
    pub(super) fn take_for_reload(&mut self) -> Self {
        let mut kept = DeferredFrees::none();
        while let Some(one) = self.pop() {
            if one.kind != FreeKind::Allocated {
                kept.push(one);
            }
        }
        kept
    }

    fn pop(&mut self) -> Option<KBox<DeferredFree>> {
        let mut first = self.0.take()?;
        self.0 = first.next.take();
        Some(first)
    }
}

impl Drop for DeferredFrees {
    fn drop(&mut self) {
        // One by one, or else the stack would hold as many calls as there are.
        while self.pop().is_some() {}
    }
}

impl Space {
    /// Lets an extent of data that was just allocated outlive the transaction, until
    /// [`Self::finish_ordered`].
    ///
    /// # Errors
    ///
    /// `EEXIST` if it does so already, `ENOMEM`.
    pub(super) fn set_ordered(&mut self, extent: Extent) -> Result {
        self.ordered.insert(extent)
    }

    /// Makes an ordered extent one that the running transaction allocated.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it is not in an ordered extent, `ENOMEM`.
    pub(super) fn finish_ordered(&mut self, extent: Extent) -> Result {
        self.ordered.remove(extent)
    }

    /// Whether data is on its way to a place between two logical addresses.
    pub(super) fn is_ordered(&self, start: u64, end: u64) -> bool {
        [&self.ordered, &self.nocow].into_iter().any(|set| {
            let next = set.first_after(start);
            next.is_some_and(|extent| extent.start < end)
        })
    }

    /// Notes that data is on its way to space that a file has, which must not move meanwhile.
    /// Returns whether that can be: not in a block group that is to be emptied.
    ///
    /// # Errors
    ///
    /// `EEXIST` if other data is on its way there, `ENOMEM`.
    pub(super) fn begin_nocow(&mut self, extent: Extent) -> Result<bool> {
        let group = covering_mut(&mut self.groups, extent);
        if group.is_none_or(|group| group.is_read_only()) {
            return Ok(false);
        }
        self.nocow.insert(extent)?;
        Ok(true)
    }

    /// Ends the use of space that a file has.
    ///
    /// # Errors
    ///
    /// `ENOENT` if no data is on its way there, `ENOMEM`.
    pub(super) fn end_nocow(&mut self, extent: Extent) -> Result {
        self.nocow.remove(extent)
    }

    /// Gives back an extent. Cannot fail.
    pub(super) fn free_or_defer(
        &mut self,
        mut by: KBox<DeferredFree>,
        extent: Extent,
        kind: FreeKind,
    ) {
        by.extent = extent;
        by.kind = kind;
        self.try_deferred_free(by);
    }

    /// Gives back what there was no memory for.
    pub(crate) fn retry_deferred_frees(&mut self) {
        let mut waiting = core::mem::replace(&mut self.deferred_frees, DeferredFrees::none());
        while let Some(one) = waiting.pop() {
            self.try_deferred_free(one);
        }
    }

    /// Whether something waits to be given back.
    pub(super) fn has_deferred_frees(&self) -> bool {
        self.deferred_frees.0.is_some()
    }

    fn try_deferred_free(&mut self, one: KBox<DeferredFree>) {
        let returned = match one.kind {
            FreeKind::Nocow => self.end_nocow(one.extent),
            kind => self.free_extent(one.extent, kind),
        };
        if returned == Err(ENOMEM) {
            self.deferred_frees.push(one);
        }
    }

    /// Changes all or, without memory, nothing.
    fn free_extent(&mut self, extent: Extent, kind: FreeKind) -> Result {
        let mut group = covering_mut(&mut self.groups, extent).filter(|_| !self.stale);
        if let Some(free) = group.as_mut().and_then(|group| group.free.as_mut()) {
            free.reserve(extent)?;
        }
        if kind == FreeKind::Ordered {
            self.ordered.remove(extent)?;
        }
        let Some(group) = group else {
            return Ok(());
        };
        group.reserved = group.reserved.saturating_sub(extent.len);
        match group.free.as_mut() {
            Some(free) => free.insert(extent),
            None => Ok(()),
        }
    }
}
