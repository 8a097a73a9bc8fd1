// SPDX-License-Identifier: GPL-2.0
//! fsync by the log: what it promised is there after a power cut at any point, and nothing else
//! is lost for it.

use crate::model::Model;
use crate::promises::*;
use crate::support::cut::every_cut;
use crate::support::*;
use rbtrfs_engine::log;
use rbtrfs_testdev::{MemDevice, RecordingDevice};
use std::collections::HashSet;
use std::sync::Mutex;

/// Random operations, of which some are followed by an fsync.
fn run(seed: u64, kind: &[&str], steps: usize) {
    let name = format!("fsync-{seed}");
    let scratch = Scratch::new(&name);
    let start = make_small(&scratch, kind);
    let device = share(RecordingDevice::new(start.clone()));
    let fs = open(&device).unwrap();
    let mut model = Model::new(&fs, seed);
    model.reuse_names = true;
    let mut history = History::new(&device, &model);
    for _ in 0..steps {
        history.step(&fs, &mut model, &mut log::sync_inode).unwrap();
    }
    drop(fs);
    let seen = Mutex::new(HashSet::new());
    let checked = Mutex::new(0);
    let cuts = every_cut(&device, 2, |n, image| {
        if !seen.lock().unwrap().insert((n, image.fingerprint(&start))) {
            return;
        }
        let device = share(RecordingDevice::new(image.clone()));
        let fs = mount(&device);
        history.assert_kept(n, &fs);
        read_everything(&fs);
        drop(fs);
        if n % 7 == 0 {
            scratch.assert_clean_lowmem(&device.image());
            // A second cut, during the replay.
            for events in 0..device.events().len() {
                let fs = mount(&share(MemDevice::clone(&device.cut(events))));
                history.assert_kept(n, &fs);
            }
            *checked.lock().unwrap() += 1;
        }
    });
    println!(
        "seed {seed}: {cuts} cuts, {} syncs by the log, {} by a commit",
        history.logged, history.committed
    );
    assert!(history.logged > history.committed);
}

#[test]
fn a_power_cut_leaves_what_was_synced() {
    let only = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    // Data is kept twice on large volumes alone.
    let kinds = KINDS.iter().filter(|kind| !kind.contains(&"-d"));
    for (n, kind) in kinds.enumerate() {
        let seed = n as u64 + 1;
        if only.is_none_or(|only: u64| only == seed) {
            run(seed, kind, 120);
        }
    }
}
