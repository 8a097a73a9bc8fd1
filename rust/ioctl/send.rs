// SPDX-License-Identifier: GPL-2.0
//! `SEND`.

use crate::format::tree_id;
use crate::send::{self, SendArgs, MAX_CLONE_SOURCES};
use crate::trans::{Reader, View};
use crate::vfs::{capable_sys_admin, FileSink, OpenFile, UserArg};
use kernel::prelude::*;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct btrfs_ioctl_send_args`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Args {
    send_fd: i64,
    clone_sources_count: u64,
    clone_sources: u64,
    parent_root: u64,
    flags: u64,
    version: u32,
    reserved: [u8; 28],
}

/// The same from a 32-bit program, packed.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub(super) struct Args32 {
    send_fd: i64,
    clone_sources_count: u64,
    clone_sources: u32,
    parent_root: u64,
    flags: u64,
    version: u32,
    reserved: [u8; 28],
}

const _: () = assert!(size_of::<Args>() == 72 && size_of::<Args32>() == 68);

pub(super) fn send(file: &OpenFile<'_>, arg: UserArg) -> Result {
    run(file, &arg.read()?)
}

pub(super) fn send_32(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let args: Args32 = arg.read()?;
    let wide = Args {
        send_fd: args.send_fd,
        clone_sources_count: args.clone_sources_count,
        clone_sources: u64::from(args.clone_sources),
        parent_root: args.parent_root,
        flags: args.flags,
        version: args.version,
        reserved: args.reserved,
    };
    run(file, &wide)
}

/// Sends the subvolume that the file is in. The token comes before any work, and its drop after all
/// of it.
fn run(file: &OpenFile<'_>, args: &Args) -> Result {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    let fs = file.fs();
    let root = file.tree();
    let token = fs.state.begin_send(&fs.device, root)?;
    let reader = fs.reader()?;
    let item = reader.root_item(root)?;
    if item.is_dead() || !item.is_read_only() {
        return Err(EPERM);
    }
    let mut wanted = SendArgs {
        root,
        parent: (args.parent_root != 0).then_some(args.parent_root),
        clones: &[],
        flags: args.flags,
        version: args.version,
    };
    // The number of clone sources is checked before any memory is used for them, and goes before
    // flags and version.
    if args.clone_sources_count > MAX_CLONE_SOURCES as u64 {
        return Err(EINVAL);
    }
    wanted.check()?;
    let mut out = FileSink::from_fd(args.send_fd)?;
    let clones = clone_sources(args)?;
    wanted.clones = &clones;
    token.set_sources(sources(&wanted)?);
    drop(reader);
    send::run(settled(file, &wanted)?, &wanted, &mut out)
}

/// A reader of a commit from which on nothing that the send reads changes. The token, by which
/// nobody can begin to delete its subvolumes or to make them writable, came after what the running
/// transaction has done to them already.
///
/// # Errors
///
/// `EPERM` for a subvolume that is being deleted or can be written to as of now; those of a commit;
/// `ENOMEM`.
fn settled(file: &OpenFile<'_>, args: &SendArgs<'_>) -> Result<Reader> {
    let fs = file.fs();
    let mut changed = false;
    let mut ids = sources(args)?;
    ids.push(args.root, GFP_KERNEL)?;
    for id in ids {
        let item = fs.running_view(tree_id::ROOT)?.tree_root_item(id);
        match item {
            Ok(item) if item.is_dead() || !item.is_read_only() => return Err(EPERM),
            Ok(_) => changed |= fs.differs(id),
            // Sending tells the error.
            Err(e) if e == ENOENT => (),
            Err(e) => return Err(e),
        }
    }
    if changed && !fs.is_read_only() {
        fs.commit()?;
    }
    fs.reader()
}

fn clone_sources(args: &Args) -> Result<KVec<u64>> {
    let mut sources = KVec::new();
    let count = usize::try_from(args.clone_sources_count).map_err(|_| EINVAL)?;
    sources.resize(count, 0u64, GFP_KERNEL)?;
    UserArg::new(args.clone_sources)
        .read_slice(zerocopy::IntoBytes::as_mut_bytes(&mut *sources))?;
    Ok(sources)
}

/// All subvolumes but the sent one that the send reads.
fn sources(args: &SendArgs<'_>) -> Result<KVec<u64>> {
    let mut sources = KVec::new();
    sources.extend_from_slice(args.clones, GFP_KERNEL)?;
    if let Some(parent) = args.parent {
        sources.push(parent, GFP_KERNEL)?;
    }
    Ok(sources)
}
