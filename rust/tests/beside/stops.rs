// SPDX-License-Identifier: GPL-2.0
//! Sends that are stopped at a step, for something else to happen there.

use crate::contents::touch;
use crate::files::{now, ROOT};
use crate::support::*;
use kernel::prelude::*;
use kernel::sync::Arc;
use rbtrfs_engine::device::{BlockDevice, ReadIo, WriteIo};
use rbtrfs_engine::format::tree_id;
use rbtrfs_engine::send::{self, SendArgs, Sink};
use rbtrfs_engine::subvol::subvolume::{self, NewSnapshot};
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::recorded::{self, Stream};
use rbtrfs_testdev::MemDevice;
use std::cell::Cell;
use std::sync::{Condvar, Mutex};
use std::vec::Vec;

/// What happens at a step.
type Event = std::boxed::Box<dyn FnMut(&Fs) + std::marker::Send>;

/// Counts steps, and does something at one of them.
#[derive(Default)]
pub struct Stops {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The volume, while a send runs.
    fs: Option<Fs>,
    step: usize,
    at: usize,
    event: Option<Event>,
}

impl Stops {
    /// One step: a read or a write of the send.
    fn step(&self) {
        let mut inner = self.inner.lock().unwrap();
        let Some(fs) = inner.fs.clone() else {
            return;
        };
        inner.step += 1;
        if inner.step != inner.at {
            return;
        }
        let event = inner.event.take();
        // What the event itself reads are no steps.
        inner.fs = None;
        drop(inner);
        if let Some(mut event) = event {
            event(&fs);
        }
        self.inner.lock().unwrap().fs = Some(fs);
    }
}

std::thread_local! {
    /// The number of the send that this thread runs in turns.
    static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// What a send does that runs in turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Running,
    Waiting,
    Ended,
}

/// Who has the turn.
#[derive(Default)]
pub struct Turns {
    sends: Mutex<Vec<Turn>>,
    changed: Condvar,
}

impl Turns {
    /// Waits until no send runs. Returns those that wait for a turn; nothing if all have ended.
    pub fn waiting(&self) -> Option<Vec<usize>> {
        let sends = self.sends.lock().unwrap();
        let is_running = |sends: &mut Vec<Turn>| sends.contains(&Turn::Running);
        let sends = self.changed.wait_while(sends, is_running).unwrap();
        let numbers = 0..sends.len();
        let waiting: Vec<_> = numbers.filter(|n| sends[*n] == Turn::Waiting).collect();
        (!waiting.is_empty()).then_some(waiting)
    }

    /// Lets all sends run to their ends once the value is dropped, even by a panic.
    pub fn scheduled(&self) -> Scheduled<'_> {
        Scheduled(self)
    }

    /// Lets a send run up to its next step.
    pub fn give(&self, number: usize) {
        self.sends.lock().unwrap()[number] = Turn::Running;
        self.changed.notify_all();
    }

    /// Waits for a turn, in the thread of a send.
    fn step(&self) {
        let Some(number) = NUMBER.get() else {
            return;
        };
        let mut sends = self.sends.lock().unwrap();
        sends[number] = Turn::Waiting;
        self.changed.notify_all();
        let waits = |sends: &mut Vec<Turn>| sends[number] == Turn::Waiting;
        drop(self.changed.wait_while(sends, waits).unwrap());
    }
}

/// See [`Turns::scheduled`].
pub struct Scheduled<'t>(&'t Turns);

impl Drop for Scheduled<'_> {
    fn drop(&mut self) {
        while let Some(waiting) = self.0.waiting() {
            for number in waiting {
                self.0.give(number);
            }
        }
    }
}

/// Ends the turns of a send, even where it panics.
struct End<'t>(&'t Turns, usize);

impl Drop for End<'_> {
    fn drop(&mut self) {
        NUMBER.set(None);
        self.0.sends.lock().unwrap()[self.1] = Turn::Ended;
        self.0.changed.notify_all();
    }
}

/// A device on which each read of a send is a step.
pub struct Stopping {
    device: MemDevice,
    stops: Arc<Stops>,
    turns: Arc<Turns>,
}

impl Stopping {
    fn step(&self) {
        self.stops.step();
        self.turns.step();
    }
}

impl BlockDevice for Stopping {
    fn size(&self) -> u64 {
        self.device.size()
    }

    fn name(&self) -> &str {
        self.device.name()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result {
        self.step();
        self.device.read(offset, buf)
    }

    fn read_many(&self, ios: &mut [ReadIo<'_>]) -> Result {
        self.step();
        self.device.read_many(ios)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result {
        self.device.write(offset, buf)
    }

    fn write_many(&self, ios: &[WriteIo<'_>]) -> Result {
        self.device.write_many(ios)
    }

    fn write_fua(&self, offset: u64, buf: &[u8]) -> Result {
        self.device.write_fua(offset, buf)
    }

    fn flush(&self) -> Result {
        self.device.flush()
    }

    fn discard(&self, offset: u64, len: u64) -> Result {
        self.device.discard(offset, len)
    }
}

/// Keeps the stream; each write is a step, at which nothing may be pinned.
struct Pipe<'v> {
    volume: &'v Volume,
    bytes: Vec<u8>,
}

impl Sink for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result {
        if NUMBER.get().is_none() {
            let oldest = self.volume.fs.epochs.oldest();
            assert_eq!(oldest, None, "a commit is held");
        }
        self.volume.device.step();
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// A recorded volume that can be written to, and whose cache keeps nothing for long.
pub struct Volume {
    pub device: Arc<Stopping>,
    pub fs: Arc<Fs>,
    stops: Arc<Stops>,
}

impl Volume {
    pub fn of(image: MemDevice) -> Self {
        let stops = share_any(Stops::default());
        let device = share(Stopping {
            device: image,
            stops: stops.clone(),
            turns: share_any(Turns::default()),
        });
        let options = OpenOptions {
            cache_bytes: 256 << 10,
            ..OpenOptions::default()
        };
        let fs = Fs::open(device.clone(), &options).unwrap();
        Volume { device, fs, stops }
    }

    pub fn recorded(name: &str) -> Self {
        Self::of(recorded::volume(name))
    }

    pub fn image(&self) -> MemDevice {
        self.device.device.clone()
    }

    /// Sends, with `event` at step `at`, counted from 1. Returns the stream and the number of
    /// steps.
    pub fn send(
        &self,
        args: &SendArgs<'_>,
        at: usize,
        event: impl FnMut(&Fs) + std::marker::Send + 'static,
    ) -> Result<(Vec<u8>, usize)> {
        {
            let mut inner = self.stops.inner.lock().unwrap();
            *inner = Inner {
                fs: Some((*self.fs).clone()),
                step: 0,
                at,
                event: Some(std::boxed::Box::new(event)),
            };
        }
        let mut pipe = Pipe {
            volume: self,
            bytes: vec![],
        };
        let reader = self.fs.reader()?;
        let sent = send::run(reader, args, &mut pipe);
        let mut inner = self.stops.inner.lock().unwrap();
        inner.fs = None;
        inner.event = None;
        sent.map(|()| (pipe.bytes, inner.step))
    }

    /// The turns of this many sends.
    pub fn turns(&self, sends: usize) -> &Turns {
        let turns = &self.device.turns;
        *turns.sends.lock().unwrap() = vec![Turn::Running; sends];
        turns
    }

    /// Sends in turns, as one of many, in a thread of its own.
    pub fn send_in_turns(&self, args: &SendArgs<'_>, number: usize) -> Result<Vec<u8>> {
        NUMBER.set(Some(number));
        let _end = End(&self.device.turns, number);
        self.device.turns.step();
        let mut pipe = Pipe {
            volume: self,
            bytes: vec![],
        };
        send::run(self.fs.reader()?, args, &mut pipe)?;
        Ok(pipe.bytes)
    }

    /// Sends with nothing beside it, and without a cache.
    pub fn send_alone(&self, args: &SendArgs<'_>) -> (Vec<u8>, usize) {
        self.fs.cache.shrink(0);
        self.send(args, 0, |_| ()).unwrap()
    }
}

fn share_any<T>(value: T) -> Arc<T> {
    Arc::new(value, GFP_KERNEL).unwrap()
}

/// A read-only snapshot of a subvolume that then parts from it altogether, so that nothing else has
/// its blocks.
pub fn snapshot_alone(fs: &Fs) -> u64 {
    let new = NewSnapshot {
        uuid: [7; 16],
        read_only: true,
        now: now(),
    };
    let made = subvolume::snapshot(fs, ROOT.tree, ROOT, b"sent", &new).unwrap();
    fs.commit().unwrap();
    touch(fs, tree_id::FS, 1);
    made.tree
}

/// Whether a stream is the recorded one.
pub fn is_recorded(stream: &[u8], wanted: &Stream) -> bool {
    stream.len() == wanted.size && recorded::hash(stream) == wanted.hash
}
