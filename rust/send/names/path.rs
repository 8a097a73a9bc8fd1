// SPDX-License-Identifier: GPL-2.0
//! Paths: what an inode is called at the point that the stream has reached.
//!
//! Inodes are sent in the order of their numbers, and those below [`Send::progress`] have their
//! names. A path goes through the first name of each directory up to the top; a
//! directory that has not got its name yet is found at the top under its orphan name. So a path
//! either is final, or holds until the one such directory on it is reached.

use crate::format::dir::NAME_LEN;
use crate::format::inode::InodeItem;
use crate::format::{self, item_type, objectid, Key};
use crate::fs_err;
use crate::send::full::Send;
use crate::send::lookup::Finder;
use crate::subvol::inode::names_of_item;
use kernel::prelude::*;

/// The longest path in bytes, as the C driver has it: `PATH_MAX` less the final zero.
const MAX: usize = 4095;

/// Directories remembered, a power of two.
const DIRS: usize = 4096;

/// Bytes of paths remembered at most.
const MAX_CACHED: usize = 4 << 20;

/// A path from the top of the subvolume, which itself is the empty path.
pub(in crate::send) struct FsPath {
    bytes: KVec<u8>,
}

impl FsPath {
    pub(in crate::send) fn new() -> Result<Self> {
        Ok(FsPath {
            bytes: KVec::with_capacity(256, GFP_KERNEL)?,
        })
    }

    /// The empty path, without memory of its own.
    pub(in crate::send) const fn empty() -> Self {
        FsPath { bytes: KVec::new() }
    }

    pub(in crate::send) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(in crate::send) fn clear(&mut self) {
        self.bytes.clear();
    }

    pub(in crate::send) fn set(&mut self, bytes: &[u8]) -> Result {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes, GFP_KERNEL)?;
        Ok(())
    }

    /// Goes down to `name`.
    ///
    /// # Errors
    ///
    /// `ENAMETOOLONG`, `ENOMEM`.
    pub(in crate::send) fn push(&mut self, name: &[u8]) -> Result {
        self.check_path_length(name)?;
        if !self.bytes.is_empty() {
            self.bytes.push(b'/', GFP_KERNEL)?;
        }
        self.bytes.extend_from_slice(name, GFP_KERNEL)?;
        Ok(())
    }

    /// # Errors
    ///
    /// `ENAMETOOLONG` if [`FsPath::push`] would not have space for `name`.
    pub(in crate::send) fn check_path_length(&self, name: &[u8]) -> Result {
        let slash = usize::from(!self.bytes.is_empty());
        let len = self.bytes.len().saturating_add(name.len());
        if len.saturating_add(slash) > MAX {
            return Err(ENAMETOOLONG);
        }
        Ok(())
    }

    /// Goes down through names that were listed from the bottom up by [`push_name`].
    pub(in crate::send) fn push_names(&mut self, names: &[u8]) -> Result {
        let mut rest = names;
        while let Some((len, before)) = rest.split_last() {
            let at = before.len().saturating_sub(usize::from(*len));
            let (before, name) = before.split_at_checked(at).ok_or(EINVAL)?;
            self.push(name)?;
            rest = before;
        }
        Ok(())
    }
}

/// Appends `name` to a list of names from the bottom to the top, for [`FsPath::push_names`].
///
/// # Errors
///
/// `ENAMETOOLONG` when the names make more than a path, which a loop of directories comes to;
/// `ENOMEM`.
pub(in crate::send) fn push_name(names: &mut KVec<u8>, name: &[u8]) -> Result {
    // Each name's length takes a byte after it, like a slash in a path.
    if names.len().saturating_add(name.len()) > MAX {
        return Err(ENAMETOOLONG);
    }
    let len = u8::try_from(name.len()).map_err(|_| ENAMETOOLONG)?;
    names.extend_from_slice(name, GFP_KERNEL)?;
    names.push(len, GFP_KERNEL)?;
    Ok(())
}

/// Whether a directory entry can have this name.
pub(in crate::send) fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_LEN
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

/// What is known of a directory.
struct Dir {
    ino: u64,
    /// The path is right while `progress` is not above this.
    until: u64,
    inode: InodeItem,
    path: KVec<u8>,
}

/// The directories seen last: each has one slot that it can be in, and shares it with others.
pub(in crate::send) struct DirCache {
    /// None until there is something to remember.
    slots: KVVec<Option<KBox<Dir>>>,
    bytes: usize,
}

impl DirCache {
    pub(in crate::send) const fn new() -> Self {
        DirCache {
            slots: KVVec::new(),
            bytes: 0,
        }
    }

    fn make_slots(&mut self) -> Result {
        self.slots.reserve(DIRS, GFP_KERNEL)?;
        while self.slots.len() < DIRS {
            self.slots.push_within_capacity(None)?;
        }
        Ok(())
    }

    fn slot(ino: u64) -> usize {
        crate::number_set::spread(ino) % DIRS
    }

    fn get(&self, ino: u64, progress: u64) -> Option<&Dir> {
        let dir = self.slots.get(Self::slot(ino))?.as_ref()?;
        (dir.ino == ino && progress <= dir.until).then_some(dir)
    }

    /// Remembers a directory. That there is no memory for it is no error.
    pub(in crate::send) fn put(&mut self, ino: u64, until: u64, inode: &InodeItem, path: &[u8]) {
        if self.bytes > MAX_CACHED {
            for slot in self.slots.iter_mut() {
                *slot = None;
            }
            self.bytes = 0;
        }
        let mut copy = KVec::new();
        if copy.extend_from_slice(path, GFP_KERNEL).is_err() {
            return;
        }
        if self.slots.is_empty() && self.make_slots().is_err() {
            return;
        }
        let dir = Dir {
            ino,
            until,
            inode: *inode,
            path: copy,
        };
        let Ok(dir) = KBox::new(dir, GFP_KERNEL) else {
            return;
        };
        if let Some(slot) = self.slots.get_mut(Self::slot(ino)) {
            if let Some(old) = slot.replace(dir) {
                self.bytes = self.bytes.saturating_sub(old.path.len());
            }
            self.bytes = self.bytes.saturating_add(path.len());
        }
    }
}

/// A name as a value.
#[derive(Clone, Copy)]
pub(in crate::send) struct NameBuf {
    bytes: [u8; NAME_LEN],
    len: u8,
}

impl NameBuf {
    pub(in crate::send) const fn empty() -> Self {
        NameBuf {
            bytes: [0; NAME_LEN],
            len: 0,
        }
    }

    /// # Errors
    ///
    /// `EUCLEAN` for more bytes than a name can have.
    pub(in crate::send) fn set(&mut self, name: &[u8]) -> Result {
        let target = self.bytes.get_mut(..name.len()).ok_or(EUCLEAN)?;
        target.copy_from_slice(name);
        self.len = u8::try_from(name.len()).map_err(|_| EUCLEAN)?;
        Ok(())
    }

    pub(in crate::send) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

/// Puts the first name of an inode into `first`, and returns the directory that it is in, if it has
/// one.
pub(in crate::send) fn first_name(
    finder: &mut Finder<'_>,
    ino: u64,
    first: &mut NameBuf,
) -> Result<Option<u64>> {
    let key = Key::new(ino, item_type::INODE_REF, 0);
    let Some((at, data)) = finder.at_or_after(&key)? else {
        return Ok(None);
    };
    if at.objectid != ino || at.typ > item_type::INODE_EXTREF {
        return Ok(None);
    }
    let mut parent = None;
    names_of_item(&at, data, &mut |name| {
        first.set(name.name)?;
        parent = Some(name.parent);
        Ok(false)
    })?;
    Ok(parent)
}

impl Send<'_> {
    /// Puts the path of inode `ino` into `path`, and answers up to which `progress` it holds.
    ///
    /// # Errors
    ///
    /// `ENOENT` for an inode that is not there or has no names, `ENAMETOOLONG` for a path that is
    /// too long or goes in circles, `EUCLEAN` for a name that cannot be one.
    pub(in crate::send) fn path_of(&mut self, ino: u64, path: &mut FsPath) -> Result<u64> {
        path.clear();
        // From the inode up, the names that are not known yet, back to front.
        let mut above = core::mem::replace(&mut self.components, KVec::new());
        above.clear();
        let result = self.climb(ino, path, &mut above).and_then(|until| {
            path.push_names(&above)?;
            Ok(until)
        });
        self.components = above;
        if result == Err(ENAMETOOLONG) {
            self.inconsistent_snapshot_error(ino, "a path of more than 4095 bytes or without end");
        }
        result
    }

    /// Climbs from `ino` to the top or to a directory whose path is known, which is put into
    /// `path`. The names passed are appended to `names`, each with its length after it.
    fn climb(&mut self, mut ino: u64, path: &mut FsPath, names: &mut KVec<u8>) -> Result<u64> {
        while ino != objectid::FIRST_FREE {
            if let Some(dir) = self.dirs.get(ino, self.progress) {
                path.set(&dir.path)?;
                return Ok(dir.until);
            }
            if ino >= self.progress {
                let inode = self.existing(ino)?;
                let generation = inode.generation.get();
                let name = self.orphans.name(&mut self.finder, ino, generation)?;
                path.push(name.as_bytes())?;
                return Ok(ino);
            }
            self.existing(ino)?;
            let mut name = NameBuf::empty();
            ino = self.first_name(ino, &mut name)?;
            push_name(names, name.as_bytes())?;
        }
        Ok(u64::MAX)
    }

    /// As [`Send::path_of`] for a directory that is going to be asked for again.
    pub(in crate::send) fn path_of_dir(&mut self, ino: u64, path: &mut FsPath) -> Result<u64> {
        if let Some(dir) = self.dirs.get(ino, self.progress) {
            path.set(&dir.path)?;
            return Ok(dir.until);
        }
        let until = self.path_of(ino, path)?;
        if ino != objectid::FIRST_FREE {
            let inode = self.existing(ino)?;
            self.dirs.put(ino, until, &inode, path.as_bytes());
        }
        Ok(until)
    }

    /// The item of a directory, or of any inode.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none or it has no names any more.
    pub(in crate::send) fn existing(&mut self, ino: u64) -> Result<InodeItem> {
        if let Some(dir) = self.dirs.get(ino, 0) {
            return Ok(dir.inode);
        }
        let inode = match self
            .finder
            .exact(&Key::new(ino, item_type::INODE_ITEM, 0))?
        {
            Some(data) => format::read::<InodeItem>(data)?,
            None => {
                self.inconsistent_snapshot_error(ino, "reference without inode item");
                return Err(ENOENT);
            }
        };
        if inode.nlink.get() == 0 {
            self.inconsistent_snapshot_error(ino, "reference and a link count of zero");
            return Err(ENOENT);
        }
        Ok(inode)
    }

    /// Puts the first name of an inode into `name`, and returns the directory that it is in.
    fn first_name(&mut self, ino: u64, name: &mut NameBuf) -> Result<u64> {
        let Some(parent) = first_name(&mut self.finder, ino, name)? else {
            self.inconsistent_snapshot_error(ino, "no reference");
            return Err(ENOENT);
        };
        self.check_name(ino, name.as_bytes())?;
        Ok(parent)
    }

    /// # Errors
    ///
    /// `EUCLEAN` for a name that no directory entry can have: a receiver would go astray with it.
    pub(in crate::send) fn check_name(&self, ino: u64, name: &[u8]) -> Result {
        if is_name(name) {
            return Ok(());
        }
        self.inconsistent_snapshot_error(ino, "a name that no entry can have");
        Err(EUCLEAN)
    }

    /// Names the inode at which damage ended the send, if it was that.
    pub(in crate::send) fn report_inconsistent_snapshot(&self, error: Error) {
        if [EUCLEAN, ENOENT, EEXIST, E2BIG].contains(&error) {
            let ino = self.inode.as_ref().map_or(0, |inode| inode.ino);
            self.inconsistent_snapshot_error(ino, "what ended the send");
        }
    }

    /// Tells the administrator what is wrong with the subvolume.
    pub(in crate::send) fn inconsistent_snapshot_error(&self, ino: u64, what: &str) {
        fs_err!(
            self.session.fs(),
            "Send: inconsistent snapshot, found {} for inode {}, send root is {}, parent root is {}",
            what,
            ino,
            self.root.id,
            self.parent.as_ref().map_or(0, |parent| parent.root.id)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_end_at_the_limit() {
        let mut path = FsPath::new().unwrap();
        let name = [b'a'; 255];
        for _ in 0..16 {
            assert!(path.as_bytes().len() < MAX);
            path.push(&name).unwrap();
        }
        assert_eq!(path.as_bytes().len(), MAX);
        assert_eq!(path.push(b"a"), Err(ENAMETOOLONG));
    }

    #[test]
    fn names_that_lead_astray_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'a'; 256]] {
            assert!(!is_name(name));
        }
        for name in [&b"a"[..], b"...", b".a", b"\xff", &[b'a'; 255]] {
            assert!(is_name(name));
        }
    }
}
