// SPDX-License-Identifier: GPL-2.0
//! `TREE_SEARCH` and `TREE_SEARCH_V2`.

use crate::subvol::tree_search::{search as search_tree, Found, SearchKey};
use crate::vfs::{capable_sys_admin, OpenFile, UserArg};
use crate::volume::ReadSession;
use kernel::prelude::*;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes for items in the first version.
const BUF_SIZE: usize = 4096 - size_of::<SearchKey>();
/// Bytes for items in the second version, at most.
const BUF_SIZE_V2: u64 = 16 << 20;

/// `struct btrfs_ioctl_search_args`.
#[repr(C)]
pub(super) struct Args {
    key: SearchKey,
    items: [u8; BUF_SIZE],
}

/// `struct btrfs_ioctl_search_args_v2`, after which are the items.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ArgsV2 {
    key: SearchKey,
    buf_size: u64,
}

const _: () = assert!(size_of::<Args>() == 4096 && size_of::<ArgsV2>() == 112);

pub(super) fn search(file: &OpenFile<'_>, arg: UserArg) -> Result {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    let mut key: SearchKey = arg.read()?;
    let items = arg.add(core::mem::offset_of!(Args, items) as u64)?;
    key.nr_items = match run(file, &key, items, BUF_SIZE as u64)? {
        Found::Items(count) => count,
        // This version knows no error for that, only the header without its item.
        Found::TooLarge(_) => 1,
    };
    arg.write(&key)
}

pub(super) fn search_v2(file: &OpenFile<'_>, arg: UserArg) -> Result {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    let mut args: ArgsV2 = arg.read()?;
    let items = arg.add(size_of::<ArgsV2>() as u64)?;
    match run(file, &args.key, items, args.buf_size.min(BUF_SIZE_V2))? {
        Found::Items(count) => {
            args.key.nr_items = count;
            arg.write(&args.key)
        }
        Found::TooLarge(needed) => {
            let buf_size = core::mem::offset_of!(ArgsV2, buf_size);
            arg.add(buf_size as u64)?.write(&needed)?;
            Err(EOVERFLOW)
        }
    }
}

fn run(file: &OpenFile<'_>, key: &SearchKey, items: UserArg, buf_size: u64) -> Result<Found> {
    let tree = match key.tree_id {
        0 => file.tree(),
        tree => tree,
    };
    let session = ReadSession::new(file.reader_of(tree)?);
    // Neither a lock nor a commit is held while a page of the caller's is faulted in.
    search_tree(&session, tree, key, buf_size, &mut |offset, bytes| {
        items.add(offset)?.write_slice(bytes)
    })
}
