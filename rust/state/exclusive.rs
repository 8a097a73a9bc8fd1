// SPDX-License-Identifier: GPL-2.0
//! The exclusive operation: of balance, resize and the changes of devices, one at a time.

use kernel::prelude::*;

use super::{Exclusive, FsFlags, State};

/// An exclusive operation other than balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A device is being added.
    DeviceAdd,
    /// A device is being removed.
    DeviceRemove,
    /// A device is being replaced.
    DeviceReplace,
    /// The filesystem is being grown or shrunk.
    Resize,
    /// A swap file is being activated.
    SwapActivate,
}

/// What sysfs shows as `exclusive_operation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExclusiveOperation {
    /// None.
    None,
    /// A balance runs.
    Balance,
    /// A balance is paused, and holds its place.
    BalancePaused,
    /// Some other operation.
    Other(Operation),
}

impl ExclusiveOperation {
    /// The text that user space knows the operation by.
    pub fn name(self) -> &'static str {
        match self {
            ExclusiveOperation::None => "none",
            ExclusiveOperation::Balance => "balance",
            ExclusiveOperation::BalancePaused => "balance paused",
            ExclusiveOperation::Other(Operation::DeviceAdd) => "device add",
            ExclusiveOperation::Other(Operation::DeviceRemove) => "device remove",
            ExclusiveOperation::Other(Operation::DeviceReplace) => "device replace",
            ExclusiveOperation::Other(Operation::Resize) => "resize",
            ExclusiveOperation::Other(Operation::SwapActivate) => "swap activate",
        }
    }
}

/// Why an exclusive operation was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another one runs. Ioctls do not fail for this: they return 8,
    /// `BTRFS_ERROR_DEV_EXCL_RUN_IN_PROGRESS`.
    Exclusive,
    /// An error as any other.
    Error(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Error(error)
    }
}

impl State {
    /// Begins an exclusive operation other than balance; the token's drop ends it.
    ///
    /// # Errors
    ///
    /// [`Refusal::Exclusive`] while another one runs or a balance is paused; `EINVAL` while the
    /// volume is being unmounted.
    pub fn begin_exclusive(
        &self,
        operation: Operation,
    ) -> core::result::Result<ExclusiveToken<'_>, Refusal> {
        let mut inner = self.inner.lock();
        if inner.flags.has(FsFlags::CLOSING) {
            return Err(Refusal::Error(EINVAL));
        }
        if !matches!(inner.exclusive, Exclusive::None) {
            return Err(Refusal::Exclusive);
        }
        inner.exclusive = Exclusive::Other(operation);
        inner.exclusive_canceled = false;
        Ok(ExclusiveToken { state: self })
    }

    /// Asks `operation` to end, and returns when it has, or on a signal.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` if it does not run.
    pub fn cancel_exclusive(&self, operation: Operation) -> Result {
        let mut inner = self.inner.lock();
        if !matches!(inner.exclusive, Exclusive::Other(running) if running == operation) {
            return Err(ENOTCONN);
        }
        inner.exclusive_canceled = true;
        // The next one takes the request back.
        while inner.exclusive_canceled && matches!(inner.exclusive, Exclusive::Other(_)) {
            if self.changed.wait_interruptible(&mut inner) {
                break;
            }
        }
        Ok(())
    }
}

impl ExclusiveToken<'_> {
    /// Whether somebody asked the operation to end.
    pub fn is_canceled(&self) -> bool {
        self.state.inner.lock().exclusive_canceled
    }
}

/// The right to an exclusive operation other than balance.
#[must_use = "the operation is over when its token is dropped"]
pub struct ExclusiveToken<'a> {
    state: &'a State,
}

impl Drop for ExclusiveToken<'_> {
    fn drop(&mut self) {
        let mut inner = self.state.inner.lock();
        inner.exclusive = Exclusive::None;
        self.state.changed.notify_all();
    }
}
