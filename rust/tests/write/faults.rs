// SPDX-License-Identifier: GPL-2.0
//! Devices that fail, and lack of memory, at every single place: a step of the script fails for
//! itself alone, and can be taken again, or its transaction is aborted, and the volume is what the
//! last commit made it.

use crate::files::*;
use crate::script::*;
use crate::support::contents::packed;
use crate::support::every::every;
use crate::support::proved::Proved;
use crate::support::*;
use kernel::fault;
use kernel::prelude::*;
use rbtrfs_engine::format::CompressionMethod;
use rbtrfs_engine::subvol::write::{evict, unlink, InodeId};
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::{FaultDevice, MemDevice, Op};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::vec::Vec;

/// What a run makes of the volume, without a fault, and with one that costs a number: see
/// [`Run::skipping`].
struct Expected {
    start: MemDevice,
    run: Run,
    skipping: Mutex<BTreeMap<usize, Arc<Run>>>,
}

impl Expected {
    fn new(start: &MemDevice) -> Self {
        Expected {
            start: start.clone(),
            run: Run::of(start),
            skipping: Mutex::default(),
        }
    }

    fn skipping(&self, step: usize) -> Arc<Run> {
        let mut runs = self.skipping.lock().unwrap();
        let run = || Arc::new(Run::skipping(&self.start, Some(step)));
        runs.entry(step).or_insert_with(run).clone()
    }

    /// Asserts that a volume is what the script makes of it although the step `failed` was taken
    /// twice.
    #[track_caller]
    fn assert_last(&self, fs: &Fs, failed: Option<Step>) {
        let (found, last) = (contents(fs), self.run.last());
        let what = format!("{failed:?} again");
        match failed.map(|step| (step.number, step.kind)) {
            // The number may have been taken before the fault or after it.
            Some((number, StepKind::Numbered(_))) if found != *last => {
                let run = self.skipping(number);
                found.assert_is(run.last(), &what);
            }
            // Without a step that failed, pieces of data may have gone in by two operations instead
            // of one.
            Some((_, StepKind::Several)) | None => found.assert_is_alike(last, &what),
            _ => found.assert_is(last, &what),
        }
    }
}

/// Looks at the volume when a step failed, and takes it again if nothing else did.
struct Again<'a> {
    expected: &'a Expected,
    error: Error,
    /// The step that failed and left the volume writable.
    clean: Option<Step>,
    /// The generation that the last commit made.
    promised: u64,
    /// Called when a step has failed like that.
    repair: &'a dyn Fn(),
    /// Called before every step.
    prepare: &'a dyn Fn(&Fs),
}

impl Watch for Again<'_> {
    fn before(&mut self, fs: &Fs, _step: Step) {
        (self.prepare)(fs);
    }

    fn committed(&mut self, fs: &Fs) {
        self.promised = fs.generation();
    }

    fn again(&mut self, fs: &Fs, step: Step, error: Error) -> bool {
        assert_eq!(error, self.error, "{step:?}");
        if fs.is_read_only() {
            return false;
        }
        assert!(self.clean.is_none(), "one fault, one failure");
        self.clean = Some(step);
        (self.repair)();
        if step.kind != StepKind::Several {
            let (run, what) = (&self.expected.run, format!("{step:?} failed"));
            contents(fs).assert_is(&run.before[step.number], &what);
            assert_eq!(used(fs), run.used_before[step.number], "{what}");
        }
        true
    }
}

impl Again<'_> {
    /// Looks at the volume after the script, or what the fault left of it, and at what is on the
    /// device then.
    #[track_caller]
    fn judge<D: core::ops::Deref<Target = Fs>>(
        &self,
        fs: D,
        result: Result,
        log: &[String],
        image: &MemDevice,
        proved: &Proved,
    ) {
        let look = |fs: &Fs| match result {
            Ok(()) => self.expected.assert_last(fs, self.clean),
            Err(_) => self.expected.run.assert_committed(fs),
        };
        if let Err(error) = result {
            assert_eq!(error, self.error);
            assert_aborted(&fs, log);
        }
        look(&fs);
        drop(fs);
        let found = open(&share(image.clone())).unwrap().generation();
        assert!(found >= self.promised, "{found} after {}", self.promised);
        proved.assert_by(image, look);
    }
}

/// A volume whose transaction was aborted takes no changes, and says why.
#[track_caller]
fn assert_aborted(fs: &Fs, log: &[String]) {
    assert!(fs.is_read_only());
    assert_eq!(fs.commit(), Err(EROFS));
    assert_eq!(file(fs, ROOT, "no").err(), Some(EROFS));
    let aborted = |line: &String| line.contains("Transaction") && line.contains("aborted");
    assert!(log.iter().any(aborted), "{log:?}");
    assert!(
        log.iter().any(|line| line.contains("forced readonly")),
        "{log:?}"
    );
}

#[test]
fn lack_of_memory_loses_nothing() {
    fail_every_allocation("write-memory", &packed("tiny"));
}

/// What cannot be compressed for want of memory is written as it is by the kernel's side; here the
/// step fails, and is taken again.
#[test]
fn lack_of_memory_loses_nothing_compressed() {
    compress_by(Some(CompressionMethod::Zstd));
    fail_every_allocation("write-memory-compressed", &packed("tiny"));
}

/// Where holes have items, and free space has none.
#[test]
fn lack_of_memory_loses_nothing_of_older_volumes() {
    let options = ["-n", "4096", "-O", "^no-holes", "-R", "^free-space-tree"];
    let start = make_small(&Scratch::new("write-older"), &options);
    fail_every_allocation("write-memory-older", &start);
}

/// How often a step failed and left all as it was, and how often the transaction was given up.
#[derive(Default)]
struct Tally {
    clean: AtomicU64,
    aborted: AtomicU64,
}

impl Tally {
    fn add(&self, again: &Again<'_>, result: &Result) {
        let add = |count: &AtomicU64, one| count.fetch_add(u64::from(one), Ordering::SeqCst);
        add(&self.clean, again.clean.is_some());
        add(&self.aborted, result.is_err());
    }

    /// Prints both behind `what`, and answers them.
    fn told(self, what: &str, proved: &Proved) -> (u64, u64) {
        let (clean, aborted) = (self.clean.into_inner(), self.aborted.into_inner());
        println!(
            "{what}, {clean} clean, {aborted} aborted, {} states",
            proved.checked()
        );
        (clean, aborted)
    }
}

fn fail_every_allocation(name: &str, start: &MemDevice) {
    let expected = Expected::new(start);
    let proved = Proved::new(name, start);
    let tally = Tally::default();
    let compress = compresses_by();
    let total = every("allocation", |n| {
        compress_by(compress);
        let image = share(start.clone());
        let fs = open(&image).unwrap();
        let mut again = Again {
            expected: &expected,
            error: ENOMEM,
            clean: None,
            promised: 0,
            repair: &|| (),
            prepare: &|_| (),
        };
        fault::fail_alloc_after(n);
        let (result, log) = kernel::log::capture(|| script(&fs, &mut again));
        let reached = fault::count() > n;
        fault::clear();
        assert!(result.is_ok() || reached);
        tally.add(&again, &result);
        again.judge(fs, result, &log, &image, &proved);
        reached
    });
    let (clean, aborted) = tally.told(&format!("{total} allocations"), &proved);
    assert!(total > 1000 && clean > 100 && aborted > 100);
}

/// Fails every request of a kind, that one alone or all that come after it until a step has failed.
fn fail_every(op: Op, all: bool) {
    let start = packed("tiny");
    let expected = Expected::new(&start);
    let proved = Proved::new(&format!("write-{op:?}-{all}"), &start);
    let tally = Tally::default();
    let total = every("request", |n| {
        let image = share(start.clone());
        let device = share(FaultDevice::new(image.clone()));
        device.fail(op, n, all);
        let reached = Cell::new(false);
        let repair = || {
            reached.set(n < device.counts().of(op));
            device.clear();
        };
        let mut again = Again {
            expected: &expected,
            error: EIO,
            clean: None,
            promised: 0,
            repair: &repair,
            // Or else no step would have to read anything.
            prepare: &|fs| {
                fs.cache.shrink(0);
            },
        };
        let (fs, log) = kernel::log::capture(|| {
            let fs = open(&device)?;
            let result = script(&fs, &mut again);
            Ok::<_, Error>((fs, result))
        });
        if !reached.get() {
            repair();
        }
        let reached = reached.get();
        let Ok((fs, result)) = fs else {
            assert!(reached && op == Op::Read);
            proved.assert_holds(&image);
            return reached;
        };
        assert!(result.is_ok() || reached);
        tally.add(&again, &result);
        again.judge(fs, result, &log, &image, &proved);
        reached
    });
    let (clean, aborted) = tally.told(&format!("{total} {op:?}"), &proved);
    match op {
        // There are two copies of all that is read but the superblock.
        Op::Read if !all => assert!(total > 50 && clean + aborted == 0),
        Op::Read => assert!(total > 50 && clean > 10 && aborted > 10),
        Op::Write => assert!(total > 100 && clean > 5 && aborted > 50),
        Op::Flush => assert!(total == 5 && aborted == 5),
    }
}

crate::tests_of_failing_requests!(fail_every);

/// Whoever joins the running transaction first makes usable what readers had kept from being used.
/// That there is no memory for this is nothing to those whose changes the transaction holds.
#[test]
fn failing_to_join_is_the_callers_alone() {
    let image = share(packed("tiny"));
    let fs = open(&image).unwrap();
    let files: Vec<_> = (0..40).map(|n| format!("file{n}")).collect();
    for name in &files {
        let id = file(&fs, ROOT, name).unwrap();
        fill(&fs, id, &pattern(SECTOR as usize, 1)).unwrap();
    }
    fs.commit().unwrap();
    let reader = fs.reader().unwrap();
    for name in files.iter().step_by(2) {
        let gone = unlink(&fs, ROOT, name.as_bytes(), now()).unwrap();
        evict(
            &fs,
            InodeId {
                ino: gone.ino,
                ..ROOT
            },
        )
        .unwrap();
    }
    fs.commit().unwrap();
    mkdir(&fs, ROOT, "before").unwrap();
    drop(reader);
    fault::fail_alloc_after(0);
    let joined = mkdir(&fs, ROOT, "failed");
    fault::clear();
    assert_eq!(joined.err(), Some(ENOMEM));
    assert!(!fs.is_read_only());
    mkdir(&fs, ROOT, "after").unwrap();
    fs.commit().unwrap();
    drop(fs);
    let fs = open(&image).unwrap();
    for (name, there) in [("before", true), ("failed", false), ("after", true)] {
        assert_eq!(lookup(&fs, ROOT, name).unwrap().is_some(), there, "{name}");
    }
    Scratch::new("write-join").assert_clean(&image);
}
