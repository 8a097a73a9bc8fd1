// SPDX-License-Identifier: GPL-2.0
//! A volume that is full before every single step of the script: the step does what it should, or
//! says `ENOSPC` and has done nothing, and can be taken again once there is space. Deletion and
//! commits never fail for want of space.

use crate::script::*;
use crate::support::every::every;
use crate::support::proved::Proved;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::format::tree_id;
use rbtrfs_engine::space::OrderedExtent;
use rbtrfs_engine::trans::transaction::Reserve;
use rbtrfs_engine::tree::edit;
use rbtrfs_engine::volume::Fs;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::vec::Vec;

/// No step asks for as much space as this, in tree blocks.
const MOST: u64 = 150;

/// What fills a volume: items in the tree of roots, each of which takes most of a leaf, and data
/// space.
struct Filler {
    items: u64,
    data: Vec<OrderedExtent>,
    /// How many tree blocks are to be left free, beyond those that the engine keeps for commits.
    level: u64,
}

impl Filler {
    /// A volume that has this many items of it, and is left `level` tree blocks.
    fn new(items: u64, level: u64) -> Self {
        Filler {
            items,
            data: vec![],
            level,
        }
    }

    fn fill(&mut self, fs: &Fs) {
        loop {
            match fs.alloc_data(None, 4 << 20) {
                Ok(extent) => self.data.push(extent),
                Err(error) => {
                    assert_eq!(error, ENOSPC);
                    break;
                }
            }
        }
        let reserve = Reserve {
            nodes: self.level,
            ..Reserve::default()
        };
        let item = vec![7; usize::from(fs.geometry.nodesize) * 3 / 4];
        loop {
            let insert = fs.operate(reserve, |trans| {
                edit::insert(trans, tree_id::ROOT, &key(self.items), &item)
            });
            match insert {
                Ok(()) => self.items += 1,
                Err(error) => {
                    assert_eq!(error, ENOSPC);
                    break;
                }
            }
        }
    }

    /// Makes a little space.
    fn free(&mut self, fs: &Fs) {
        self.data.pop();
        let freeing = Reserve {
            freeing: true,
            ..Reserve::default()
        };
        for _ in 0..8 {
            self.items -= 1;
            let key = key(self.items);
            fs.operate(freeing, |trans| edit::delete(trans, tree_id::ROOT, &key))
                .unwrap();
        }
    }
}

/// Fills the volume before each step, and makes space when one fails.
struct Full<'a> {
    filler: Filler,
    run: &'a Run,
    /// The steps that had no space.
    refused: &'a Mutex<BTreeSet<usize>>,
    /// How often the step at hand failed.
    attempts: u64,
}

impl Watch for Full<'_> {
    fn before(&mut self, fs: &Fs, _step: Step) {
        self.filler.fill(fs);
        self.attempts = 0;
    }

    fn again(&mut self, fs: &Fs, step: Step, error: Error) -> bool {
        assert_eq!(error, ENOSPC, "{step:?}");
        assert!(!fs.is_read_only() && !step.freeing, "{step:?}");
        if step.kind != StepKind::Several {
            assert!(seen(fs) == self.run.before[step.number].seen, "{step:?}");
        }
        self.refused.lock().unwrap().insert(step.number);
        self.attempts += 1;
        assert!(self.attempts < 100, "{step:?}");
        self.filler.free(fs);
        true
    }
}

#[test]
fn a_full_volume_loses_nothing() {
    let scratch = Scratch::new("write-full-script");
    let empty = make_small(&scratch, &["-n", "4096", "-m", "single"]);
    let run = Run::of(&empty);
    let proved = Proved::new("write-full-proved", &empty);
    // Nearly full.
    let image = share(empty.clone());
    let fs = open(&image).unwrap();
    let mut filler = Filler::new(0, 500);
    filler.fill(&fs);
    fs.commit().unwrap();
    let items = filler.items;
    drop((filler, fs));
    assert!(items > 500, "{items}");

    let refused = Mutex::default();
    let levels = every("level", |n| {
        let level = n * 3;
        let image = share((*image).clone());
        let fs = open(&image).unwrap();
        let mut full = Full {
            filler: Filler::new(items, level),
            run: &run,
            refused: &refused,
            attempts: 0,
        };
        script(&fs, &mut full).unwrap();
        let assert_last = |fs: &Fs| assert!(seen(fs) == run.last().seen);
        assert_last(&fs);
        proved.assert_by(&image, assert_last);
        while full.filler.items > 8 {
            full.filler.free(&fs);
        }
        fs.commit().unwrap();
        proved.assert_by(&image, assert_last);
        level < MOST
    });
    let refused = refused.into_inner().unwrap();
    println!("{levels} levels, {refused:?}, {} states", proved.checked());
    let never = |step: &&Step| !step.freeing && !refused.contains(&step.number);
    let never: Vec<_> = run.steps.iter().filter(never).collect();
    assert!(never.is_empty(), "{never:?} always had room");
}
