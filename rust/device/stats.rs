// SPDX-License-Identifier: GPL-2.0
//! How often the device failed: counters, and a device that keeps them.
//!
//! They are kept on disk, too (`volume/dev_stats.rs`), so that a user sees what happened before a
//! reboot.

use super::barrier::Barrier;
use super::{BlockDevice, ReadIo, WriteIo};
use crate::platform::uptime_ms;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;

/// What is counted, in the order in which it is stored and told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Stat {
    /// A write failed.
    Write,
    /// A read failed.
    Read,
    /// A flush failed.
    Flush,
    /// Data did not match its checksum.
    Corruption,
    /// A block was of another transaction than what refers to it; only scrub counts these.
    Generation,
}

/// How many counters there are.
pub const STATS: usize = 5;

/// At most one message in this time, in milliseconds.
const QUIET: u64 = 1000;

/// The counters of one device.
pub struct DeviceStats {
    counts: [Atomic<u64>; STATS],
    /// They are not as on disk.
    changed: Atomic<u32>,
    /// When the last message was printed.
    printed: Atomic<u64>,
}

impl DeviceStats {
    /// All zero, as for a volume on which nothing was ever stored.
    pub const fn new() -> Self {
        Self {
            counts: [const { Atomic::new(0) }; STATS],
            changed: Atomic::new(0),
            printed: Atomic::new(0),
        }
    }

    /// What they are now.
    pub fn get(&self) -> [u64; STATS] {
        let mut counts = [0; STATS];
        for (to, from) in counts.iter_mut().zip(&self.counts) {
            *to = from.load(Relaxed);
        }
        counts
    }

    /// Sets them to what is on disk, before anybody else uses them. What was counted before is
    /// added.
    pub fn load(&self, stored: &[u64; STATS]) {
        for (count, stored) in self.counts.iter().zip(stored) {
            count.add(*stored, Relaxed);
        }
    }

    /// Sets them all to zero, and returns what they were.
    pub fn reset(&self) -> [u64; STATS] {
        let mut counts = [0; STATS];
        for (to, from) in counts.iter_mut().zip(&self.counts) {
            *to = from.xchg(0, Relaxed);
        }
        self.changed.store(1, Relaxed);
        counts
    }

    /// Counts one more, with a line in the log.
    pub fn count(&self, stat: Stat, device: &dyn BlockDevice) {
        if let Some(count) = self.counts.get(stat as usize) {
            count.add(1, Relaxed);
        }
        self.changed.store(1, Relaxed);
        let (now, last) = (uptime_ms().max(1), self.printed.load(Relaxed));
        if (last == 0 || now.saturating_sub(last) >= QUIET)
            && self.printed.cmpxchg(last, now, Relaxed).is_ok()
        {
            crate::fs_err!(device, "{}", self.text(device.name()));
        }
    }

    /// Whether a commit has to store them; asking answers for a change once.
    pub fn take_changed(&self) -> bool {
        self.changed.xchg(0, Relaxed) != 0
    }

    /// The line for the log.
    pub fn text<'a>(&self, name: &'a str) -> StatsText<'a> {
        StatsText {
            name,
            counts: self.get(),
        }
    }
}

impl Default for DeviceStats {
    fn default() -> Self {
        Self::new()
    }
}

/// Counters as they are shown in the log.
pub struct StatsText<'a> {
    name: &'a str,
    counts: [u64; STATS],
}

impl core::fmt::Display for StatsText<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [write, read, flush, corruption, generation] = self.counts;
        write!(
            f,
            "bdev /dev/{} errs: wr {write}, rd {read}, flush {flush}, corrupt {corruption}, gen {generation}",
            self.name
        )
    }
}

/// A device whose failures are counted, and whose cache is flushed only while its barrier is on.
pub struct CountedDevice {
    inner: Arc<dyn BlockDevice>,
    stats: Arc<DeviceStats>,
    barrier: Arc<Barrier>,
}

impl CountedDevice {
    /// Counts the failures of `inner` in `stats`.
    pub fn new(
        inner: Arc<dyn BlockDevice>,
        stats: Arc<DeviceStats>,
        barrier: Arc<Barrier>,
    ) -> Self {
        Self {
            inner,
            stats,
            barrier,
        }
    }

    /// Passes a result on. Requests that make no sense, and want of memory, are not the device's
    /// fault.
    fn note(&self, stat: Stat, result: Result) -> Result {
        if let Err(e) = result {
            if e == EIO || e == ENODATA || e == EREMOTEIO || e == EILSEQ {
                self.stats.count(stat, &*self.inner);
            }
        }
        result
    }
}

impl BlockDevice for CountedDevice {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result {
        self.note(Stat::Read, self.inner.read(offset, buf))
    }

    fn read_many(&self, ios: &mut [ReadIo<'_>]) -> Result {
        let all = self.inner.read_many(ios);
        if all.is_err() {
            for io in ios.iter() {
                let _ = self.note(Stat::Read, io.result);
            }
        }
        all
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result {
        self.note(Stat::Write, self.inner.write(offset, buf))
    }

    fn write_many(&self, ios: &[WriteIo<'_>]) -> Result {
        self.note(Stat::Write, self.inner.write_many(ios))
    }

    fn write_many_while(&self, ios: &[WriteIo<'_>], meanwhile: &mut dyn FnMut()) -> Result {
        self.note(Stat::Write, self.inner.write_many_while(ios, meanwhile))
    }

    fn write_fua(&self, offset: u64, buf: &[u8]) -> Result {
        if !self.barrier.is_on() {
            return self.write(offset, buf);
        }
        self.note(Stat::Write, self.inner.write_fua(offset, buf))
    }

    fn flush(&self) -> Result {
        if !self.barrier.is_on() {
            return Ok(());
        }
        self.note(Stat::Flush, self.inner.flush())
    }

    fn discard_granularity(&self) -> Option<u64> {
        self.inner.discard_granularity()
    }

    fn discard(&self, offset: u64, len: u64) -> Result {
        self.inner.discard(offset, len)
    }
}
