// SPDX-License-Identifier: GPL-2.0
//! A device that remembers, for power cuts at every point.

use crate::MemDevice;
use kernel::error::Result;
use rbtrfs_engine::device::BlockDevice;
use std::sync::Mutex;

/// What was done to the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes were written.
    Write {
        /// Where, in bytes.
        offset: u64,
        /// What.
        data: Vec<u8>,
        /// They were durable when the write ended.
        fua: bool,
    },
    /// All writes before are durable.
    Flush,
    /// A range was given up.
    Discard {
        /// Where it starts, in bytes.
        offset: u64,
        /// Its length in bytes.
        len: u64,
    },
}

/// Works as the image it starts from, and records every change.
pub struct RecordingDevice {
    start: MemDevice,
    now: MemDevice,
    events: Mutex<Vec<Event>>,
}

impl RecordingDevice {
    /// Starts from an image.
    pub fn new(start: MemDevice) -> Self {
        Self {
            now: start.clone(),
            start,
            events: Mutex::default(),
        }
    }

    /// What was done so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    /// The image as it is now.
    pub fn image(&self) -> MemDevice {
        self.now.clone()
    }

    /// The image that a power cut after the first `n` events leaves, if the device lost all that
    /// was not durable.
    pub fn cut(&self, n: usize) -> MemDevice {
        self.cut_with(n, |_| false)
    }

    /// The image that a power cut after the first `n` events leaves. Of the writes that were not
    /// durable, those survive for whose index `survives` holds: devices write their caches back in
    /// any order.
    pub fn cut_with(&self, n: usize, mut survives: impl FnMut(usize) -> bool) -> MemDevice {
        let image = self.start.clone();
        let events = self.events.lock().unwrap();
        let events = &events[..n];
        let flushed = events.iter().rposition(|e| *e == Event::Flush).unwrap_or(0);
        for (index, event) in events.iter().enumerate() {
            match event {
                Event::Write { offset, data, fua } => {
                    if *fua || index < flushed || survives(index) {
                        image.copy_in(*offset, data);
                    }
                }
                Event::Discard { offset, len } => {
                    // What was discarded may be gone at once or stay; that it is gone is the harder
                    // case.
                    image.discard(*offset, *len).unwrap();
                }
                Event::Flush => {}
            }
        }
        image
    }

    fn record(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

impl BlockDevice for RecordingDevice {
    fn name(&self) -> &str {
        self.now.name()
    }

    fn size(&self) -> u64 {
        self.now.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result {
        self.now.read(offset, buf)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result {
        self.now.write(offset, buf)?;
        self.record(Event::Write {
            offset,
            data: buf.to_vec(),
            fua: false,
        });
        Ok(())
    }

    fn write_fua(&self, offset: u64, buf: &[u8]) -> Result {
        self.now.write(offset, buf)?;
        self.record(Event::Write {
            offset,
            data: buf.to_vec(),
            fua: true,
        });
        Ok(())
    }

    fn flush(&self) -> Result {
        self.record(Event::Flush);
        Ok(())
    }

    fn discard_granularity(&self) -> Option<u64> {
        self.now.discard_granularity()
    }

    fn discard(&self, offset: u64, len: u64) -> Result {
        self.now.discard(offset, len)?;
        self.record(Event::Discard { offset, len });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_byte(image: &MemDevice, offset: u64) -> u8 {
        let mut byte = [0];
        image.copy_out(offset, &mut byte);
        byte[0]
    }

    #[test]
    fn only_what_was_flushed_survives() {
        let device = RecordingDevice::new(MemDevice::new(1 << 20));
        device.write(0, &[1; 512]).unwrap();
        device.flush().unwrap();
        device.write(0, &[2; 512]).unwrap();
        device.write_fua(4096, &[3; 512]).unwrap();
        assert_eq!(device.events().len(), 4);
        assert_eq!(first_byte(&device.cut(1), 0), 0);
        assert_eq!(first_byte(&device.cut(2), 0), 1);
        let cut = device.cut(4);
        assert_eq!((first_byte(&cut, 0), first_byte(&cut, 4096)), (1, 3));
        assert_eq!(first_byte(&device.cut_with(3, |n| n == 2), 0), 2);
        assert_eq!(first_byte(&device.image(), 0), 2);
    }
}
