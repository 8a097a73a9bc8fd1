// SPDX-License-Identifier: GPL-2.0
//! States of a volume that must hold what it held before. Each is looked at once, however many
//! faults lead to it.

use super::contents::contents_now;
use super::{open, read_everything, share, Scratch};
use rbtrfs_engine::format::{item_type, tree_id, Key};
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::MemDevice;
use std::collections::hash_map::DefaultHasher;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Mutex;
use std::vec::Vec;

/// Where the copies of the superblock are.
const SUPERBLOCKS: [u64; 2] = [64 << 10, 64 << 20];

/// What a volume must hold, and the states that were found to hold it.
pub struct Proved {
    scratch: Scratch,
    /// `btrfs check` is asked for its other mode.
    lowmem: bool,
    start: MemDevice,
    /// The contents of all subvolumes.
    pub before: Vec<(u64, u64)>,
    /// States by all that is different from the start, garbage as well.
    seen: Mutex<HashSet<u64>>,
    /// States by all that can be reached from the superblocks.
    checked: Mutex<HashSet<u64>>,
}

impl Proved {
    /// The volume is to hold what it does in `start`, which `btrfs check` accepts.
    pub fn new(name: &str, start: &MemDevice) -> Self {
        let proved = Self {
            scratch: Scratch::new(name),
            lowmem: false,
            start: start.clone(),
            before: contents_now(&open(&share(start.clone())).unwrap()),
            seen: Mutex::default(),
            checked: Mutex::default(),
        };
        assert!(!proved.before.is_empty());
        proved.assert_holds(start);
        proved
    }

    /// Lets `btrfs check` look at snapshots with inodes that have no names: its default mode says
    /// that there are errors, without any.
    pub fn with_orphans(mut self) -> Self {
        self.lowmem = true;
        self
    }

    /// How many states `btrfs check` has looked at.
    pub fn checked(&self) -> usize {
        self.checked.lock().unwrap().len()
    }

    /// Mounts the volume, reads every block of every tree and all files, and asks `btrfs check`.
    /// What was asked about bytes that are the same, wherever blocks are that nobody refers to, is
    /// not asked again.
    #[track_caller]
    pub fn assert_holds(&self, image: &MemDevice) {
        self.assert_by(image, |fs| assert_eq!(contents_now(fs), self.before));
    }

    /// As [`Self::assert_holds`] for a volume that may have changed: `judge`, which must depend on
    /// the bytes alone, knows what it should hold.
    #[track_caller]
    pub fn assert_by(&self, image: &MemDevice, judge: impl FnOnce(&Fs)) {
        let state = image.fingerprint(&self.start);
        if self.seen.lock().unwrap().contains(&state) {
            return;
        }
        let fs = open(&share(image.clone())).unwrap();
        read_everything(&fs);
        judge(&fs);
        let reachable = reachable(&fs, image);
        if !self.checked.lock().unwrap().contains(&reachable) {
            if self.lowmem {
                self.scratch.assert_clean_lowmem(image);
            } else {
                self.scratch.assert_clean(image);
            }
            self.checked.lock().unwrap().insert(reachable);
        }
        self.seen.lock().unwrap().insert(state);
    }
}

/// One number for all bytes of a volume that anybody reads: the superblocks, and every mirror of
/// all tree blocks and data that have an extent item.
fn reachable(fs: &Fs, image: &MemDevice) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut take = |physical: u64, len: u64| {
        let mut bytes = vec![0; len as usize];
        image.copy_out(physical, &mut bytes);
        (physical, bytes).hash(&mut hasher);
    };
    for copy in SUPERBLOCKS {
        take(copy, 4096);
    }
    let reader = fs.reader().unwrap();
    let chunks = fs.chunk_map();
    let mut take_logical = |bytenr: u64, len: u64| {
        for physical in chunks.mirrors(bytenr, len).unwrap().iter() {
            take(physical, len);
        }
    };
    let nodesize = u64::from(fs.geometry.nodesize);
    let mut cursor = reader.cursor(reader.root(tree_id::EXTENT).unwrap());
    cursor.seek(&Key::MIN).unwrap();
    while let Some(key) = cursor.key() {
        match key.typ {
            item_type::EXTENT_ITEM => take_logical(key.objectid, key.offset),
            // Those of trees that are being deleted as well.
            item_type::METADATA_ITEM => take_logical(key.objectid, nodesize),
            _ => {}
        }
        cursor.next().unwrap();
    }
    hasher.finish()
}
