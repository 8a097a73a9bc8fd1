// SPDX-License-Identifier: GPL-2.0
//! The encoder: commands with their attributes, gathered into large writes.

use super::data::checksum::{append_sector, SECTOR};
use super::proto::{Attr, Command, Version, COMMAND_HEAD, MAGIC};
use super::sink::Sink;
use crate::format::inode::Timespec;
use crate::format::Checksum;
use crate::platform::{crc32c, signal_pending};
use crate::volume::ReadSession;
use kernel::prelude::*;

/// Bytes of commands that are gathered before they are written.
const BATCH: usize = 256 << 10;

/// Space for commands at first. Most of what changes often is sent in less, and a large buffer
/// would take longer to get than that takes to send.
const FIRST: usize = 16 << 10;

/// File data of this length or more goes to the sink from where it is, without another copy.
const DIRECT: usize = 16 << 10;

/// A stream under way.
pub(super) struct Stream<'a> {
    /// The commit that is read is left before each write, and for a newer one after each command.
    session: &'a ReadSession,
    sink: &'a mut dyn Sink,
    version: Version,
    /// Grows up to a batch and the largest command after it.
    buf: KVVec<u8>,
    /// The bytes of finished commands in `buf`.
    len: usize,
}

impl<'a> Stream<'a> {
    pub(super) fn new(
        session: &'a ReadSession,
        sink: &'a mut dyn Sink,
        version: Version,
    ) -> Result<Self> {
        Ok(Stream {
            session,
            sink,
            version,
            buf: KVVec::zeroed(FIRST, GFP_KERNEL)?,
            len: 0,
        })
    }

    /// The buffer from `start` to `end`.
    #[inline]
    fn buffer(&mut self, start: usize, end: usize) -> Result<&mut [u8]> {
        if end > self.buf.len() {
            self.grow(end)?;
        }
        self.buf.get_mut(start..end).ok_or(EOVERFLOW)
    }

    /// Makes the buffer at least `end` bytes long.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, end: usize) -> Result {
        let most = BATCH.saturating_add(self.version.max_command());
        if end > most {
            return Err(EOVERFLOW);
        }
        let wanted = end.max(self.buf.len().saturating_mul(2)).min(most);
        let mut larger = KVVec::zeroed(wanted, GFP_KERNEL)?;
        let (old, _) = larger
            .split_at_mut_checked(self.buf.len())
            .ok_or(EOVERFLOW)?;
        old.copy_from_slice(&self.buf);
        self.buf = larger;
        Ok(())
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// Writes the head of the stream.
    pub(super) fn header(&mut self) -> Result {
        let mut head = [0u8; 17];
        let (magic, version) = head.split_at_mut(MAGIC.len());
        magic.copy_from_slice(MAGIC);
        version.copy_from_slice(&self.version.number().to_le_bytes());
        let end = self.len.saturating_add(head.len());
        self.buffer(self.len, end)?.copy_from_slice(&head);
        self.len = end;
        Ok(())
    }

    /// Starts a command; dropping what is returned without finishing it leaves no trace.
    pub(super) fn command(&mut self, command: Command) -> Result<Builder<'_, 'a>> {
        let start = self.len;
        let at = start.saturating_add(COMMAND_HEAD);
        let limit = start.saturating_add(self.version.max_command());
        let head = self.buffer(start, at)?;
        head.fill(0);
        let number = head.get_mut(4..6).ok_or(EOVERFLOW)?;
        number.copy_from_slice(&(command as u16).to_le_bytes());
        Ok(Builder {
            stream: self,
            at,
            limit,
        })
    }

    /// Hands everything finished so far to the sink.
    ///
    /// # Errors
    ///
    /// `EINTR` if a signal is pending, and what the sink gives.
    pub(super) fn flush(&mut self) -> Result {
        if self.len == 0 {
            return Ok(());
        }
        if signal_pending() {
            return Err(EINTR);
        }
        let bytes = self.buf.get(..self.len).ok_or(EOVERFLOW)?;
        self.session.leave();
        self.sink.write(bytes)?;
        self.len = 0;
        Ok(())
    }

    /// Takes in a command that ends at `end` in the buffer.
    fn finished(&mut self, end: usize) -> Result {
        self.len = end;
        if end >= BATCH {
            return self.flush();
        }
        self.session.renew();
        Ok(())
    }
}

/// A command being put together.
#[must_use = "a command that is not finished is not sent"]
pub(super) struct Builder<'s, 'a> {
    stream: &'s mut Stream<'a>,
    at: usize,
    limit: usize,
}

impl Builder<'_, '_> {
    /// Claims the next `len` bytes of the command.
    fn claim(&mut self, len: usize) -> Result<&mut [u8]> {
        let end = self.at.checked_add(len).ok_or(EOVERFLOW)?;
        if end > self.limit {
            return Err(EOVERFLOW);
        }
        let start = core::mem::replace(&mut self.at, end);
        self.stream.buffer(start, end)
    }

    pub(super) fn bytes(mut self, attr: Attr, value: &[u8]) -> Result<Self> {
        let len = u16::try_from(value.len()).map_err(|_| EOVERFLOW)?;
        let buffer = self.claim(value.len().saturating_add(4))?;
        let (head, body) = buffer.split_at_mut_checked(4).ok_or(EOVERFLOW)?;
        let (kind, length) = head.split_at_mut_checked(2).ok_or(EOVERFLOW)?;
        kind.copy_from_slice(&(attr as u16).to_le_bytes());
        length.copy_from_slice(&len.to_le_bytes());
        body.copy_from_slice(value);
        Ok(self)
    }

    pub(super) fn u64(self, attr: Attr, value: u64) -> Result<Self> {
        self.bytes(attr, &value.to_le_bytes())
    }

    pub(super) fn u32(self, attr: Attr, value: u32) -> Result<Self> {
        self.bytes(attr, &value.to_le_bytes())
    }

    pub(super) fn time(self, attr: Attr, value: &Timespec) -> Result<Self> {
        self.bytes(attr, value.as_bytes())
    }

    /// Finishes a command whose attributes are complete.
    pub(super) fn end(self) -> Result {
        let start = self.stream.len;
        let command = self.stream.buf.get_mut(start..self.at).ok_or(EOVERFLOW)?;
        set_length(command, command.len())?;
        set_crc(command, crc32c(0, command))?;
        self.stream.finished(self.at)
    }

    /// Finishes a command by its file data. `sums` are the checksums of whole sectors from the
    /// start of `data` on, as far as they are known; they must be right.
    pub(super) fn data(mut self, data: &[u8], sums: &[Option<Checksum>]) -> Result {
        let kind = (Attr::Data as u16).to_le_bytes();
        if self.stream.version == Version::V1 {
            let len = u16::try_from(data.len()).map_err(|_| EOVERFLOW)?;
            let (a, b) = (kind, len.to_le_bytes());
            self.claim(4)?.copy_from_slice(&[a[0], a[1], b[0], b[1]]);
        } else {
            // The data goes on to the end of the command, whose length says where that is.
            self.claim(2)?.copy_from_slice(&kind);
        }
        let start = self.stream.len;
        let head_end = self.at;
        let end = head_end.checked_add(data.len()).ok_or(EOVERFLOW)?;
        if end > self.limit {
            return Err(EOVERFLOW);
        }
        let head = self.stream.buf.get_mut(start..head_end).ok_or(EOVERFLOW)?;
        let length = head.len().checked_add(data.len()).ok_or(EOVERFLOW)?;
        set_length(head, length)?;
        let crc = crc_of_data(crc32c(0, head), data, sums);
        set_crc(head, crc)?;
        if data.len() < DIRECT {
            self.claim(data.len())?.copy_from_slice(data);
            return self.stream.finished(end);
        }
        if signal_pending() {
            return Err(EINTR);
        }
        let pending = self.stream.buf.get(..head_end).ok_or(EOVERFLOW)?;
        self.stream.session.leave();
        self.stream.sink.write_both(pending, data)?;
        self.stream.len = 0;
        Ok(())
    }
}

/// Sets the length in a command's head, given the bytes of the command with its head.
fn set_length(command: &mut [u8], with_head: usize) -> Result {
    let len = with_head
        .checked_sub(COMMAND_HEAD)
        .and_then(|len| u32::try_from(len).ok())
        .ok_or(EOVERFLOW)?;
    let field = command.get_mut(0..4).ok_or(EOVERFLOW)?;
    field.copy_from_slice(&len.to_le_bytes());
    Ok(())
}

fn set_crc(command: &mut [u8], crc: u32) -> Result {
    let field = command.get_mut(6..COMMAND_HEAD).ok_or(EOVERFLOW)?;
    field.copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// Moves `crc` on by `data`, from the sectors' checksums where they are known.
fn crc_of_data(mut crc: u32, data: &[u8], sums: &[Option<Checksum>]) -> u32 {
    if sums.is_empty() {
        return crc32c(crc, data);
    }
    let mut sums = sums.iter();
    for sector in data.chunks(SECTOR) {
        let known = sums.next().copied().flatten();
        crc = match known.and_then(|sum| sum.crc32c()) {
            Some(sum) if sector.len() == SECTOR => append_sector(crc, sum),
            _ => crc32c(crc, sector),
        };
    }
    crc
}
