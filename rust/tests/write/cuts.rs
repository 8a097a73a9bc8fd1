// SPDX-License-Identifier: GPL-2.0
//! Power cuts at any point: the volume is what one of its commits made it, and no older than what
//! was promised.

use crate::model::Model;
use crate::script::*;
use crate::support::contents::packed;
use crate::support::cut::every_cut;
use crate::support::proved::Proved;
use crate::support::*;
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::RecordingDevice;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::vec::Vec;

/// What each commit holds, by its generation, with the number of events after which it was
/// promised.
pub type Commits = BTreeMap<u64, (u64, Model)>;

/// Asserts that a power cut after any event leaves a commit, and no older one than was promised by
/// then.
pub fn assert_every_cut(device: &RecordingDevice, proved: &Proved, commits: &Commits) {
    let within = Mutex::new(BTreeSet::new());
    let cuts = every_cut(device, 2, |n, image| {
        let found = open(&share(image.clone())).unwrap().generation();
        let promised = commits.iter().rev().find(|(_, (at, _))| *at <= n);
        assert!(promised.is_some_and(|(promised, _)| found >= *promised));
        proved.assert_by(image, |fs| match commits.get(&found) {
            Some((_, model)) => model.assert_same(fs),
            // An operation that drops much may commit between two pieces of its work.
            None => {
                within.lock().unwrap().insert(found);
            }
        });
    });
    let within = within.into_inner().unwrap().len();
    println!("{cuts} cuts, {} states, {within} within", proved.checked());
    assert!(within * 4 < commits.len(), "{within} of {}", commits.len());
}

/// Random operations, of which some are committed.
#[test]
fn a_power_cut_leaves_what_was_committed() {
    for (seed, kind) in [
        &["-n", "4096", "-m", "single"][..],
        &["-n", "16384", "-m", "dup"],
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("write-cut-{seed}");
        let start = make_mem(&Scratch::new(&name), kind);
        let proved = Proved::new(&name, &start).with_orphans();
        let device = share(RecordingDevice::new(start));
        let fs = open(&device).unwrap();
        let mut model = Model::new(&fs, 77 + seed as u64);
        let mut commits = BTreeMap::from([(fs.generation(), (0, model.clone()))]);
        for step in 0..160 {
            model.step(&fs).unwrap();
            if step % 8 == 0 {
                fs.commit().unwrap();
            }
            let events = device.events().len() as u64;
            let commit = commits.entry(fs.generation());
            commit.or_insert_with(|| (events, model.clone()));
        }
        drop(fs);
        assert_every_cut(&device, &proved, &commits);
        assert!(proved.checked() >= commits.len());
    }
}

/// What had been promised when.
struct Promises<'a> {
    device: &'a RecordingDevice,
    /// The number of events at the time, and the generation.
    made: Vec<(u64, u64)>,
}

impl Watch for Promises<'_> {
    fn committed(&mut self, fs: &Fs) {
        let events = self.device.events().len() as u64;
        self.made.push((events, fs.generation()));
    }
}

#[test]
fn a_power_cut_loses_nothing_of_any_operation() {
    let start = packed("tiny");
    let run = Run::of(&start);
    let proved = Proved::new("write-cut", &start);
    let device = share(RecordingDevice::new(start));
    let mut reservations = Promises {
        device: &device,
        made: vec![],
    };
    script(&open(&device).unwrap(), &mut reservations).unwrap();
    let made = reservations.made;
    let cuts = every_cut(&device, 4, |n, image| {
        let promised = made.iter().rev().find(|(at, _)| *at <= n);
        let promised = promised.map_or(0, |(_, generation)| *generation);
        let found = open(&share(image.clone())).unwrap().generation();
        assert!(found >= promised, "{found} after {promised}");
        proved.assert_by(image, |fs| run.assert_committed(fs));
    });
    println!("{cuts} cuts, {} states", proved.checked());
    assert!(cuts > 100 && proved.checked() >= 6);
}
