// SPDX-License-Identifier: GPL-2.0
//! Space for data that is on its way to the device: allocated, or had by a file already, and in no transaction.
//!
//! Whoever gives it back cannot fail. What that takes is made beforehand: a [`Return`] per extent, which waits in a list
//! if there is no memory to change the sets of extents, until the next operation tries again.

use super::extent_set::Extent;
use super::space_info::{covering_mut, Space};
use kernel::prelude::*;

/// What space is that is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// In flight.
    InFlight,
    /// A file has it, and it only ceases to be busy.
    InPlace,
    /// Just allocated, and not in flight yet.
    Allocated,
}

/// What it takes to give space back later on.
#[derive(Debug)]
pub(crate) struct Return {
    extent: Extent,
    given: Given,
    next: Option<KBox<Return>>,
}

impl Return {
    /// For an extent that is known when it is given back.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<KBox<Self>> {
        let unknown = Return {
            extent: Extent { start: 0, len: 0 },
            given: Given::Allocated,
            next: None,
        };
        Ok(KBox::new(unknown, GFP_KERNEL)?)
    }
}

/// Space that waits to be given back.
#[derive(Debug)]
pub(crate) struct Returns(Option<KBox<Return>>);

impl Returns {
    pub(crate) const fn none() -> Self {
        Returns(None)
    }

    fn push(&mut self, mut first: KBox<Return>) {
        first.next = self.0.take();
        self.0 = Some(first);
    }

    /// Takes all, to be given back in a space that was read anew: there, what was only allocated is free.
    pub(super) fn take_for_reload(&mut self) -> Self {
        let mut kept = Returns::none();
        while let Some(one) = self.pop() {
            if one.given != Given::Allocated {
                kept.push(one);
            }
        }
        kept
    }

    fn pop(&mut self) -> Option<KBox<Return>> {
        let mut first = self.0.take()?;
        self.0 = first.next.take();
        Some(first)
    }
}

impl Drop for Returns {
    fn drop(&mut self) {
        // One by one, or else the stack would hold as many calls as there are.
        while self.pop().is_some() {}
    }
}

impl Space {
    /// Lets an extent of data that was just allocated outlive the transaction, until [`Self::land`].
    ///
    /// # Errors
    ///
    /// `EEXIST` if it does so already, `ENOMEM`.
    pub(super) fn set_in_flight(&mut self, extent: Extent) -> Result {
        self.in_flight.insert(extent)
    }

    /// Makes an extent in flight one that the running transaction allocated.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it is not in flight, `ENOMEM`.
    pub(super) fn land(&mut self, extent: Extent) -> Result {
        self.in_flight.remove(extent)
    }

    /// Whether data is on its way to a place between two logical addresses.
    pub(super) fn is_in_flight(&self, start: u64, end: u64) -> bool {
        [&self.in_flight, &self.busy].into_iter().any(|set| {
            let next = set.first_after(start);
            next.is_some_and(|extent| extent.start < end)
        })
    }

    /// Notes that data is on its way to space that a file has, which must not move meanwhile. Answers whether that can
    /// be: not in a block group that is to be emptied.
    ///
    /// # Errors
    ///
    /// `EEXIST` if other data is on its way there, `ENOMEM`.
    pub(super) fn set_busy(&mut self, extent: Extent) -> Result<bool> {
        let group = covering_mut(&mut self.groups, extent);
        if group.is_none_or(|group| group.is_read_only()) {
            return Ok(false);
        }
        self.busy.insert(extent)?;
        Ok(true)
    }

    /// Ends the use of space that a file has.
    ///
    /// # Errors
    ///
    /// `ENOENT` if no data is on its way there, `ENOMEM`.
    pub(super) fn clear_busy(&mut self, extent: Extent) -> Result {
        self.busy.remove(extent)
    }

    /// Gives back an extent. Cannot fail.
    pub(super) fn give_back(&mut self, mut by: KBox<Return>, extent: Extent, given: Given) {
        by.extent = extent;
        by.given = given;
        self.try_return(by);
    }

    /// Gives back what there was no memory for.
    pub(crate) fn retry_returns(&mut self) {
        let mut waiting = core::mem::replace(&mut self.returns, Returns::none());
        while let Some(one) = waiting.pop() {
            self.try_return(one);
        }
    }

    /// Whether something waits to be given back.
    pub(super) fn has_returns(&self) -> bool {
        self.returns.0.is_some()
    }

    fn try_return(&mut self, one: KBox<Return>) {
        let returned = match one.given {
            Given::InPlace => self.clear_busy(one.extent),
            given => self.free_extent(one.extent, given),
        };
        if returned == Err(ENOMEM) {
            self.returns.push(one);
        }
    }

    /// Changes all or, without memory, nothing.
    fn free_extent(&mut self, extent: Extent, given: Given) -> Result {
        let mut group = covering_mut(&mut self.groups, extent).filter(|_| !self.stale);
        if let Some(free) = group.as_mut().and_then(|group| group.free.as_mut()) {
            free.reserve(extent)?;
        }
        if given == Given::InFlight {
            self.in_flight.remove(extent)?;
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
