// SPDX-License-Identifier: GPL-2.0
//! What the engine asks of a block device.

use kernel::prelude::*;

/// The unit of all I/O, in bytes.
pub const SECTOR: u64 = 512;

/// One of several reads.
pub struct ReadIo<'b> {
    /// Where to read, in bytes; a multiple of [`SECTOR`].
    pub offset: u64,
    /// Where the bytes go; a multiple of [`SECTOR`] long.
    pub buf: &'b mut [u8],
    /// How the read went, once [`BlockDevice::read_many`] returned.
    pub result: Result,
}

impl<'b> ReadIo<'b> {
    /// A read that was not done yet.
    pub fn new(offset: u64, buf: &'b mut [u8]) -> Self {
        Self {
            offset,
            buf,
            result: Err(EIO),
        }
    }
}

/// One of several writes.
pub struct WriteIo<'b> {
    /// Where to write, in bytes; a multiple of [`SECTOR`].
    pub offset: u64,
    /// The bytes; a multiple of [`SECTOR`] long.
    pub buf: &'b [u8],
}

/// A device, addressed by bytes. All addresses are physical: those of the device itself.
///
/// Every method fails with `EIO` where the device does, and with `EINVAL` outside of the device and
/// for what is not aligned to [`SECTOR`].
pub trait BlockDevice: Send + Sync {
    /// The short name for messages, such as `vda`.
    fn name(&self) -> &str;

    /// The size in bytes.
    fn size(&self) -> u64;

    /// Whether nothing can be written to the device.
    fn is_read_only(&self) -> bool {
        false
    }

    /// Fills `buf` from `offset`.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result;

    /// Does several reads, in any order or at once. Each one's result is in it; the first error is
    /// returned as well.
    fn read_many(&self, ios: &mut [ReadIo<'_>]) -> Result {
        let mut all = Ok(());
        for io in ios {
            io.result = self.read(io.offset, io.buf);
            all = all.and(io.result);
        }
        all
    }

    /// Writes `buf` to `offset`. The bytes are durable only after a later [`Self::flush`].
    fn write(&self, offset: u64, buf: &[u8]) -> Result;

    /// Does several writes, in any order or at once, and returns when all have ended. Nothing is
    /// flushed.
    fn write_many(&self, ios: &[WriteIo<'_>]) -> Result {
        let mut all = Ok(());
        for io in ios {
            all = all.and(self.write(io.offset, io.buf));
        }
        all
    }

    /// Does the same, and calls `meanwhile` while the device is at work, or after it if the device
    /// cannot do that. If the writes could not even be begun it is not called.
    fn write_many_while(&self, ios: &[WriteIo<'_>], meanwhile: &mut dyn FnMut()) -> Result {
        let all = self.write_many(ios);
        meanwhile();
        all
    }

    /// Writes `buf` to `offset`; it is durable when this returns. It orders nothing that was
    /// written before.
    fn write_fua(&self, offset: u64, buf: &[u8]) -> Result;

    /// Makes durable all writes that had ended before this began.
    fn flush(&self) -> Result;

    /// The unit of [`Self::discard`], in bytes: it makes nothing of what is smaller. `None` if the
    /// device cannot discard.
    fn discard_granularity(&self) -> Option<u64> {
        None
    }

    /// Tells the device that a range is not in use.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the device does not care.
    fn discard(&self, offset: u64, len: u64) -> Result;
}
