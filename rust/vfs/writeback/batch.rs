// SPDX-License-Identifier: GPL-2.0
//! Dirty data that is written together.

use super::super::inode::Inode;
use crate::bindings;
use core::ops::Range;
use kernel::prelude::*;

/// The longest run, in bytes. A batch takes no more runs when it has as much.
const BYTES: u64 = 4 << 20;

/// The most runs in a batch.
const RUNS: usize = 1024;

/// A piece of a folio that is under writeback.
pub(super) struct Part {
    pub(super) folio: *mut bindings::folio,
    pub(super) offset: usize,
    pub(super) len: usize,
}

impl Part {
    fn bytes(&self) -> &[u8] {
        // SAFETY: The folio is under writeback until `ended`, so that it stays in memory, and as
        // the mapping wants stable writes nobody changes it. The mapping takes no high memory, so
        // that a folio is contiguous in the kernel's address space. `writeback_range` made the part
        // of a range within the folio.
        unsafe {
            let data: *const u8 = bindings::rbtrfs_folio_address(self.folio).cast();
            core::slice::from_raw_parts(data.add(self.offset), self.len)
        }
    }
}

/// Dirty blocks that follow each other in the file.
pub(super) struct Run {
    /// Where it begins in the file, in bytes.
    pub(super) start: u64,
    len: u64,
    /// Which of the batch's parts are its own.
    parts: Range<usize>,
    /// What came of it.
    result: Result,
}

impl Run {
    /// Where it ends in the file.
    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// Runs that are written together. They are known by their number.
pub(super) struct Batch {
    parts: KVVec<Part>,
    runs: KVVec<Run>,
    bytes: u64,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            parts: KVVec::new(),
            runs: KVVec::new(),
            bytes: 0,
        }
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    fn run(&self, run: usize) -> Result<&Run> {
        self.runs.get(run).ok_or(EINVAL)
    }

    /// Whether the last run goes on at `pos` in the file.
    fn goes_on(&self, pos: u64) -> bool {
        let last = self.runs.last();
        last.is_some_and(|last| last.end() == pos && last.len < BYTES)
    }

    /// Whether blocks at `pos` in the file can be added.
    pub(super) fn takes(&self, pos: u64) -> bool {
        self.goes_on(pos) || self.bytes < BYTES && self.runs.len() < RUNS
    }

    /// Adds blocks at `pos` in the file.
    pub(super) fn push(&mut self, pos: u64, part: Part) -> Result {
        let (first, len) = (self.parts.len(), part.len as u64);
        self.parts.reserve(1, GFP_KERNEL)?;
        if !self.goes_on(pos) {
            let new = Run {
                start: pos,
                len: 0,
                parts: first..first,
                result: Ok(()),
            };
            self.runs.push(new, GFP_KERNEL)?;
        }
        self.parts.push(part, GFP_KERNEL)?;
        if let Some(last) = self.runs.last_mut() {
            last.len = last.len.saturating_add(len);
            last.parts.end = self.parts.len();
        }
        self.bytes = self.bytes.saturating_add(len);
        Ok(())
    }

    /// The bytes, if these are a single part at the start of the file.
    pub(super) fn first_and_only(&self) -> Option<&[u8]> {
        let starts = self.runs.first().is_some_and(|run| run.start == 0);
        let only = self.parts.first().filter(|_| self.parts.len() == 1);
        only.filter(|_| starts).map(Part::bytes)
    }

    /// Calls `each` with the bytes of a run between two offsets of the file, piece by piece, and
    /// where in the file each begins.
    pub(super) fn for_each<'a>(
        &'a self,
        run: usize,
        (from, to): (u64, u64),
        each: &mut dyn FnMut(u64, &'a [u8]) -> Result,
    ) -> Result {
        let run = self.run(run)?;
        let mut at = run.start;
        for part in self.parts.get(run.parts.clone()).ok_or(EINVAL)? {
            let (start, bytes) = (at, part.bytes());
            at = at.saturating_add(bytes.len() as u64);
            let (first, last) = (start.max(from), at.min(to));
            if first < last {
                let range =
                    first.saturating_sub(start) as usize..last.saturating_sub(start) as usize;
                each(first, bytes.get(range).ok_or(EINVAL)?)?;
            }
        }
        Ok(())
    }

    /// Notes that a run failed; the first error counts.
    pub(super) fn fail(&mut self, run: usize, error: Error) {
        if let Some(run) = self.runs.get_mut(run) {
            run.result = run.result.and(Err(error));
        }
    }

    /// Notes that all runs failed.
    pub(super) fn fail_all(&mut self, error: Error) {
        for run in 0..self.runs.len() {
            self.fail(run, error);
        }
    }

    pub(super) fn has_failed(&self, run: usize) -> bool {
        self.run(run).is_ok_and(|run| run.result.is_err())
    }

    /// Ends the writeback of the folios. The file has the errors of all runs; the first is
    /// answered, too.
    pub(super) fn ended(self, inode: &Inode) -> Result {
        let mut all = Ok(());
        for run in self.runs.iter() {
            // On a volume that was shut down, whatever fails does so for that reason.
            let result = run
                .result
                .or_else(|e| inode.fs().check_shut_down().and(Err(e)));
            if let Err(e) = result {
                // SAFETY: The inode is valid.
                unsafe { bindings::rbtrfs_mapping_set_error(inode.as_ptr(), e.to_errno()) };
            }
            all = all.and(result);
        }
        for part in self.parts.iter() {
            // SAFETY: The folio is under writeback because of this part, among others.
            unsafe { bindings::iomap_finish_folio_write(inode.as_ptr(), part.folio, part.len) };
        }
        all
    }
}
