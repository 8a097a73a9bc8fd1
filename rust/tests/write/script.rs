// SPDX-License-Identifier: GPL-2.0
//! Something of every operation, in steps that can be taken again if they fail, for tests that let
//! each of them fail.

use crate::files::*;
use crate::model::{load, Kind, Subvolume, Target};
use crate::support::contents::hash_item;
use crate::support::*;
use kernel::prelude::*;
use rbtrfs_engine::format::inode::InodeItem;
use rbtrfs_engine::format::{self, item_type, tree_id, Key};
use rbtrfs_engine::space::space_info::SpaceContext;
use rbtrfs_engine::subvol::subvolume::{self, *};
use rbtrfs_engine::subvol::write::*;
use rbtrfs_engine::trans::transaction::Reserve;
use rbtrfs_engine::trans::View;
use rbtrfs_engine::tree::Cursor;
use rbtrfs_engine::volume::Fs;
use rbtrfs_testdev::MemDevice;
use std::collections::hash_map::DefaultHasher;
use std::collections::BTreeMap;
use std::hash::Hasher;
use std::vec::Vec;
use zerocopy::IntoBytes;

/// What a step is, for who has to know how far it got when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// One operation: it happened or it did not.
    One,
    /// One operation that takes a new number for an object of this tree, and does not give it back
    /// if it fails.
    Numbered(u64),
    /// Several operations, each of which happened or did not.
    Several,
    /// A commit.
    Commit,
}

/// A step of the script: its number, and what it is.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub number: usize,
    pub kind: StepKind,
    /// It frees more than it takes: a full volume is no reason to fail.
    pub freeing: bool,
}

/// Told of what happens to a script.
pub trait Watch {
    /// Called before every step.
    fn before(&mut self, _fs: &Fs, _step: Step) {}

    /// Called after every commit.
    fn committed(&mut self, _fs: &Fs) {}

    /// Called when a step failed: whether it is to be taken again.
    fn again(&mut self, _fs: &Fs, _step: Step, _error: Error) -> bool {
        false
    }
}

/// Watches nothing.
impl Watch for () {}

struct Steps<'a> {
    fs: &'a Fs,
    watch: &'a mut dyn Watch,
    number: usize,
}

impl Steps<'_> {
    fn take<T>(
        &mut self,
        (kind, freeing): (StepKind, bool),
        mut take: impl FnMut(&Fs) -> Result<T>,
    ) -> Result<T> {
        let number = self.number;
        self.number += 1;
        let step = Step {
            number,
            kind,
            freeing,
        };
        self.watch.before(self.fs, step);
        loop {
            match take(self.fs) {
                Err(error) if self.watch.again(self.fs, step, error) => {}
                done => return done,
            }
        }
    }

    fn step<T>(&mut self, step: impl FnMut(&Fs) -> Result<T>) -> Result<T> {
        self.take((StepKind::One, false), step)
    }

    fn numbered<T>(&mut self, tree: u64, step: impl FnMut(&Fs) -> Result<T>) -> Result<T> {
        self.take((StepKind::Numbered(tree), false), step)
    }

    fn steps<T>(&mut self, step: impl FnMut(&Fs) -> Result<T>) -> Result<T> {
        self.take((StepKind::Several, false), step)
    }

    fn freeing<T>(&mut self, step: impl FnMut(&Fs) -> Result<T>) -> Result<T> {
        self.take((StepKind::One, true), step)
    }

    fn commit(&mut self) -> Result {
        self.take((StepKind::Commit, true), Fs::commit)?;
        self.watch.committed(self.fs);
        Ok(())
    }

    fn file(&mut self, dir: InodeId, name: &str, data: &[u8]) -> Result<InodeId> {
        let id = self.numbered(dir.tree, |fs| file(fs, dir, name))?;
        self.step(|fs| fill(fs, id, data))?;
        Ok(id)
    }

    fn evict(&mut self, id: InodeId) -> Result {
        self.freeing(|fs| evict(fs, id))
    }
}

/// Does something of everything in the top-level subvolume.
pub fn script(fs: &Fs, watch: &mut dyn Watch) -> Result {
    let mut s = Steps {
        fs,
        watch,
        number: 0,
    };
    let dir = s.numbered(ROOT.tree, |fs| mkdir(fs, ROOT, "dir"))?;
    let a = s.file(dir, "large", &pattern(20_000, 1))?;
    let b = s.file(dir, "inline", &pattern(700, 2))?;
    let value = Some(&b"value"[..]);
    s.step(|fs| set_xattr(fs, a, b"user.x", value, XattrMode::Set, now()))?;
    let link_to = NewInode {
        target: b"dir/large",
        ..new(mode::LNK | 0o777)
    };
    s.numbered(dir.tree, |fs| create(fs, dir, b"symlink", &link_to))?;
    s.commit()?;

    s.step(|fs| write(fs, a, 8192, &pattern(9000, 3), 20_000))?;
    s.step(|fs| {
        update_inode(fs, a, |item| {
            item.uid = 7.into();
            Ok(())
        })
    })?;
    s.step(|fs| link(fs, a.ino, ROOT, b"link", now()))?;
    let end = |dir, name| RenameEnd { dir, name };
    let moved = end(ROOT, b"moved");
    s.step(|fs| rename(fs, end(dir, b"inline"), moved, RenameMode::Replace, now()))?;
    s.step(|fs| rename(fs, end(ROOT, b"link"), moved, RenameMode::Exchange, now()))?;
    s.take((StepKind::Several, true), |fs| {
        truncate(fs, a, 14_000, now())
    })?;
    s.steps(|fs| truncate(fs, a, 50_000, now()))?;
    s.step(|fs| punch(fs, a, 4096, 8192, now()))?;
    s.steps(|fs| preallocate(fs, b, 4096, 32768, 32768, now()))?;
    s.step(|fs| write(fs, b, 8192, &pattern(4096, 4), 32768))?;
    let range = CloneRange {
        src: a,
        src_offset: 8192,
        len: 4096,
        dst: b,
        dst_offset: 16384,
        dst_size: 32768,
    };
    s.steps(|fs| clone_range(fs, &range, Some(now())))?;
    let sectors = pattern(4 * 4096, 6);
    let sectors: Vec<_> = sectors.chunks(4096).collect();
    let of_a = [12288, 4096, 36864, 28672].into_iter().zip(sectors.clone());
    let of_a: Vec<_> = of_a.collect();
    s.step(|fs| write_pieces(fs, a, &of_a, 50_000))?;
    // Some of it is preallocated.
    let of_b = [16384, 20480, 32768, 28672].into_iter().zip(sectors);
    let of_b: Vec<_> = of_b.collect();
    s.step(|fs| write_pieces(fs, b, &of_b, 36864))?;
    s.commit()?;

    let uuid = [3; 16];
    let (uid, gid, mode) = (0, 0, 0o755);
    let now = now();
    let new_subvolume = NewSubvolume {
        uuid,
        uid,
        gid,
        mode,
        now,
    };
    let sub = s
        .numbered(tree_id::ROOT, |fs| {
            create_subvolume(fs, dir, b"sub", &new_subvolume)
        })?
        .tree;
    let sub = InodeId {
        tree: sub,
        ino: 256,
    };
    for n in 0..4 {
        s.file(sub, &format!("f{n}"), &pattern(4500, n))?;
    }
    let new_snapshot = NewSnapshot {
        uuid: [4; 16],
        read_only: false,
        now,
    };
    let snap = s
        .numbered(tree_id::ROOT, |fs| {
            subvolume::snapshot(fs, sub.tree, ROOT, b"snap", &new_snapshot)
        })?
        .tree;
    let snap = InodeId {
        tree: snap,
        ino: 256,
    };
    let gone = s.freeing(|fs| unlink(fs, snap, b"f3", now))?.ino;
    let open = s
        .numbered(dir.tree, |fs| tmpfile(fs, dir, &new(mode::REG | 0o600)))?
        .ino;
    let open = InodeId { ino: open, ..dir };
    s.step(|fs| fill(fs, open, &pattern(6000, 5)))?;
    s.commit()?;

    s.evict(InodeId { ino: gone, ..snap })?;
    s.evict(open)?;
    let whiteout = new(mode::CHR);
    let (from, to) = (end(ROOT, b"moved"), end(dir, b"again"));
    s.numbered(dir.tree, |fs| {
        rename(fs, from, to, RenameMode::Whiteout(&whiteout), now)
    })?;
    s.step(|fs| set_xattr(fs, a, b"user.x", None, XattrMode::Set, now))?;
    s.step(|fs| subvolume::set_read_only(fs, snap.tree, true))?;
    s.freeing(|fs| delete_subvolume(fs, dir, b"sub", now))?;
    s.commit()?;

    s.take((StepKind::Several, true), |fs| {
        clean_subvolumes(fs, &|_| true, &|| false)
    })?;
    for name in [&b"again"[..], b"large", b"symlink"] {
        let gone = s.freeing(|fs| unlink(fs, dir, name, now))?;
        if gone.item.nlink.get() == 0 {
            s.evict(InodeId {
                ino: gone.ino,
                ..dir
            })?;
        }
    }
    s.freeing(|fs| rmdir(fs, ROOT, b"dir", now))?;
    s.evict(dir)?;
    s.commit()
}

/// What is in all subvolumes, but for addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// What can be seen.
    pub seen: Vec<(u64, Subvolume)>,
    /// All items, as one number for each tree.
    items: Vec<(u64, u64)>,
    /// The same but for how often inodes were changed.
    uncounted: Vec<(u64, u64)>,
}

/// What can be seen of all subvolumes as the volume is now.
pub fn seen(fs: &Fs) -> Vec<(u64, Subvolume)> {
    let (mut seen, mut todo) = (vec![], vec![tree_id::FS]);
    while let Some(tree) = todo.pop() {
        let subvolume = load(fs, tree).unwrap();
        for object in subvolume.values() {
            if let Kind::Dir(entries) = &object.kind {
                todo.extend(entries.values().filter_map(|target| match target {
                    Target::Subvolume(tree) if *tree != 2 => Some(*tree),
                    _ => None,
                }));
            }
        }
        seen.push((tree, subvolume));
    }
    seen
}

/// As the volume is now.
pub fn contents(fs: &Fs) -> Contents {
    let seen = seen(fs);
    let of_each = |counted| {
        let of = |(tree, _): &(u64, Subvolume)| (*tree, items(fs, *tree, counted));
        seen.iter().map(of).collect()
    };
    Contents {
        items: of_each(true),
        uncounted: of_each(false),
        seen,
    }
}

fn items(fs: &Fs, tree: u64, counted: bool) -> u64 {
    let view = fs.running_view(tree).unwrap();
    let mut cursor = Cursor::new(&view, view.tree_root(tree).unwrap());
    cursor.seek(&Key::MIN).unwrap();
    let mut hasher = DefaultHasher::new();
    while let Some((key, bytes)) = cursor.item() {
        if key.typ == item_type::INODE_ITEM && !counted {
            let mut item: InodeItem = format::read(bytes).unwrap();
            item.sequence = 0.into();
            hash_item(&mut hasher, &key, item.as_bytes());
        } else {
            hash_item(&mut hasher, &key, bytes);
        }
        cursor.next().unwrap();
    }
    hasher.finish()
}

/// How many bytes of the volume are allocated now.
pub fn used(fs: &Fs) -> u64 {
    let mut used = 0;
    let looked = fs.operate(Reserve::default(), |trans| {
        let groups = trans.space().block_groups().iter();
        used = groups.map(|group| group.used() + group.reserved()).sum();
        Err::<(), _>(ECANCELED)
    });
    assert_eq!(looked, Err(ECANCELED));
    used
}

impl Contents {
    /// Asserts that nothing differs, and says what does.
    #[track_caller]
    pub fn assert_is(&self, wanted: &Contents, what: &str) {
        self.assert_is_alike(wanted, what);
        assert!(self.items == wanted.items, "{what}: items differ");
    }

    /// As [`Self::assert_is`], but for how often inodes were changed: some operations were done
    /// twice.
    #[track_caller]
    pub fn assert_is_alike(&self, wanted: &Contents, what: &str) {
        if (&self.seen, &self.uncounted) == (&wanted.seen, &wanted.uncounted) {
            return;
        }
        let trees =
            |contents: &Contents| contents.items.iter().map(|(t, _)| *t).collect::<Vec<_>>();
        assert_eq!(trees(self), trees(wanted), "{what}");
        for ((tree, found), (_, wanted)) in self.seen.iter().zip(&wanted.seen) {
            for (ino, object) in found {
                let wanted = wanted.get(ino);
                assert!(wanted == Some(object), "{what}: {tree}/{ino}: {wanted:?}");
            }
            let missing = wanted.keys().find(|ino| !found.contains_key(ino));
            assert_eq!(missing, None, "{what}: in {tree}");
        }
        panic!("{what}: items differ");
    }
}

/// What a run of the script without a fault makes of a volume.
#[derive(Default)]
pub struct Run {
    /// What the volume holds before each step.
    pub before: Vec<Contents>,
    /// How many bytes are in use then, or kept for something.
    pub used_before: Vec<u64>,
    pub steps: Vec<Step>,
    /// What the commits hold, by generation.
    commits: BTreeMap<u64, Contents>,
    /// The step before which a number is taken that nothing uses.
    skips: Option<usize>,
}

impl Watch for Run {
    fn before(&mut self, fs: &Fs, step: Step) {
        match step.kind {
            StepKind::Numbered(tree) if self.skips == Some(step.number) => {
                let skip = fs.operate(Reserve::default(), |trans| {
                    trans.next_objectid(tree)?;
                    Err::<(), _>(ECANCELED)
                });
                assert_eq!(skip, Err(ECANCELED));
            }
            _ => assert!(self.skips != Some(step.number)),
        }
        self.before.push(contents(fs));
        self.used_before.push(used(fs));
        self.steps.push(step);
    }

    fn committed(&mut self, fs: &Fs) {
        self.commits.insert(fs.generation(), contents(fs));
    }
}

impl Run {
    /// Runs the script.
    pub fn of(start: &MemDevice) -> Self {
        Run::skipping(start, None)
    }

    /// Runs the script, with a number of the tree taken before the step `skips`, as a failed
    /// attempt of it does.
    pub fn skipping(start: &MemDevice, skips: Option<usize>) -> Self {
        kernel::platform::clock::stop();
        let fs = open(&share(start.clone())).unwrap();
        let mut run = Run {
            skips,
            ..Run::default()
        };
        run.committed(&fs);
        script(&fs, &mut run).unwrap();
        assert_eq!(run.commits.len(), 6);
        run
    }

    /// The contents of the last commit.
    pub fn last(&self) -> &Contents {
        self.commits.values().next_back().unwrap()
    }

    /// Asserts that a volume, as mounted, is what one of the commits made it. The cleaner, which
    /// changes nothing that can be seen, may have made one of its own.
    #[track_caller]
    pub fn assert_committed(&self, fs: &Fs) {
        let generation = fs.generation();
        let wanted = self.commits.range(..=generation).next_back();
        let (_, wanted) = wanted.expect("a generation before the first");
        contents(fs).assert_is(wanted, &format!("generation {generation}"));
    }
}
