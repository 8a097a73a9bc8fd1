// SPDX-License-Identifier: GPL-2.0
//! From inodes and subvolumes to their names.

use crate::format::root::RootRef;
use crate::format::{self, item_type, objectid, tree_id, Key};
use crate::subvol::inode::{for_each_name, names_of_item};
use crate::trans::Reader;
use crate::tree::TreeRoot;
use kernel::prelude::*;

/// The root directory of any subvolume.
pub const ROOT_DIR: u64 = objectid::FIRST_FREE;

/// Bytes that grow towards the front, as a path does that is found from its end.
pub struct PathBuf<'b> {
    bytes: &'b mut [u8],
    start: usize,
}

impl<'b> PathBuf<'b> {
    /// An empty path in `bytes`.
    pub fn new(bytes: &'b mut [u8]) -> Self {
        let start = bytes.len();
        PathBuf { bytes, start }
    }

    /// Puts `part` before what is there.
    ///
    /// # Errors
    ///
    /// `ENAMETOOLONG` if there is no space.
    pub fn prepend(&mut self, part: &[u8]) -> Result {
        let start = self.start.checked_sub(part.len()).ok_or(ENAMETOOLONG)?;
        let place = self.bytes.get_mut(start..self.start);
        place.ok_or(ENAMETOOLONG)?.copy_from_slice(part);
        self.start = start;
        Ok(())
    }

    /// The path.
    pub fn path(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or(&[])
    }

    /// Moves the path to the front of its buffer and fills the rest with zeros.
    pub fn move_to_front(self) {
        let len = self.bytes.len().saturating_sub(self.start);
        self.bytes.copy_within(self.start.., 0);
        if let Some(rest) = self.bytes.get_mut(len..) {
            rest.fill(0);
        }
    }
}

/// The last name of inode `ino` that is in an `INODE_REF` item: calls `each` with it, and returns
/// the directory. A directory has one name only.
///
/// # Errors
///
/// `ENOENT` if there is none, `EUCLEAN` for a damaged item, or what reading nodes or `each` gives.
pub fn last_parent(
    reader: &Reader,
    root: TreeRoot,
    ino: u64,
    each: &mut dyn FnMut(&[u8]) -> Result,
) -> Result<u64> {
    let mut cursor = reader.cursor(root);
    if !cursor.seek_before(&Key::new(ino, item_type::INODE_REF, u64::MAX))? {
        return Err(ENOENT);
    }
    let found = cursor.item();
    let (key, data) = found
        .filter(|(key, _)| key.is(ino, item_type::INODE_REF))
        .ok_or(ENOENT)?;
    names_of_item(&key, data, &mut |name| {
        each(name.name)?;
        Ok(false)
    })?;
    Ok(key.offset)
}

/// Puts the path of directory `dir`, from the subvolume's root directory and with a slash at its
/// end, before what `path` has.
///
/// # Errors
///
/// `ENOENT` if an inode on the way has no name, `ENAMETOOLONG` if the path has no space, and what
/// reading nodes gives.
pub fn prepend_dir(
    reader: &Reader,
    root: TreeRoot,
    mut dir: u64,
    path: &mut PathBuf<'_>,
) -> Result {
    // Each turn uses a byte of the buffer at least, so that a loop of directories ends, too.
    while dir != ROOT_DIR {
        dir = last_parent(reader, root, dir, &mut |name| {
            path.prepend(b"/")?;
            path.prepend(name)
        })?;
    }
    Ok(())
}

/// Calls `each` with every path of inode `ino` from the subvolume's root directory, which has none.
///
/// # Errors
///
/// `ENOENT` if the inode has no name, `ENAMETOOLONG` for a path of more than 4,095 bytes, `EUCLEAN`
/// for damaged items, `ENOMEM`, and what reading nodes or `each` gives.
pub fn for_each_path(
    reader: &Reader,
    root: TreeRoot,
    ino: u64,
    each: &mut dyn FnMut(&[u8]) -> Result,
) -> Result {
    const PATH_MAX: usize = 4095;
    let mut buffer = KVec::new();
    buffer.resize(PATH_MAX, 0u8, GFP_KERNEL)?;
    let mut named = false;
    for_each_name(reader, root, ino, &mut |name| {
        named = true;
        let mut path = PathBuf::new(&mut buffer);
        // The root directory is its own parent, by the name "..".
        if ino != ROOT_DIR {
            path.prepend(name.name)?;
            prepend_dir(reader, root, name.parent, &mut path)?;
        }
        each(path.path())?;
        Ok(true)
    })?;
    if named {
        Ok(())
    } else {
        Err(ENOENT)
    }
}

/// Where a subvolume hangs.
pub struct RootBackref<'a> {
    /// The tree of the subvolume that holds it.
    pub parent: u64,
    /// The directory there.
    pub dirid: u64,
    /// Its name in that directory.
    pub name: &'a [u8],
}

/// Reads what a `ROOT_REF` or `ROOT_BACKREF` item says.
fn read_ref(data: &[u8]) -> Result<(u64, &[u8])> {
    let head: RootRef = format::read(data)?;
    let len = usize::from(head.name_len.get());
    let name = format::slice(data, size_of::<RootRef>(), len)?;
    Ok((head.dirid.get(), name))
}

/// Calls `each` with the place of the subvolume `tree`.
///
/// # Errors
///
/// `ENOENT` if it has none, `EUCLEAN` for a damaged item, or what reading nodes or `each` gives.
pub fn with_root_backref<T>(
    reader: &Reader,
    tree: u64,
    each: impl FnOnce(RootBackref<'_>) -> Result<T>,
) -> Result<T> {
    let mut cursor = reader.cursor(reader.root(tree_id::ROOT)?);
    cursor.seek(&Key::new(tree, item_type::ROOT_BACKREF, 0))?;
    let found = cursor.item();
    let (key, data) = found
        .filter(|(key, _)| key.is(tree, item_type::ROOT_BACKREF))
        .ok_or(ENOENT)?;
    let (dirid, name) = read_ref(data)?;
    each(RootBackref {
        parent: key.offset,
        dirid,
        name,
    })
}

/// Calls `each` with the tree and directory of every subvolume that `parent` holds, from tree
/// `from` on, until it answers false.
///
/// # Errors
///
/// `EUCLEAN` for a damaged item, or what reading nodes gives.
pub fn for_each_child(
    reader: &Reader,
    parent: u64,
    from: u64,
    each: &mut dyn FnMut(u64, u64) -> bool,
) -> Result {
    let mut cursor = reader.cursor(reader.root(tree_id::ROOT)?);
    cursor.seek(&Key::new(parent, item_type::ROOT_REF, from))?;
    while let Some((key, data)) = cursor.item() {
        if !key.is(parent, item_type::ROOT_REF) || !each(key.offset, read_ref(data)?.0) {
            break;
        }
        cursor.next()?;
    }
    Ok(())
}

/// Calls `each` with directory and name of the subvolume `child` in `parent`.
///
/// # Errors
///
/// `ENOENT` if it is not there, `EUCLEAN` for a damaged item, or what reading nodes or `each`
/// gives.
pub fn with_child<T>(
    reader: &Reader,
    parent: u64,
    child: u64,
    each: impl FnOnce(u64, &[u8]) -> Result<T>,
) -> Result<T> {
    let mut cursor = reader.cursor(reader.root(tree_id::ROOT)?);
    if !cursor.seek(&Key::new(parent, item_type::ROOT_REF, child))? {
        return Err(ENOENT);
    }
    let (_, data) = cursor.item().ok_or(ENOENT)?;
    let (dirid, name) = read_ref(data)?;
    each(dirid, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_grow_towards_the_front() {
        let mut bytes = [7u8; 6];
        let mut path = PathBuf::new(&mut bytes);
        assert_eq!(path.path(), b"");
        path.prepend(b"cd").unwrap();
        path.prepend(b"ab/").unwrap();
        assert_eq!(path.prepend(b"xy"), Err(ENAMETOOLONG));
        assert_eq!(path.path(), b"ab/cd");
        path.move_to_front();
        assert_eq!(&bytes, b"ab/cd\0");
    }
}
