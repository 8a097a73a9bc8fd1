// SPDX-License-Identifier: GPL-2.0
//! A device that fails where a test wants it to.

use kernel::error::Result;
use kernel::prelude::EIO;
use kernel::sync::Arc;
use rbtrfs_engine::device::{BlockDevice, ReadIo};
use std::sync::Mutex;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reads.
    Read,
    /// Writes, those with FUA as well.
    Write,
    /// Flushes.
    Flush,
}

/// How many requests there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Writes, those with FUA as well.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// How often reads were waited for: those that were asked for at once are waited for once.
    pub waits: u64,
}

impl Counts {
    /// How many there were of one kind.
    pub fn of(&self, op: Op) -> u64 {
        match op {
            Op::Read => self.reads,
            Op::Write => self.writes,
            Op::Flush => self.flushes,
        }
    }
}

#[derive(Clone, Copy)]
enum Plan {
    None,
    /// The request of this number fails, and those after it if `all`.
    Fail {
        op: Op,
        n: u64,
        all: bool,
    },
    /// The write of this number gets only so many bytes to the device, and fails.
    Tear {
        n: u64,
        bytes: usize,
    },
}

struct State {
    plan: Plan,
    counts: Counts,
}

/// Passes requests on to another device, but fails the ones it is told to, with `EIO`. Requests
/// count from 0, since the last call that set a plan.
pub struct FaultDevice {
    inner: Arc<dyn BlockDevice>,
    state: Mutex<State>,
}

impl FaultDevice {
    /// A device without faults.
    pub fn new(inner: Arc<dyn BlockDevice>) -> Self {
        Self {
            inner,
            state: Mutex::new(State {
                plan: Plan::None,
                counts: Counts::default(),
            }),
        }
    }

    fn set(&self, plan: Plan) {
        *self.state.lock().unwrap() = State {
            plan,
            counts: Counts::default(),
        };
    }

    /// Fails the request of kind `op` after the next `n` ones; later ones succeed.
    pub fn fail_after(&self, op: Op, n: u64) {
        self.fail(op, n, false);
    }

    /// Fails the request of kind `op` after the next `n` ones, and those that come after it as well
    /// if `all`.
    pub fn fail(&self, op: Op, n: u64, all: bool) {
        self.set(Plan::Fail { op, n, all });
    }

    /// Tears the write after the next `n` ones: only its first `bytes` bytes arrive.
    pub fn tear_after(&self, n: u64, bytes: usize) {
        self.set(Plan::Tear { n, bytes });
    }

    /// Ends all faults and counts from zero.
    pub fn clear(&self) {
        self.set(Plan::None);
    }

    /// How many requests there were since the plan was set.
    pub fn counts(&self) -> Counts {
        self.state.lock().unwrap().counts
    }

    /// Counts a request. Returns how many of its `len` bytes arrive.
    fn count(&self, op: Op, len: usize) -> Result<usize, usize> {
        let mut state = self.state.lock().unwrap();
        let counts = &mut state.counts;
        let counter = match op {
            Op::Read => &mut counts.reads,
            Op::Write => &mut counts.writes,
            Op::Flush => &mut counts.flushes,
        };
        let this = *counter;
        *counter += 1;
        match state.plan {
            Plan::Fail { op: o, n, all } if o == op && (this == n || all && this > n) => Err(0),
            Plan::Tear { n, bytes } if op == Op::Write && this == n => Err(bytes.min(len)),
            _ => Ok(len),
        }
    }

    fn write_with(&self, offset: u64, buf: &[u8], fua: bool) -> Result {
        let (arrives, result) = match self.count(Op::Write, buf.len()) {
            Ok(len) => (len, Ok(())),
            Err(len) => (len, Err(EIO)),
        };
        let buf = &buf[..arrives - arrives % 512];
        if !buf.is_empty() {
            if fua {
                self.inner.write_fua(offset, buf)?;
            } else {
                self.inner.write(offset, buf)?;
            }
        }
        result
    }
}

impl BlockDevice for FaultDevice {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result {
        self.read_many(&mut [ReadIo::new(offset, buf)])
    }

    fn read_many(&self, ios: &mut [ReadIo<'_>]) -> Result {
        self.state.lock().unwrap().counts.waits += 1;
        let mut all = Ok(());
        for io in ios {
            io.result = match self.count(Op::Read, io.buf.len()) {
                Ok(_) => self.inner.read(io.offset, io.buf),
                Err(_) => Err(EIO),
            };
            all = all.and(io.result);
        }
        all
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result {
        self.write_with(offset, buf, false)
    }

    fn write_fua(&self, offset: u64, buf: &[u8]) -> Result {
        self.write_with(offset, buf, true)
    }

    fn flush(&self) -> Result {
        self.count(Op::Flush, 0).map_err(|_| EIO)?;
        self.inner.flush()
    }

    fn discard_granularity(&self) -> Option<u64> {
        self.inner.discard_granularity()
    }

    fn discard(&self, offset: u64, len: u64) -> Result {
        self.inner.discard(offset, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemDevice;
    use kernel::prelude::GFP_KERNEL;

    #[test]
    fn fails_and_tears_as_told() {
        let inner: Arc<dyn BlockDevice> = Arc::new(MemDevice::new(1 << 20), GFP_KERNEL).unwrap();
        let device = FaultDevice::new(inner);
        device.fail_after(Op::Write, 1);
        assert!(device.write(0, &[1; 512]).is_ok());
        assert_eq!(device.write(512, &[1; 512]), Err(EIO));
        assert!(device.write(512, &[2; 512]).is_ok());
        device.tear_after(0, 700);
        assert_eq!(device.write(4096, &[3; 1024]), Err(EIO));
        device.fail(Op::Flush, 1, true);
        assert!(device.flush().is_ok());
        assert!(device.flush().is_err() && device.flush().is_err());
        device.clear();
        let mut buf = [0; 1024];
        device.read(4096, &mut buf).unwrap();
        assert_eq!((buf[0], buf[511], buf[512]), (3, 3, 0));
        assert_eq!(device.counts().reads, 1);
    }
}
