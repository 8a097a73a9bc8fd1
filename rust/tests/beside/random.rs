// SPDX-License-Identifier: GPL-2.0
//! Random schedules: several sends, a balance, writers and deletions of snapshots, one step of one
//! of them at a time.
//!
//! Each send has a thread, which runs only while it has the turn: from one read of the device or
//! write of the stream to the next. All others run between two turns. So a seed says all that
//! happens.

use crate::contents::*;
use crate::files::*;
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
                match relocate_block_group(fs, start, &|| Ok(())) {
                    Ok(()) | Err(ENOSPC) => (),
                    Err(error) => panic!("{error:?}"),
                }
            }
            2..=4 => {
                let name = format!("other-{}", random.below(4));
                let id = match lookup(fs, ROOT, &name).unwrap() {
                    Some(id) => id,
                    None => file(fs, ROOT, &name).unwrap(),
                };
                let len = 4096 * (1 + random.below(64));
                let data = pattern(len, random.0);
                write(fs, id, 0, &data, len as u64).unwrap();
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
                subvolume::snapshot(fs, ROOT.tree, ROOT, name.as_bytes(), &new).unwrap();
                self.snapshots.push(self.made);
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
        while let Some(running) = turns.waiting() {
            if random.below(4) == 0 {
                others.step(&volume.fs, &mut random);
            } else {
                turns.give(running[random.below(running.len())]);
            }
        }
        for (send, wanted) in sends.into_iter().zip(&wanted) {
            let stream = send.join().unwrap();
            let stream = stream.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
            assert!(is_recorded(&stream, wanted), "seed {seed}, {}", wanted.name);
        }
    });
    assert_eq!(volume.fs.epochs.oldest(), None);
    let scratch = Scratch::new(&format!("beside-{name}-{seed}"));
    volume.fs.commit().unwrap();
    scratch.assert_clean(&volume.image());
}

#[test]
#[ignore = "compares bytes, and one stream of the volume `full` differs: not looked into yet"]
fn sends_a_balance_writers_and_deletions() {
    for name in ["full", "data", "dirs"] {
        let streams = recorded::streams(name);
        for seed in 0..2 {
            run(name, &streams, seed);
        }
    }
}
