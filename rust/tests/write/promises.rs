// SPDX-License-Identifier: GPL-2.0
//! What fsync promised, and whether a volume has it after a power cut.

use crate::files::*;
use crate::model::{load, Kind, Model, Object, Subvolume, Target};
use kernel::prelude::*;
use kernel::sync::Arc;
use rbtrfs_engine::device::BlockDevice;
use rbtrfs_engine::log::{self, Replay};
use rbtrfs_engine::subvol::write::*;
use rbtrfs_engine::volume::{Fs, OpenOptions};
use rbtrfs_testdev::RecordingDevice;
use std::collections::{BTreeMap, HashSet};
use std::string::String;
use std::vec::Vec;

/// Opens a volume as a mount does, with its log replayed.
pub fn mount<D: BlockDevice + 'static>(device: &Arc<D>) -> Arc<Fs> {
    let device: Arc<dyn BlockDevice> = device.clone();
    log::open(device, &OpenOptions::default(), Replay::Yes).unwrap()
}

/// What was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// All there was, by a commit.
    All,
    /// An inode, by an fsync.
    Inode(InodeId),
}

struct Promise {
    /// The number of events by which it was made.
    events: u64,
    /// The state that it is about.
    state: usize,
    what: What,
}

/// What became of a volume.
pub struct History {
    device: Arc<RecordingDevice>,
    /// After each step, with the number of events by then.
    states: Vec<(u64, BTreeMap<u64, Subvolume>)>,
    promises: Vec<Promise>,
    /// How many syncs the log was enough for.
    pub logged: usize,
    /// How many made a commit.
    pub committed: usize,
}

impl History {
    /// Of a volume on `device` that has what `model` has, all of it on disk.
    pub fn new(device: &Arc<RecordingDevice>, model: &Model) -> Self {
        Self {
            device: device.clone(),
            states: vec![(0, model.subvolumes.clone())],
            promises: vec![Promise {
                events: 0,
                state: 0,
                what: What::All,
            }],
            logged: 0,
            committed: 0,
        }
    }

    /// The number of requests that have changed the device so far.
    pub fn events(&self) -> u64 {
        self.device.events().len() as u64
    }

    fn promise(&mut self, state: usize, what: What) {
        let events = self.events();
        self.promises.push(Promise {
            events,
            state,
            what,
        });
    }

    /// Takes a step, after which some inode may be synced, as `fsync` does once the data is
    /// written: `sync` is called with it and the transaction that changed it last.
    ///
    /// # Errors
    ///
    /// Those of `sync`.
    pub fn step(
        &mut self,
        fs: &Fs,
        model: &mut Model,
        sync: &mut dyn FnMut(&Fs, InodeId, u64) -> Result,
    ) -> Result {
        let before = fs.generation();
        match model.step(fs) {
            Ok(()) | Err(EEXIST) => {}
            Err(error) => panic!("{error:?}"),
        }
        let state = self.states.len();
        if fs.generation() != before {
            self.promise(state - 1, What::All);
        }
        self.states.push((self.events(), model.subvolumes.clone()));
        if model.below(2) == 0 {
            let id = model.pick_to_sync();
            let before = fs.generation();
            let changed = item(fs, id)?.transid.get();
            sync(fs, id, changed)?;
            self.logged += usize::from(fs.generation() == before && changed > before);
            if fs.generation() != before {
                self.committed += 1;
                self.promise(state, What::All);
            }
            self.promise(state, What::Inode(id));
            self.states[state].0 = self.events();
        }
        Ok(())
    }

    /// The states that a power cut after `n` events may show of an inode, or of what a commit has.
    fn window(&self, n: u64, id: Option<InodeId>) -> core::ops::RangeInclusive<usize> {
        let promised = self.promises.iter().filter(|promise| promise.events <= n);
        let about = promised.filter(|promise| {
            promise.what == What::All || id.is_some_and(|id| promise.what == What::Inode(id))
        });
        let from = about.map(|promise| promise.state).max().unwrap();
        let whole = self.states.iter().rposition(|(events, _)| *events <= n);
        from..=(whole.unwrap() + 1).min(self.states.len() - 1)
    }

    fn objects(&self, n: u64, id: InodeId) -> Option<Vec<&Object>> {
        let mut objects = vec![];
        for (_, state) in &self.states[self.window(n, Some(id))] {
            let object = state.get(&id.tree)?.get(&id.ino)?;
            if object.nlink == 0 {
                return None;
            }
            objects.push(object);
        }
        Some(objects)
    }

    /// Asserts that a power cut after `n` events has left all that was promised, and nothing that
    /// never was.
    pub fn assert_kept(&self, n: u64, fs: &Fs) {
        let commit = self.window(n, None);
        let states = &self.states[commit.clone()];
        for (tree, base) in &states[0].1 {
            if !states.iter().all(|(_, state)| state.contains_key(tree)) {
                continue;
            }
            let found = load(fs, *tree).unwrap();
            let inos: HashSet<u64> = states
                .iter()
                .flat_map(|(_, state)| state[tree].keys().copied())
                .collect();
            for ino in inos {
                let id = InodeId { tree: *tree, ino };
                let synced = self.promises.iter().any(|promise| {
                    promise.events <= n
                        && promise.what == What::Inode(id)
                        && promise.state >= *commit.start()
                });
                if synced || base.contains_key(&ino) {
                    if let Some(objects) = self.objects(n, id) {
                        self.assert_object(n, id, &objects, &found);
                    }
                }
            }
            for (ino, object) in &found {
                let id = InodeId {
                    tree: *tree,
                    ino: *ino,
                };
                assert!(
                    states
                        .iter()
                        .any(|(_, state)| state[tree].contains_key(ino)),
                    "{id:?} never was"
                );
                if let Kind::Dir(entries) = &object.kind {
                    self.assert_entries(n, id, entries);
                }
            }
        }
    }

    fn assert_object(&self, n: u64, id: InodeId, objects: &[&Object], found: &Subvolume) {
        let Some(object) = found.get(&id.ino) else {
            panic!("{id:?} is lost");
        };
        match &object.kind {
            Kind::Dir(entries) => {
                // All that it had at all times.
                let (first, rest) = objects.split_first().unwrap();
                for (name, target) in entries_of(first) {
                    if rest.iter().all(|o| entries_of(o).get(name) == Some(target)) {
                        assert_eq!(entries.get(name), Some(target), "{id:?}: {name}");
                    }
                }
            }
            kind => assert!(
                objects.iter().any(|object| object.kind == *kind),
                "{id:?}: data"
            ),
        }
        assert!(
            objects.iter().any(|o| o.xattrs == object.xattrs),
            "{id:?}: attributes"
        );
        // The names that it had at all times.
        for (dir, name) in self.names(*self.window(n, Some(id)).start(), id) {
            let always = self.states[self.window(n, Some(id))]
                .iter()
                .all(|(_, state)| {
                    let object = state[&id.tree].get(&dir);
                    object.is_some_and(|dir| {
                        entries_of(dir).get(&name) == Some(&Target::Inode(id.ino))
                    })
                });
            if always {
                let dir = found.get(&dir).map(entries_of);
                let target = dir.and_then(|entries| entries.get(&name));
                assert_eq!(target, Some(&Target::Inode(id.ino)), "{id:?}: {name}");
            }
        }
    }

    fn names(&self, state: usize, id: InodeId) -> Vec<(u64, String)> {
        let mut names = vec![];
        for (dir, object) in &self.states[state].1[&id.tree] {
            if let Kind::Dir(entries) = &object.kind {
                for (name, target) in entries {
                    if *target == Target::Inode(id.ino) {
                        names.push((*dir, name.clone()));
                    }
                }
            }
        }
        names
    }

    /// Every entry of a directory must have been there at some time since it was on disk.
    fn assert_entries(&self, n: u64, id: InodeId, entries: &BTreeMap<String, Target>) {
        let states = &self.states[self.window(n, Some(id))];
        for (name, target) in entries {
            let was = states.iter().any(|(_, state)| {
                let object = state.get(&id.tree).and_then(|tree| tree.get(&id.ino));
                object.is_some_and(|dir| entries_of(dir).get(name) == Some(target))
            });
            assert!(was, "{id:?}: {name} leads to {target:?}");
        }
    }
}

fn entries_of(object: &Object) -> &BTreeMap<String, Target> {
    match &object.kind {
        Kind::Dir(entries) => entries,
        kind => panic!("{kind:?}"),
    }
}
