// SPDX-License-Identifier: GPL-2.0
//! Operations while a commit is written: they go into the next one, see what the sealed one has,
//! and a power cut or a failing device leaves either the one or the other.

use crate::cuts::assert_every_cut;
use crate::files::*;
use crate::model::Model;
use crate::support::proved::Proved;
use crate::support::*;
use kernel::prelude::*;
use kernel::sync::Arc;
use rbtrfs_engine::device::{BlockDevice, ReadIo};
use rbtrfs_engine::format::tree_id;
use rbtrfs_engine::subvol::write::InodeId;
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::{MemDevice, RecordingDevice};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::vec::Vec;

type Hook = Box<dyn FnMut() + Send>;

/// When something else is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the next write: of a commit, nothing is on the device yet.
    Write,
    /// Before the next flush: all of its blocks are there, and nothing refers to them.
    Flush,
}

/// Does something of its own before it does what it is told.
struct Meanwhile<D> {
    inner: Arc<D>,
    hook: Mutex<Option<(At, Hook)>>,
    /// The flush fails.
    fails: AtomicBool,
}

impl<D: BlockDevice> Meanwhile<D> {
    fn new(inner: Arc<D>) -> Self {
        Self {
            inner,
            hook: Mutex::new(None),
            fails: AtomicBool::new(false),
        }
    }

    /// Has `hook` called once.
    fn arm(&self, at: At, hook: impl FnMut() + Send + 'static) {
        *self.hook.lock().unwrap() = Some((at, Box::new(hook)));
    }

    fn reached(&self, at: At) {
        // Not under the lock: what runs meanwhile may come here itself.
        let hook = self.hook.lock().unwrap().take_if(|(when, _)| *when == at);
        if let Some((_, mut hook)) = hook {
            hook();
        }
    }
}

impl<D: BlockDevice> BlockDevice for Meanwhile<D> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result {
        self.inner.read(offset, buf)
    }

    fn read_many(&self, ios: &mut [ReadIo<'_>]) -> Result {
        self.inner.read_many(ios)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result {
        self.reached(At::Write);
        self.inner.write(offset, buf)
    }

    fn write_fua(&self, offset: u64, buf: &[u8]) -> Result {
        self.inner.write_fua(offset, buf)
    }

    fn flush(&self) -> Result {
        self.reached(At::Flush);
        if self.fails.load(Ordering::Relaxed) {
            return Err(EIO);
        }
        self.inner.flush()
    }

    fn discard(&self, offset: u64, len: u64) -> Result {
        self.inner.discard(offset, len)
    }
}

/// Runs `work` in a thread of its own, for as long as it takes or until it waits for something;
/// some steps commit, and wait for the commit that waits here.
fn aside(work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        work();
        let _ = tell.send(());
    });
    let _ = told.recv_timeout(Duration::from_millis(500));
    thread
}

fn small(name: &str) -> MemDevice {
    make_mem(&Scratch::new(name), &["-n", "4096", "-m", "single"])
}

const TOP: InodeId = InodeId {
    tree: tree_id::FS,
    ino: 256,
};

#[test]
fn a_power_cut_leaves_a_commit_without_what_came_meanwhile() {
    let start = small("overlap-cut");
    let proved = Proved::new("overlap-cut", &start).with_orphans();
    let recording = share(RecordingDevice::new(start));
    let device = share(Meanwhile::new(recording.clone()));
    let fs = open(&device).unwrap();
    let model = std::sync::Arc::new(Mutex::new(Model::new(&fs, 5)));
    let mut commits = BTreeMap::from([(fs.generation(), (0, model.lock().unwrap().clone()))]);
    let overlapped = std::sync::Arc::new(Mutex::new(0));
    for round in 0..24 {
        for _ in 0..4 {
            model.lock().unwrap().step(&fs).unwrap();
        }
        let committed = model.lock().unwrap().clone();
        let running = std::sync::Arc::new(Mutex::new(Vec::new()));
        let hook = {
            let (fs, model) = (fs.clone(), model.clone());
            let (running, overlapped) = (running.clone(), overlapped.clone());
            move || {
                let (fs, model, overlapped) = (fs.clone(), model.clone(), overlapped.clone());
                let before = fs.generation();
                let thread = aside(move || {
                    for _ in 0..3 {
                        model.lock().unwrap().step(&fs).unwrap();
                        if fs.generation() == before {
                            *overlapped.lock().unwrap() += 1;
                        }
                    }
                });
                running.lock().unwrap().push(thread);
            }
        };
        let at = if round % 2 == 0 { At::Write } else { At::Flush };
        device.arm(at, hook);
        let before = fs.generation();
        fs.commit().unwrap();
        let events = recording.events().len() as u64;
        for thread in running.lock().unwrap().drain(..) {
            thread.join().unwrap();
        }
        // There may have been nothing to commit, and what came meanwhile may have been committed.
        let generation = fs.generation().min(before + 1);
        commits.entry(generation).or_insert((events, committed));
        model.lock().unwrap().assert_same(&fs);
    }
    let overlapped = *overlapped.lock().unwrap();
    assert!(overlapped > 40, "{overlapped} steps");
    drop(fs);
    println!("{overlapped} steps");
    assert_every_cut(&recording, &proved, &commits);
}

#[test]
fn what_runs_on_top_of_a_commit_that_fails_goes_with_it() {
    let start = small("overlap-fail");
    let device = share(Meanwhile::new(share(start)));
    let fs = open(&device).unwrap();
    file(&fs, TOP, "kept").unwrap();
    fs.commit().unwrap();
    let generation = fs.generation();
    file(&fs, TOP, "failed").unwrap();
    let waiting = std::sync::Arc::new(Mutex::new(None));
    let hook = {
        let (fs, device, waiting) = (fs.clone(), device.clone(), waiting.clone());
        move || {
            file(&fs, TOP, "on top").unwrap();
            let other = fs.clone();
            let thread = aside(move || {
                let told = other.commit_up_to(generation + 1);
                assert_eq!(told, Err(EIO), "who waits for it is told why");
            });
            *waiting.lock().unwrap() = Some(thread);
            assert!(lookup(&fs, TOP, "failed").unwrap().is_some());
            assert!(lookup(&fs, TOP, "on top").unwrap().is_some());
            device.fails.store(true, Ordering::Relaxed);
        }
    };
    device.arm(At::Write, hook);
    assert_eq!(fs.commit(), Err(EIO));
    let thread = waiting.lock().unwrap().take().unwrap();
    thread.join().unwrap();
    device.fails.store(false, Ordering::Relaxed);
    for name in ["failed", "on top"] {
        assert_eq!(lookup(&fs, TOP, name).unwrap(), None, "{name}");
    }
    assert!(lookup(&fs, TOP, "kept").unwrap().is_some());
    assert_eq!(file(&fs, TOP, "later").err(), Some(EROFS));
    assert_eq!(fs.commit(), Err(EROFS));
    assert_eq!(fs.generation(), generation);
    drop(fs);
    let fs = open(&device).unwrap();
    assert_eq!(fs.generation(), generation);
    assert!(lookup(&fs, TOP, "kept").unwrap().is_some());
}

#[test]
fn whoever_asks_for_what_is_sealed_waits_and_commits_nothing_more() {
    let start = small("overlap-wait");
    let device = share(Meanwhile::new(share(start)));
    let fs = open(&device).unwrap();
    file(&fs, TOP, "first").unwrap();
    let transid = fs.generation() + 1;
    let waiting = std::sync::Arc::new(Mutex::new(None));
    let hook = {
        let (fs, waiting) = (fs.clone(), waiting.clone());
        move || {
            file(&fs, TOP, "second").unwrap();
            let fs = fs.clone();
            let thread = aside(move || {
                fs.commit_up_to(transid).unwrap();
                assert_eq!(fs.generation(), transid);
            });
            assert!(!thread.is_finished(), "nothing is on disk yet");
            *waiting.lock().unwrap() = Some(thread);
        }
    };
    device.arm(At::Write, hook);
    fs.commit().unwrap();
    let thread = waiting.lock().unwrap().take().unwrap();
    thread.join().unwrap();
    assert_eq!(fs.generation(), transid, "the second file is not committed");
    assert_eq!(fs.commits.times().commits, 1);
    fs.commit().unwrap();
    assert_eq!(fs.generation(), transid + 1);
    let reader: &Fs = &fs;
    assert!(lookup(reader, TOP, "second").unwrap().is_some());
}

#[test]
fn syncs_at_once_lose_nothing() {
    const EACH: usize = 12;
    let scratch = Scratch::new("overlap-syncs");
    let image = share(make_mem(&scratch, &["-n", "4096", "-m", "single"]));
    let recording = share(RecordingDevice::new((*image).clone()));
    let fs = open(&recording).unwrap();
    thread::scope(|scope| {
        for number in 0..4 {
            let (fs, recording) = (&fs, &recording);
            scope.spawn(move || {
                for n in 0..EACH {
                    let name = format!("{number}-{n}");
                    let id = file(fs, TOP, &name).unwrap();
                    let transid = item(fs, id).unwrap().transid.get();
                    fs.commit_up_to(transid).unwrap();
                    if n % 4 == 3 {
                        let durable = recording.cut(recording.events().len());
                        let found = open(&share(durable)).unwrap();
                        assert!(lookup(&found, TOP, &name).unwrap().is_some(), "{name}");
                    }
                }
            });
        }
    });
    let commits = fs.commits.times().commits as usize;
    println!("{commits} commits for {} syncs", 4 * EACH);
    assert!(commits <= 4 * EACH);
    drop(fs);
    scratch.assert_clean(&recording.image());
}
