// SPDX-License-Identifier: GPL-2.0
//! Random schedules: several sends, a balance, writers and deletions of snapshots, one step of one
//! of them at a time.
//!
//! Each send has a thread, which runs only while it has the turn: from one read of the device or
//! write of the stream to the next. All others run between two turns. So a seed says all that
//! happens.

use crate::contents::*;
use crate::files::*;
use crate::judge::assert_as_good;
use crate::stops::*;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::balance::relocate::relocate_block_group;
use rbtrfs_engine::subvol::subvolume::{self, NewSnapshot};
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::recorded::{self, Stream};
use std::vec::Vec;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % n
    }
}

/// A send that waits for its turn holds the commit that it reads, and so what was freed since. That
/// may be all there is.
#[track_caller]
fn or_full(fs: &Fs, result: Result) {
    let held = fs
        .epochs
        .oldest()
        .is_some_and(|oldest| oldest < fs.epochs.committed());
    assert!(
        result == Ok(()) || result == Err(ENOSPC) && held,
        "{result:?}"
    );
}

/// What happens between two turns of sends.
struct Others {
    /// The snapshots that are there now, by number.
    snapshots: Vec<usize>,
    made: usize,
}

impl Others {
    fn step(&mut self, fs: &Fs, random: &mut Random) {
        match random.below(8) {
            0 | 1 => {
                // A balance, by block groups.
                let groups = block_groups(fs, EVERYTHING).unwrap();
                let start = groups[random.below(groups.len())];
                or_full(fs, relocate_block_group(fs, start, &|| Ok(())));
            }
            2..=4 => {
                let name = format!("other-{}", random.below(4));
                let id = match lookup(fs, ROOT, &name).unwrap() {
                    Some(id) => id,
                    None => file(fs, ROOT, &name).unwrap(),
                };
                let len = 4096 * (1 + random.below(64));
                let data = pattern(len, random.0);
                or_full(fs, write(fs, id, 0, &data, len as u64));
            }
            5 => {
                self.made += 1;
                let mut uuid = [0xfe; 16];
                uuid[..8].copy_from_slice(&(self.made as u64).to_le_bytes());
                let new = NewSnapshot {
                    uuid,
                    read_only: true,
                    now: now(),
                };
                let name = format!("made-{}", self.made);
                let made = subvolume::snapshot(fs, ROOT.tree, ROOT, name.as_bytes(), &new);
                if made.is_ok() {
                    self.snapshots.push(self.made);
                }
                or_full(fs, made.map(|_| ()));
            }
            6 if !self.snapshots.is_empty() => {
                let at = random.below(self.snapshots.len());
                let name = format!("made-{}", self.snapshots.remove(at));
                subvolume::delete_subvolume(fs, ROOT, name.as_bytes(), now()).unwrap();
                subvolume::clean_subvolumes(fs, &|_| true, &|| false).unwrap();
            }
            _ => fs.commit().unwrap(),
        }
        fs.cache.shrink(0);
    }
}

fn run(name: &str, streams: &[Stream], seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let volume = Volume::recorded(name);
    let wanted: Vec<_> = (0..3)
        .map(|_| &streams[random.below(streams.len())])
        .collect();
    let alone: Vec<_> = wanted
        .iter()
        .map(|wanted| volume.send_alone(&wanted.args()).0)
        .collect();
    let mut others = Others {
        snapshots: vec![],
        made: 0,
    };
    // What has no step at the device, as it is all in memory, would never be interrupted.
    volume.fs.cache.shrink(0);
    std::thread::scope(|scope| {
        let turns = volume.turns(wanted.len());
        let sends: Vec<_> = wanted
            .iter()
            .enumerate()
            .map(|(number, wanted)| {
                let volume = &volume;
                scope.spawn(move || volume.send_in_turns(&wanted.args(), number))
            })
            .collect();
        let scheduled = turns.scheduled();
        while let Some(running) = turns.waiting() {
            if random.below(4) == 0 {
                others.step(&volume.fs, &mut random);
            } else {
                turns.give(running[random.below(running.len())]);
            }
        }
        drop(scheduled);
        let reader = volume.fs.reader().unwrap();
        for ((send, wanted), alone) in sends.into_iter().zip(&wanted).zip(&alone) {
            let stream = send.join().unwrap();
            let stream = stream.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
            let place = format!("{name}, seed {seed}, {}", wanted.name);
            assert_as_good(&reader, wanted.root, &stream, alone, &place);
        }
    });
    // What is still running is built on a commit, which it holds.
    volume.fs.commit().unwrap();
    assert_eq!(volume.fs.epochs.oldest(), None);
    let scratch = Scratch::new(&format!("beside-{name}-{seed}"));
    scratch.assert_clean(&volume.image());
}

#[test]
fn sends_a_balance_writers_and_deletions() {
    for (name, seed) in [("full", 0), ("data", 1), ("dirs", 2)] {
        run(name, &recorded::streams(name), seed);
    }
}
