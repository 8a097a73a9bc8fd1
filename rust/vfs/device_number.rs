// SPDX-License-Identifier: GPL-2.0
//! The device number of a mounted volume, as `mountinfo` shows it: an anonymous one, as with the C
//! driver, so that no tool takes the volume for the one filesystem on its device.
//!
//! The VFS finds the superblock of a device by that number, too. So a superblock has its device's
//! number while it is set up and while it is shut down, and in between a table leads from the one
//! number to the other.
//!
//! Lock: the table's mutex is a leaf.

use crate::bindings;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::Mutex;

/// The number of a volume's device, and the anonymous number of the volume.
type DeviceAndVolume = (u32, u32);

/// The anonymous numbers of all mounted volumes.
pub(super) struct Numbers(Pin<KBox<Mutex<KVec<DeviceAndVolume>>>>);

impl Numbers {
    /// No volumes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        Ok(Self(KBox::pin_init(
            new_mutex!(KVec::new(), "Filesystem::numbers"),
            GFP_KERNEL,
        )?))
    }

    /// The number of the volume on a device, if it is mounted.
    pub(super) fn of(&self, device: u32) -> Option<u32> {
        let numbers = self.0.lock();
        let found = numbers.iter().find(|(of, _)| *of == device);
        found.map(|(_, number)| *number)
    }

    /// Gives a superblock that was set up on its device the number of its volume.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Safety
    ///
    /// The caller has locked the superblock (`s_umount` held for writing), which is ours.
    pub(super) unsafe fn begin(&self, sb: *mut bindings::super_block, number: u32) -> Result {
        // SAFETY: By this function's contract.
        let device = unsafe { (*sb).s_dev };
        // In this order: a mount that does not find the superblock by the device's number looks
        // here again.
        self.0.lock().push((device, number), GFP_KERNEL)?;
        // SAFETY: As above.
        unsafe { (*sb).s_dev = number };
        Ok(())
    }

    /// Gives the superblock its device's number back, if it has that of its volume.
    ///
    /// # Safety
    ///
    /// As for [`Self::begin`].
    pub(super) unsafe fn end(&self, sb: *mut bindings::super_block) {
        let mut numbers = self.0.lock();
        // SAFETY: By this function's contract.
        let number = unsafe { (*sb).s_dev };
        if let Some(at) = numbers.iter().position(|(_, other)| *other == number) {
            if let Ok((device, _)) = numbers.remove(at) {
                // SAFETY: As above.
                unsafe { (*sb).s_dev = device };
            }
        }
    }
}
