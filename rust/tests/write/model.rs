// SPDX-License-Identifier: GPL-2.0
//! Random operations, done to a volume and to a model of it.

use crate::files::*;
use kernel::prelude::*;
use rbtrfs_engine::format::dir::file_type;
use rbtrfs_engine::format::{item_type, tree_id};
use rbtrfs_engine::subvol::subvolume::{self, *};
use rbtrfs_engine::subvol::write::*;
use rbtrfs_engine::subvol::{dir, inode, xattr};
use rbtrfs_engine::trans::View;
use rbtrfs_engine::volume::Fs;
use std::collections::BTreeMap;
use std::path::Path;
use std::string::String;
use std::vec::Vec;

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Inode(u64),
    Subvolume(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File(Vec<u8>),
    Dir(BTreeMap<String, Target>),
    Link(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub kind: Kind,
    pub nlink: u32,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// The inodes of a subvolume that have names, or are open.
pub type Subvolume = BTreeMap<u64, Object>;

#[derive(Clone)]
pub struct Model {
    pub subvolumes: BTreeMap<u64, Subvolume>,
    pub read_only: Vec<u64>,
    /// Where each subvolume hangs; any other entry for it is a stand-in.
    places: BTreeMap<u64, (InodeId, String)>,
    /// Names, so that none is used twice by chance.
    count: u64,
    /// Some names are used again and again: an operation may find that its name is taken, which
    /// changes nothing.
    pub reuse_names: bool,
    random: u64,
}

const ROOT_INO: u64 = 256;

fn dir_object() -> Object {
    Object {
        kind: Kind::Dir(BTreeMap::new()),
        nlink: 1,
        xattrs: BTreeMap::new(),
    }
}

/// Reads a subvolume as it is now.
pub fn load(fs: &Fs, tree: u64) -> Result<Subvolume> {
    let mut found = Subvolume::new();
    let mut todo = vec![ROOT_INO];
    while let Some(ino) = todo.pop() {
        if found.contains_key(&ino) {
            continue;
        }
        let view = fs.running_view(tree)?;
        let root = view.tree_root(tree)?;
        let item = inode::read(&view, root, ino)?;
        let mut xattrs = BTreeMap::new();
        xattr::for_each(&view, root, ino, &mut |entry| {
            let name = String::from_utf8(entry.name.to_vec()).unwrap();
            xattrs.insert(name, entry.value.to_vec());
            Ok(true)
        })?;
        let kind = match item.mode.get() & mode::FMT {
            mode::DIR => {
                let (mut entries, mut size) = (BTreeMap::new(), 0);
                dir::iterate(&view, root, ino, 0, &mut |_, entry| {
                    let name = String::from_utf8(entry.name.to_vec()).unwrap();
                    size += 2 * name.len() as u64;
                    let by_name = dir::lookup(&view, root, ino, entry.name)?.unwrap();
                    assert_eq!(by_name.location, entry.location, "{name}");
                    let target = if entry.location.typ == item_type::ROOT_ITEM {
                        assert_eq!(entry.typ, file_type::DIR);
                        Target::Subvolume(entry.location.objectid)
                    } else {
                        todo.push(entry.location.objectid);
                        Target::Inode(entry.location.objectid)
                    };
                    assert_eq!(entries.insert(name, target), None);
                    Ok(true)
                })?;
                assert_eq!(size, item.size.get(), "size of {tree}/{ino}");
                Kind::Dir(entries)
            }
            _ => {
                drop(view);
                let data = read(fs, InodeId { tree, ino })?;
                if item.mode.get() & mode::FMT == mode::LNK {
                    Kind::Link(data)
                } else {
                    Kind::File(data)
                }
            }
        };
        let nlink = item.nlink.get();
        found.insert(
            ino,
            Object {
                kind,
                nlink,
                xattrs,
            },
        );
    }
    Ok(found)
}

impl Model {
    /// The model of what is on a volume.
    pub fn new(fs: &Fs, seed: u64) -> Model {
        let top = load(fs, tree_id::FS).unwrap();
        Model {
            subvolumes: BTreeMap::from([(tree_id::FS, top)]),
            read_only: vec![],
            places: BTreeMap::new(),
            count: 0,
            reuse_names: false,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as usize % n.max(1)
    }

    fn name(&mut self) -> String {
        self.count += 1;
        if self.reuse_names && self.below(2) == 0 {
            return format!("again{}", self.below(6));
        }
        let long = if self.below(8) == 0 { 180 } else { 0 };
        let rest = "x".repeat(self.below(long + 6));
        format!("n{}{rest}", self.count)
    }

    /// A subvolume that can be changed.
    fn tree(&mut self) -> u64 {
        let trees: Vec<u64> = self
            .subvolumes
            .keys()
            .copied()
            .filter(|tree| !self.read_only.contains(tree))
            .collect();
        trees[self.below(trees.len())]
    }

    fn pick(&mut self, tree: u64, want: impl Fn(&Object) -> bool) -> Option<InodeId> {
        let inos: Vec<u64> = self.subvolumes[&tree]
            .iter()
            .filter(|(_, object)| object.nlink > 0 && want(object))
            .map(|(ino, _)| *ino)
            .collect();
        (!inos.is_empty()).then(|| InodeId {
            tree,
            ino: inos[self.below(inos.len())],
        })
    }

    /// A file, or one time in four a directory.
    pub fn pick_to_sync(&mut self) -> InodeId {
        let tree = self.tree();
        let file = match self.below(4) {
            0 => None,
            _ => self.pick_file(tree),
        };
        file.unwrap_or_else(|| self.pick_dir(tree))
    }

    fn pick_dir(&mut self, tree: u64) -> InodeId {
        self.pick(tree, |o| matches!(o.kind, Kind::Dir(_))).unwrap()
    }

    fn pick_file(&mut self, tree: u64) -> Option<InodeId> {
        self.pick(tree, |o| matches!(o.kind, Kind::File(_)))
    }

    fn object(&mut self, id: InodeId) -> &mut Object {
        let subvolume = self.subvolumes.get_mut(&id.tree).unwrap();
        subvolume.get_mut(&id.ino).unwrap()
    }

    fn entries(&mut self, id: InodeId) -> &mut BTreeMap<String, Target> {
        match &mut self.object(id).kind {
            Kind::Dir(entries) => entries,
            kind => panic!("{kind:?}"),
        }
    }

    fn data(&mut self, id: InodeId) -> &mut Vec<u8> {
        match &mut self.object(id).kind {
            Kind::File(data) => data,
            kind => panic!("{kind:?}"),
        }
    }

    fn pick_entry(&mut self, tree: u64) -> Option<(InodeId, String, Target)> {
        let dir = self.pick(tree, |o| matches!(&o.kind, Kind::Dir(e) if !e.is_empty()))?;
        let n = self.entries(dir).len();
        let n = self.below(n);
        let (name, target) = self.entries(dir).iter().nth(n).unwrap();
        Some((dir, name.clone(), *target))
    }

    /// Whether `dir` is `ino` or below it.
    fn is_below(&self, dir: InodeId, ino: u64) -> bool {
        let subvolume = &self.subvolumes[&dir.tree];
        let mut todo = vec![ino];
        while let Some(at) = todo.pop() {
            if at == dir.ino {
                return true;
            }
            if let Some(Kind::Dir(entries)) = subvolume.get(&at).map(|o| &o.kind) {
                todo.extend(entries.values().filter_map(|target| match target {
                    Target::Inode(ino) => Some(*ino),
                    Target::Subvolume(_) => None,
                }));
            }
        }
        false
    }

    fn unlinked(&mut self, fs: &Fs, id: InodeId) -> Result {
        let object = self.object(id);
        object.nlink -= 1;
        if object.nlink == 0 {
            // Some are open for a while: until the next mount.
            if self.below(3) != 0 {
                evict(fs, id)?;
                self.subvolumes.get_mut(&id.tree).unwrap().remove(&id.ino);
            }
        }
        Ok(())
    }

    /// Forgets what was open, as a mount does.
    pub fn remounted(&mut self) {
        for subvolume in self.subvolumes.values_mut() {
            subvolume.retain(|_, object| object.nlink > 0);
        }
    }

    /// Does something. Errors are those of the volume; the model is what it was before then.
    pub fn step(&mut self, fs: &Fs) -> Result {
        let tree = self.tree();
        match self.below(32) {
            0..=3 => self.create_file(fs, tree),
            4 => self.make_dir(fs, tree),
            5 => self.make_link(fs, tree),
            6..=7 => self.unlink(fs, tree),
            8 => self.hard_link(fs, tree),
            9..=11 => self.rename(fs, tree),
            12..=16 => self.overwrite(fs, tree),
            17..=18 => self.truncate(fs, tree),
            19 => self.punch(fs, tree),
            20 => self.preallocate(fs, tree),
            21..=23 => self.clone_range(fs, tree),
            24..=25 => self.set_xattr(fs, tree),
            26 => self.new_subvolume(fs, tree),
            27 => self.snapshot(fs, tree),
            28 => self.delete_subvolume(fs, tree),
            29 => self.temporary(fs, tree),
            30 => fs.commit(),
            _ => {
                let mut left = 2;
                let stop = std::cell::RefCell::new(&mut left);
                clean_subvolumes(fs, &|_| true, &|| {
                    **stop.borrow_mut() -= 1;
                    **stop.borrow() == 0
                })?;
                Ok(())
            }
        }
    }

    fn insert(&mut self, dir: InodeId, name: String, ino: u64, kind: Kind) {
        self.entries(dir).insert(name, Target::Inode(ino));
        let object = Object {
            kind,
            nlink: 1,
            xattrs: BTreeMap::new(),
        };
        let subvolume = self.subvolumes.get_mut(&dir.tree).unwrap();
        subvolume.insert(ino, object);
    }

    fn create_file(&mut self, fs: &Fs, tree: u64) -> Result {
        let (dir, name) = (self.pick_dir(tree), self.name());
        let len = match self.below(4) {
            0 => self.below(MAX_INLINE + 1),
            1 => self.below(100_000),
            _ => self.below(20_000),
        };
        let data = pattern(len, self.count);
        let id = file(fs, dir, &name)?;
        self.insert(dir, name, id.ino, Kind::File(vec![]));
        fill(fs, id, &data)?;
        *self.data(id) = data;
        Ok(())
    }

    fn make_dir(&mut self, fs: &Fs, tree: u64) -> Result {
        let (dir, name) = (self.pick_dir(tree), self.name());
        let id = mkdir(fs, dir, &name)?;
        self.insert(dir, name, id.ino, dir_object().kind);
        Ok(())
    }

    fn make_link(&mut self, fs: &Fs, tree: u64) -> Result {
        let (dir, name) = (self.pick_dir(tree), self.name());
        let target = vec![b'l'; 1 + self.below(300)];
        let link = NewInode {
            target: &target,
            ..new(mode::LNK | 0o777)
        };
        let made = create(fs, dir, name.as_bytes(), &link)?;
        self.insert(dir, name, made.ino, Kind::Link(target));
        Ok(())
    }

    fn unlink(&mut self, fs: &Fs, tree: u64) -> Result {
        let Some((dir, name, target)) = self.pick_entry(tree) else {
            return Ok(());
        };
        let Target::Inode(ino) = target else {
            // A subvolume has its own way to go; that of a stand-in is this.
            let Target::Subvolume(child) = target else {
                unreachable!()
            };
            let here = self.hangs_at(child, dir, &name);
            let result = rmdir(fs, dir, name.as_bytes(), now());
            if here {
                assert_eq!(result.err(), Some(EPERM));
            } else {
                result?;
                self.entries(dir).remove(&name);
            }
            return Ok(());
        };
        let id = InodeId { tree, ino };
        if let Kind::Dir(entries) = &self.object(id).kind {
            let empty = entries.is_empty();
            assert_eq!(
                unlink(fs, dir, name.as_bytes(), now()).err(),
                Some(EISDIR),
                "{name}"
            );
            let result = rmdir(fs, dir, name.as_bytes(), now());
            if !empty {
                assert_eq!(result.err(), Some(ENOTEMPTY), "{name}");
                return Ok(());
            }
            result?;
        } else {
            unlink(fs, dir, name.as_bytes(), now())?;
        }
        self.entries(dir).remove(&name);
        self.unlinked(fs, id)
    }

    fn hangs_at(&self, child: u64, dir: InodeId, name: &str) -> bool {
        let place = self.places.get(&child);
        place.is_some_and(|(at, as_name)| *at == dir && as_name == name)
    }

    fn hard_link(&mut self, fs: &Fs, tree: u64) -> Result {
        let (Some(id), dir, name) = (self.pick_file(tree), self.pick_dir(tree), self.name()) else {
            return Ok(());
        };
        let linked = link(fs, id.ino, dir, name.as_bytes(), now())?;
        self.entries(dir).insert(name, Target::Inode(id.ino));
        self.object(id).nlink += 1;
        assert_eq!(linked.item.nlink.get(), self.object(id).nlink);
        Ok(())
    }

    fn is_dir(&mut self, tree: u64, target: Target) -> bool {
        match target {
            Target::Subvolume(_) => true,
            Target::Inode(ino) => matches!(self.object(InodeId { tree, ino }).kind, Kind::Dir(_)),
        }
    }

    /// Whether subvolume `child` is `tree` or holds it.
    fn holds(&self, child: u64, mut tree: u64) -> bool {
        loop {
            if tree == child {
                return true;
            }
            match self.places.get(&tree) {
                Some((dir, _)) => tree = dir.tree,
                None => return false,
            }
        }
    }

    fn rename(&mut self, fs: &Fs, tree: u64) -> Result {
        let Some((from, old, source)) = self.pick_entry(tree) else {
            return Ok(());
        };
        let to_tree = match source {
            Target::Subvolume(_) => self.tree(),
            Target::Inode(_) => tree,
        };
        let mut to = self.pick_dir(to_tree);
        let mut new = self.name();
        if self.below(2) == 0 {
            if let Some((dir, name, _)) = self.pick_entry(to_tree) {
                (to, new) = (dir, name);
            }
        }
        let target = self.entries(to).get(&new).copied();
        // The VFS keeps directories from moving below themselves.
        let loops = |model: &Model, what: Target, dir: InodeId| match what {
            Target::Inode(ino) => model.is_below(dir, ino),
            Target::Subvolume(child) => model.holds(child, dir.tree),
        };
        if loops(self, source, to) {
            return Ok(());
        }
        let mode = match self.below(4) {
            0 => RenameMode::NoReplace,
            1 => RenameMode::Exchange,
            _ => RenameMode::Replace,
        };
        if let (Some(target), RenameMode::Exchange) = (target, mode) {
            if loops(self, target, from) {
                return Ok(());
            }
        }
        let stands_in = |model: &Model, what: Target, dir: InodeId, name: &str| match what {
            Target::Subvolume(child) => !model.hangs_at(child, dir, name),
            Target::Inode(_) => false,
        };
        let wanted = if stands_in(self, source, from, &old) {
            Some(EPERM)
        } else {
            match (target, mode) {
                (Some(_), RenameMode::NoReplace) => Some(EEXIST),
                (None, RenameMode::Exchange) => Some(ENOENT),
                (Some(target), _) if target == source && tree == to_tree => None,
                (Some(target), RenameMode::Exchange) => {
                    let foreign = matches!(target, Target::Inode(_)) && tree != to_tree;
                    if stands_in(self, target, to, &new) {
                        Some(EPERM)
                    } else {
                        foreign.then_some(EXDEV)
                    }
                }
                (Some(Target::Subvolume(_)), _) => Some(ENOTEMPTY),
                (Some(target @ Target::Inode(ino)), _) => {
                    let id = InodeId { tree: to_tree, ino };
                    match (self.is_dir(tree, source), self.is_dir(to_tree, target)) {
                        (true, false) => Some(ENOTDIR),
                        (false, true) => Some(EISDIR),
                        (true, true) if !self.entries(id).is_empty() => Some(ENOTEMPTY),
                        _ => None,
                    }
                }
                (None, _) => None,
            }
        };
        let (a, b) = (
            RenameEnd {
                dir: from,
                name: old.as_bytes(),
            },
            RenameEnd {
                dir: to,
                name: new.as_bytes(),
            },
        );
        let result = rename(fs, a, b, mode, now());
        if let Some(wanted) = wanted {
            assert_eq!(result.err(), Some(wanted), "{old} to {new}");
            return Ok(());
        }
        let renamed = result?;
        if target == Some(source) && tree == to_tree {
            return Ok(());
        }
        let exchange = matches!(mode, RenameMode::Exchange);
        self.entries(from).remove(&old);
        self.entries(to).insert(new.clone(), source);
        if let Target::Subvolume(child) = source {
            self.places.insert(child, (to, new.clone()));
        }
        match target {
            Some(target) if exchange => {
                self.entries(from).insert(old.clone(), target);
                if let Target::Subvolume(child) = target {
                    self.places.insert(child, (from, old));
                }
            }
            Some(Target::Inode(ino)) => {
                assert_eq!(renamed.replaced.unwrap().0, ino);
                self.unlinked(fs, InodeId { tree: to_tree, ino })?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes the sectors of a file that a change of `from..to` touches, as the model has them.
    fn write_back(&mut self, fs: &Fs, id: InodeId, from: usize, to: usize) -> Result {
        let data = self.data(id).clone();
        if self.below(2) == 0 && fill_inline(fs, id, &data)? {
            return Ok(());
        }
        let start = from - from % SECTOR as usize;
        let end = to.next_multiple_of(SECTOR as usize);
        let mut bytes = data;
        let size = bytes.len() as u64;
        bytes.resize(bytes.len().max(end), 0);
        let len = match self.below(3) {
            0 => SECTOR as usize,
            _ => end - start,
        };
        let starts = (start as u64..).step_by(len.max(1));
        let pieces: Vec<_> = starts.zip(bytes[start..end].chunks(len.max(1))).collect();
        write_pieces(fs, id, &pieces, size)
    }

    fn overwrite(&mut self, fs: &Fs, tree: u64) -> Result {
        let Some(id) = self.pick_file(tree) else {
            return Ok(());
        };
        let size = self.data(id).len();
        let from = self.below(size + 20_000);
        let to = from + 1 + self.below(30_000);
        let new = pattern(to - from, self.random);
        let old = self.data(id).clone();
        let data = self.data(id);
        data.resize(size.max(to), 0);
        data[from..to].copy_from_slice(&new);
        let mut written = self.write_back(fs, id, from, to);
        if from > size && written.is_ok() {
            written = self.write_tail(fs, id, size);
        }
        if written.is_err() {
            *self.data(id) = old;
        }
        written
    }

    fn truncate(&mut self, fs: &Fs, tree: u64) -> Result {
        let Some(id) = self.pick_file(tree) else {
            return Ok(());
        };
        let old = self.data(id).len();
        let size = self.below(old * 3 / 2 + 5000);
        truncate(fs, id, size as u64, now())?;
        self.data(id).resize(size, 0);
        self.write_tail(fs, id, size.min(old))
    }

    /// Writes the sector that a file ended in before it grew, or ends in since it shrank, as the
    /// VFS does when it has set the rest of the page to zeros.
    fn write_tail(&mut self, fs: &Fs, id: InodeId, end: usize) -> Result {
        if end % SECTOR as usize == 0 {
            return Ok(());
        }
        self.write_back(fs, id, end, end)
    }

    fn sectors(&mut self, most: usize) -> (usize, usize) {
        let sector = SECTOR as usize;
        let from = self.below(most / sector + 2);
        let len = 1 + self.below(8);
        (from * sector, (from + len) * sector)
    }

    fn punch(&mut self, fs: &Fs, tree: u64) -> Result {
        let Some(id) = self.pick_file(tree) else {
            return Ok(());
        };
        let size = self.data(id).len();
        let (from, to) = self.sectors(size);
        punch(fs, id, from as u64, to as u64, now())?;
        if from < size {
            self.data(id)[from..to.min(size)].fill(0);
        }
        Ok(())
    }

    fn preallocate(&mut self, fs: &Fs, tree: u64) -> Result {
        let Some(id) = self.pick_file(tree) else {
            return Ok(());
        };
        let size = self.data(id).len();
        let (from, to) = self.sectors(size);
        let grown = if self.below(2) == 0 { size } else { to };
        preallocate(fs, id, from as u64, to as u64, grown as u64, now())?;
        self.data(id).resize(size.max(grown), 0);
        if grown > size {
            self.write_tail(fs, id, size)?;
        }
        Ok(())
    }

    fn clone_range(&mut self, fs: &Fs, tree: u64) -> Result {
        let other = self.tree();
        let (Some(src), Some(dst)) = (self.pick_file(other), self.pick_file(tree)) else {
            return Ok(());
        };
        let sector = SECTOR as usize;
        let data = self.data(src).clone();
        let size = self.data(dst).len();
        let (from, mut to) = self.sectors(data.len());
        let (mut at, _) = self.sectors(size);
        if self.below(3) == 0 {
            (to, at) = (data.len(), 0);
        }
        to = to.min(data.len());
        if to % sector != 0 && at + (to - from.min(to)) < size {
            to -= to % sector;
        }
        if from >= to {
            return Ok(());
        }
        let len = to - from;
        let whole = len.next_multiple_of(sector);
        if src == dst && from < at + whole && at < from + whole {
            return Ok(());
        }
        let range = CloneRange {
            src,
            src_offset: from as u64,
            len: whole as u64,
            dst,
            dst_offset: at as u64,
            dst_size: size.max(at + len) as u64,
        };
        clone_range(fs, &range, Some(now()))?;
        let new = self.data(dst);
        new.resize(size.max(at + len), 0);
        new[at..at + len].copy_from_slice(&data[from..to]);
        if at > size {
            self.write_tail(fs, dst, size)?;
        }
        Ok(())
    }

    fn set_xattr(&mut self, fs: &Fs, tree: u64) -> Result {
        let id = self
            .pick(tree, |o| !matches!(o.kind, Kind::Link(_)))
            .unwrap();
        let name = format!("user.{}", self.below(5));
        if self.below(3) == 0 {
            let there = self.object(id).xattrs.remove(&name).is_some();
            let done = set_xattr(fs, id, name.as_bytes(), None, XattrMode::Set, now());
            if there {
                done?;
            } else {
                assert_eq!(done.err(), Some(ENODATA));
            }
            return Ok(());
        }
        let value = pattern(self.below(3000), self.random);
        let (len, there) = (value.len(), self.object(id).xattrs.contains_key(&name));
        let xattr_mode = if there {
            XattrMode::Replace
        } else {
            XattrMode::Create
        };
        set_xattr(fs, id, name.as_bytes(), Some(&value), xattr_mode, now())?;
        assert_eq!(value.len(), len);
        self.object(id).xattrs.insert(name, value);
        Ok(())
    }

    fn uuid(&mut self) -> [u8; 16] {
        let mut uuid = [0xab; 16];
        uuid[..8].copy_from_slice(&self.random.to_le_bytes());
        uuid[8..].copy_from_slice(&self.count.to_le_bytes());
        uuid
    }

    fn enter(&mut self, dir: InodeId, name: String, tree: u64, contents: Subvolume) {
        self.subvolumes.insert(tree, contents);
        self.places.insert(tree, (dir, name.clone()));
        self.entries(dir).insert(name, Target::Subvolume(tree));
    }

    fn new_subvolume(&mut self, fs: &Fs, tree: u64) -> Result {
        let (dir, name) = (self.pick_dir(tree), self.name());
        let new = NewSubvolume {
            uuid: self.uuid(),
            uid: 0,
            gid: 0,
            mode: 0o755,
            now: now(),
        };
        let made = create_subvolume(fs, dir, name.as_bytes(), &new)?;
        let contents = Subvolume::from([(ROOT_INO, dir_object())]);
        self.enter(dir, name, made.tree, contents);
        Ok(())
    }

    fn snapshot(&mut self, fs: &Fs, tree: u64) -> Result {
        let (dir, name) = (self.pick_dir(tree), self.name());
        let n = self.below(self.subvolumes.len());
        let source = *self.subvolumes.keys().nth(n).unwrap();
        let read_only = self.below(3) == 0;
        let new = NewSnapshot {
            uuid: self.uuid(),
            read_only,
            now: now(),
        };
        let made = subvolume::snapshot(fs, source, dir, name.as_bytes(), &new)?;
        // The snapshot is taken before it gets its name.
        let mut contents = self.subvolumes[&source].clone();
        contents.retain(|_, object| object.nlink > 0);
        self.enter(dir, name, made.tree, contents);
        if read_only {
            self.read_only.push(made.tree);
        }
        if self.below(2) == 0 {
            clean_orphans(fs, made.tree)?;
        }
        Ok(())
    }

    fn delete_subvolume(&mut self, fs: &Fs, tree: u64) -> Result {
        if tree == tree_id::FS && self.below(4) != 0 {
            return Ok(());
        }
        let child = match self.below(2) {
            0 => tree,
            _ => {
                let n = self.below(self.subvolumes.len());
                *self.subvolumes.keys().nth(n).unwrap()
            }
        };
        let Some((dir, name)) = self.places.get(&child).cloned() else {
            return Ok(());
        };
        let nested = self.places.values().any(|(dir, _)| dir.tree == child);
        let result = delete_subvolume(fs, dir, name.as_bytes(), now());
        if self.read_only.contains(&dir.tree) {
            assert_eq!(result.err(), Some(EROFS));
        } else if nested {
            assert_eq!(result.err(), Some(ENOTEMPTY));
        } else {
            assert_eq!(result?.tree, child);
            self.entries(dir).remove(&name);
            self.places.remove(&child);
            self.subvolumes.remove(&child);
            self.read_only.retain(|tree| *tree != child);
        }
        Ok(())
    }

    fn temporary(&mut self, fs: &Fs, tree: u64) -> Result {
        let (dir, name) = (self.pick_dir(tree), self.name());
        let made = tmpfile(fs, dir, &new(mode::REG | 0o600))?;
        let id = InodeId {
            tree,
            ino: made.ino,
        };
        let data = pattern(self.below(9000), self.random);
        fill(fs, id, &data)?;
        if self.below(2) == 0 {
            link(fs, id.ino, dir, name.as_bytes(), now())?;
            self.insert(dir, name, id.ino, Kind::File(data));
        } else if self.below(2) == 0 {
            evict(fs, id)?;
        }
        Ok(())
    }

    /// Holds all of the volume against the model.
    #[track_caller]
    pub fn assert_same(&self, fs: &Fs) {
        for (tree, wanted) in &self.subvolumes {
            let found = load(fs, *tree).unwrap();
            let mut wanted = wanted.clone();
            wanted.retain(|_, object| object.nlink > 0);
            for (ino, object) in &wanted {
                let found = found.get(ino);
                assert!(
                    found == Some(object),
                    "{tree}/{ino}: {}",
                    differ(found, object)
                );
            }
            assert_eq!(found.len(), wanted.len(), "inodes of {tree}");
        }
    }

    /// Does what a mount does for every subvolume, in the course of time.
    pub fn clean(&self, fs: &Fs) -> Result {
        for tree in self.subvolumes.keys() {
            clean_orphans(fs, *tree)?;
        }
        Ok(())
    }

    /// Holds a mounted volume against the model.
    pub fn assert_mounted(&self, path: &Path) {
        self.assert_mounted_dir(path, tree_id::FS, ROOT_INO);
    }

    fn assert_mounted_dir(&self, path: &Path, tree: u64, ino: u64) {
        let Kind::Dir(entries) = &self.subvolumes[&tree][&ino].kind else {
            panic!("{path:?}");
        };
        assert_eq!(
            std::fs::read_dir(path).unwrap().count(),
            entries.len(),
            "{path:?}"
        );
        for (name, target) in entries {
            let path = path.join(name);
            match target {
                Target::Subvolume(child) => {
                    let dir = InodeId { tree, ino };
                    if self.hangs_at(*child, dir, name) {
                        self.assert_mounted_dir(&path, *child, ROOT_INO);
                    } else {
                        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
                    }
                }
                Target::Inode(ino) => match &self.subvolumes[&tree][ino].kind {
                    Kind::File(data) => {
                        assert!(std::fs::read(&path).unwrap() == *data, "{path:?}");
                    }
                    Kind::Link(target) => {
                        use std::os::unix::ffi::OsStrExt;
                        let found = std::fs::read_link(&path).unwrap();
                        assert_eq!(found.as_os_str().as_bytes(), &target[..], "{path:?}");
                    }
                    Kind::Dir(_) => self.assert_mounted_dir(&path, tree, *ino),
                },
            }
        }
    }
}

fn differ(found: Option<&Object>, wanted: &Object) -> String {
    match (found.map(|o| &o.kind), &wanted.kind) {
        (Some(Kind::File(a)), Kind::File(b)) => {
            let at = a.iter().zip(b).position(|(a, b)| a != b);
            let (a, b) = (a.len(), b.len());
            format!("{a} bytes for {b}, different from {at:?} on")
        }
        _ => format!("{found:?} for {wanted:?}"),
    }
}
