// SPDX-License-Identifier: GPL-2.0
//! Where a stream goes.

use kernel::prelude::*;

/// Takes the bytes of a stream: in the kernel the file descriptor of the ioctl, usually a pipe.
///
/// Calls may block for as long as the other end likes, and nothing that others wait for is held
/// meanwhile. An error ends the send and becomes its result, so an implementation answers `EPIPE`
/// for a closed pipe and `EINTR` for a signal (not `ERESTARTSYS`: a send that started over would
/// put a second stream after the first).
pub trait Sink {
    /// Writes all of `bytes`.
    ///
    /// # Errors
    ///
    /// Whatever kept the other end from taking all of it.
    fn write(&mut self, bytes: &[u8]) -> Result;

    /// Writes all of `head` and then all of `data`, in one piece where that saves work.
    ///
    /// # Errors
    ///
    /// As for [`Sink::write`].
    fn write_both(&mut self, head: &[u8], data: &[u8]) -> Result {
        self.write(head)?;
        self.write(data)
    }
}
