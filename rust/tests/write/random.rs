// SPDX-License-Identifier: GPL-2.0
//! Random operations: the volume is what the model says, at any time, after a mount, and for the C
//! driver.

use crate::files::*;
use crate::model::Model;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::balance::relocate::relocate_block_group;
use rbtrfs_engine::format::CompressionMethod;
use rbtrfs_engine::space::space_info::SpaceContext;
use rbtrfs_engine::volume::Fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::vec::Vec;

fn run(seed: u64, steps: usize, compress: Option<CompressionMethod>) {
    let scratch = Scratch::new(&format!("write-random-{seed}-{compress:?}"));
    compress_by(compress);
    let device = share(make_mem(&scratch, KINDS[seed as usize % KINDS.len()]));
    let mut fs = open(&device).unwrap();
    let mut model = Model::new(&fs, seed + 1);
    for step in 0..steps {
        model
            .step(&fs)
            .unwrap_or_else(|e| panic!("seed {seed} step {step}: {e:?}"));
        if step % 100 == 99 {
            model.assert_same(&fs);
            fs.commit().unwrap();
            // With inodes that are open and have no names, and after a mount has removed them. Of
            // the first state, the default mode of `btrfs check` says that there are errors without
            // any, if such inodes are in snapshots.
            scratch.assert_clean_lowmem(&device);
            let later = share((*device).clone());
            let mounted = open(&later).unwrap();
            model.clean(&mounted).unwrap();
            mounted.commit().unwrap();
            scratch.assert_clean(&later);
        }
        if step % 300 == 299 {
            drop(fs);
            fs = open(&device).unwrap();
            model.remounted();
            model.assert_same(&fs);
            model.clean(&fs).unwrap();
        }
    }
    model.assert_same(&fs);
    fs.commit().unwrap();
    drop(fs);
    let fs = open(&device).unwrap();
    model.clean(&fs).unwrap();
    fs.commit().unwrap();
    drop(fs);
    scratch.assert_clean(&device);
    mounted(&scratch, &device, |dir| model.assert_mounted(dir));
}

#[test]
fn random_operations() {
    let only = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    for seed in (0..6).filter(|s| only.is_none_or(|only: u64| only == *s)) {
        run(seed, 1000, None);
    }
}

/// Data that is compressed is cut off, punched, shared, and kept in snapshots as any other.
#[test]
fn random_operations_on_compressed_files() {
    for (seed, method) in (10..).zip(CompressionMethod::ALL) {
        run(seed, 600, Some(method));
    }
}

/// Operations, and readers of what they did, while block groups are emptied one after the other.
#[test]
fn random_operations_beside_balance() {
    for seed in 0..3 {
        let scratch = Scratch::new(&format!("write-balance-{seed}"));
        let device = share(make_mem(&scratch, KINDS[seed as usize]));
        let fs = open(&device).unwrap();
        let mut model = Model::new(&fs, 1000 + seed);
        let done = AtomicBool::new(false);
        let rounds = std::thread::scope(|scope| {
            let balance = scope.spawn(|| {
                let mut rounds = 0;
                while !done.load(Ordering::SeqCst) {
                    for start in block_groups(&fs) {
                        // Of a block group that is gone, or has no space elsewhere, there is
                        // nothing to say.
                        match relocate_block_group(&fs, start, &|| Ok(())) {
                            Ok(()) | Err(ENOENT) | Err(ENOSPC) => {}
                            Err(e) => panic!("block group {start}: {e:?}"),
                        }
                    }
                    rounds += 1;
                }
                rounds
            });
            let ending = Ending(&done);
            for step in 0..600 {
                let stepped = model.step(&fs);
                stepped.unwrap_or_else(|e| panic!("seed {seed} step {step}: {e:?}"));
                if step % 100 == 99 {
                    model.assert_same(&fs);
                }
            }
            drop(ending);
            balance.join().unwrap()
        });
        assert!(rounds > 0);
        fs.commit().unwrap();
        drop(fs);
        let fs = open(&device).unwrap();
        model.clean(&fs).unwrap();
        model.assert_same(&fs);
        fs.commit().unwrap();
        scratch.assert_clean(&device);
        mounted(&scratch, &device, |dir| model.assert_mounted(dir));
    }
}

/// Ends the other thread, on a panic as well.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn block_groups(fs: &Fs) -> Vec<u64> {
    let trans = begin(fs);
    let groups = trans.space().block_groups().iter();
    groups.map(|group| group.start).collect()
}
