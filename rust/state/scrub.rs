// SPDX-License-Identifier: GPL-2.0
//! The scrub that runs: there is one at a time, others see what it has counted, and may ask it to
//! end. It excludes neither sends nor relocations.

use kernel::prelude::*;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::flags::FsFlags;
use super::State;

/// What a scrub has counted: `struct btrfs_scrub_progress`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ScrubProgress {
    /// Extents of file data, each once for every 64 KiB of a copy that it has a part of.
    pub data_extents_scrubbed: u64,
    /// Tree blocks, counted likewise.
    pub tree_extents_scrubbed: u64,
    /// Bytes of file data.
    pub data_bytes_scrubbed: u64,
    /// Bytes of tree blocks.
    pub tree_bytes_scrubbed: u64,
    /// Sectors that the device could not read.
    pub read_errors: u64,
    /// Sectors of file data that do not match their checksum.
    pub csum_errors: u64,
    /// Sectors of tree blocks that are not what the extent tree says, or are out of order.
    pub verify_errors: u64,
    /// Sectors of file data that have no checksum.
    pub no_csum: u64,
    /// Not counted by any driver.
    pub csum_discards: u64,
    /// Copies of the superblock that are bad.
    pub super_errors: u64,
    /// Allocations that failed, which ends the scrub.
    pub malloc_errors: u64,
    /// Sectors of which there is no good copy, or whose bad copy could not be written over.
    pub uncorrectable_errors: u64,
    /// Bad sectors of which there is a good copy. It was written over them, unless the scrub only
    /// reads.
    pub corrected_errors: u64,
    /// Where on the device the scrub has come to, in bytes: it can be resumed from there.
    pub last_physical: u64,
    /// Not counted by any driver.
    pub unverified_errors: u64,
}

/// The scrub that runs.
pub(super) struct RunningScrub {
    id: u64,
    progress: ScrubProgress,
    canceled: bool,
}

impl State {
    /// Begins a scrub at the physical address `start`; the token's drop ends it.
    ///
    /// # Errors
    ///
    /// `EINPROGRESS` while another one runs, `EAGAIN` while the volume is being unmounted.
    pub fn begin_scrub(&self, start: u64) -> Result<ScrubToken<'_>> {
        let mut inner = self.inner.lock();
        if inner.flags.has(FsFlags::CLOSING) {
            return Err(EAGAIN);
        }
        if inner.scrub.is_some() {
            return Err(EINPROGRESS);
        }
        let id = inner.next_scrub;
        inner.next_scrub = id.wrapping_add(1);
        let progress = ScrubProgress {
            last_physical: start,
            ..ScrubProgress::default()
        };
        inner.scrub = Some(RunningScrub {
            id,
            progress,
            canceled: false,
        });
        Ok(ScrubToken { state: self })
    }

    /// Asks the scrub that runs to end, and returns when it has.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` if none runs; `EINTR` on a signal, where the request stays.
    pub fn cancel_scrub(&self) -> Result {
        let mut inner = self.inner.lock();
        let scrub = inner.scrub.as_mut().ok_or(ENOTCONN)?;
        scrub.canceled = true;
        let id = scrub.id;
        while inner.scrub.as_ref().is_some_and(|scrub| scrub.id == id) {
            if self.changed.wait_interruptible(&mut inner) {
                return Err(EINTR);
            }
        }
        Ok(())
    }

    /// What the scrub that runs has counted.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` if none runs.
    pub fn scrub_progress(&self) -> Result<ScrubProgress> {
        let inner = self.inner.lock();
        inner
            .scrub
            .as_ref()
            .map(|scrub| scrub.progress)
            .ok_or(ENOTCONN)
    }
}

/// The right to be the one scrub of the volume.
#[must_use = "the scrub is over when its token is dropped"]
pub struct ScrubToken<'a> {
    state: &'a State,
}

impl ScrubToken<'_> {
    /// Shows others what was counted.
    pub fn publish(&self, progress: &ScrubProgress) {
        if let Some(scrub) = &mut self.state.inner.lock().scrub {
            scrub.progress = *progress;
        }
    }

    /// Whether somebody asked the scrub to end.
    pub fn is_canceled(&self) -> bool {
        let inner = self.state.inner.lock();
        inner.scrub.as_ref().is_some_and(|scrub| scrub.canceled)
    }
}

impl Drop for ScrubToken<'_> {
    fn drop(&mut self) {
        let mut inner = self.state.inner.lock();
        inner.scrub = None;
        self.state.changed.notify_all();
    }
}
