// SPDX-License-Identifier: GPL-2.0
//! `INO_PATHS` and `LOGICAL_INO`: from inodes to paths, and from addresses to inodes.

use crate::backref::owners::for_each_owner;
use crate::format::tree_id;
use crate::subvol::resolve::for_each_path;
use crate::vfs::{capable_dac_read_search, capable_sys_admin, OpenFile, UserArg};
use kernel::prelude::*;
use zerocopy::IntoBytes;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct btrfs_ioctl_ino_path_args`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct InoPathArgs {
    inum: u64,
    size: u64,
    reserved: [u64; 4],
    /// Where the answer goes.
    fspath: u64,
}

/// `struct btrfs_ioctl_logical_ino_args`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct LogicalInoArgs {
    logical: u64,
    size: u64,
    reserved: [u64; 3],
    flags: u64,
    /// Where the answer goes.
    inodes: u64,
}

/// The flag of the second version: all places that have any byte of the extent.
const IGNORE_OFFSET: u64 = 1 << 0;

/// The head of an answer: `struct btrfs_data_container`, after which are numbers.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Head {
    bytes_left: u32,
    bytes_missing: u32,
    elem_cnt: u32,
    elem_missed: u32,
}

const _: () = {
    assert!(size_of::<InoPathArgs>() == 56 && size_of::<LogicalInoArgs>() == 56);
    assert!(size_of::<Head>() == 16);
};

const HEAD: usize = size_of::<Head>();
const NUMBER: usize = size_of::<u64>();

/// An answer of limited size: numbers from the front, and strings from the end.
struct Container {
    bytes: KVVec<u8>,
    head: Head,
}

impl Container {
    fn new(size: usize) -> Result<Container> {
        let mut bytes = KVVec::new();
        bytes.resize(size, 0u8, GFP_KERNEL)?;
        Ok(Container {
            bytes,
            head: Head {
                bytes_left: size.saturating_sub(HEAD) as u32,
                bytes_missing: HEAD.saturating_sub(size) as u32,
                elem_cnt: 0,
                elem_missed: 0,
            },
        })
    }

    /// Puts `part` at `offset` bytes after the head.
    fn put(&mut self, offset: usize, part: &[u8]) -> Result {
        let start = offset.checked_add(HEAD).ok_or(EOVERFLOW)?;
        let end = start.checked_add(part.len()).ok_or(EOVERFLOW)?;
        let place = self.bytes.get_mut(start..end).ok_or(EOVERFLOW)?;
        place.copy_from_slice(part);
        Ok(())
    }

    /// Counts what does not fit by `missing` bytes.
    fn miss(&mut self, elements: u32, missing: usize) {
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        self.head.elem_missed = self.head.elem_missed.saturating_add(elements);
        self.head.bytes_missing = self.head.bytes_missing.saturating_add(missing);
        self.head.bytes_left = 0;
    }

    /// Adds numbers.
    fn add_numbers(&mut self, numbers: &[u64]) -> Result {
        let (count, size) = (numbers.len() as u32, size_of_val(numbers));
        let left = self.head.bytes_left as usize;
        let Some(rest) = left.checked_sub(size) else {
            self.miss(count, size.saturating_sub(left));
            return Ok(());
        };
        let at = (self.head.elem_cnt as usize).saturating_mul(NUMBER);
        self.put(at, numbers.as_bytes())?;
        self.head.bytes_left = rest as u32;
        self.head.elem_cnt = self.head.elem_cnt.saturating_add(count);
        Ok(())
    }

    /// Adds a string, ended by a zero, and its offset after the head.
    fn add_string(&mut self, string: &[u8]) -> Result {
        // The string is put at the end of what is left behind its number; as in btrfs, not to the
        // last byte.
        let left = (self.head.bytes_left as usize).saturating_sub(NUMBER);
        let size = string.len().saturating_add(1);
        if size >= left {
            self.miss(1, size.saturating_sub(left));
            return Ok(());
        }
        let at = (self.head.elem_cnt as usize).saturating_mul(NUMBER);
        let rest = left.saturating_sub(size);
        let place = at.saturating_add(NUMBER).saturating_add(rest);
        self.put(at, (place as u64).as_bytes())?;
        self.put(place, string)?;
        self.head.bytes_left = rest as u32;
        self.head.elem_cnt = self.head.elem_cnt.saturating_add(1);
        Ok(())
    }

    fn write(mut self, to: UserArg) -> Result {
        let head = self.head;
        let len = HEAD.min(self.bytes.len());
        let place = self.bytes.get_mut(..len).ok_or(EINVAL)?;
        place.copy_from_slice(head.as_bytes().get(..len).ok_or(EINVAL)?);
        to.write_slice(&self.bytes)
    }
}

fn buffer_size(size: u64, limit: u32) -> usize {
    // Of the size only the low half counts.
    (size as u32).min(limit) as usize
}

/// All paths of an inode in the file's subvolume.
pub(super) fn ino_paths(file: &OpenFile<'_>, arg: UserArg) -> Result {
    if !capable_dac_read_search() {
        return Err(EPERM);
    }
    let args: InoPathArgs = arg.read()?;
    let mut paths = Container::new(buffer_size(args.size, 4096))?;
    let reader = file.reader_of(file.tree())?;
    let root = reader.root(file.tree())?;
    for_each_path(&reader, root, args.inum, &mut |path| paths.add_string(path))?;
    // User memory is touched only when no commit is held.
    drop(reader);
    paths.write(UserArg::new(args.fspath))
}

pub(super) fn logical_ino(file: &OpenFile<'_>, arg: UserArg) -> Result {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    resolve(file, &arg.read()?, false, 64 << 10)
}

pub(super) fn logical_ino_v2(file: &OpenFile<'_>, arg: UserArg) -> Result {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    let args: LogicalInoArgs = arg.read()?;
    if args.reserved != [0; 3] || args.flags & !IGNORE_OFFSET != 0 {
        return Err(EINVAL);
    }
    resolve(file, &args, args.flags & IGNORE_OFFSET != 0, 16 << 20)
}

/// Inode, offset and tree of every place that has the byte at an address.
fn resolve(file: &OpenFile<'_>, args: &LogicalInoArgs, whole_extent: bool, limit: u32) -> Result {
    let mut inodes = Container::new(buffer_size(args.size, limit))?;
    let reader = file.reader_of(tree_id::EXTENT)?;
    for_each_owner(&reader, args.logical, whole_extent, &mut |owner| {
        inodes.add_numbers(&[owner.ino, owner.offset, owner.root])
    })?;
    drop(reader);
    inodes.write(UserArg::new(args.inodes))
}
