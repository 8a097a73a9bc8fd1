// SPDX-License-Identifier: GPL-2.0
//! Paths and names: memory for them, and the paths of directories that a full send knows.

use crate::format::dir::NAME_LEN;
use crate::format::inode::InodeItem;
use crate::format::{item_type, Key};
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
pub(super) struct Dir {
    ino: u64,
    /// The path is right while `progress` is not above this.
    pub(super) until: u64,
    pub(super) inode: InodeItem,
    pub(super) path: KVec<u8>,
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

    pub(super) fn get(&self, ino: u64, progress: u64) -> Option<&Dir> {
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
