// SPDX-License-Identifier: GPL-2.0
//! Making, deleting and marking subvolumes.

use super::subvol_info::{RootRefs, Time, Time32, UserTime, READ_ONLY};
use crate::format::{item_type, tree_id, Key};
use crate::subvol::subvolume::{self, Received};
use crate::trans::{Reader, View};
use crate::tree::Cursor;
use crate::vfs::{capable_sys_admin, OpenFile, UserArg};
use core::mem::offset_of;
use kernel::prelude::*;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

const PATH_NAME_MAX: usize = 4087;
const SUBVOL_NAME_MAX: usize = 4039;

/// `struct btrfs_ioctl_vol_args`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct VolArgs {
    fd: i64,
    pub(super) name: [u8; PATH_NAME_MAX + 1],
}

/// `struct btrfs_ioctl_vol_args_v2`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    /// With [`QGROUP_INHERIT`], the size of a `struct btrfs_qgroup_inherit` and its address.
    inherit_size: u64,
    inherit: u64,
    unused: [u64; 2],
    /// Or, with [`BY_ID`], a number.
    name: [u8; SUBVOL_NAME_MAX + 1],
}

/// `struct btrfs_ioctl_received_subvol_args`, with times as 64-bit or as 32-bit programs have them.
#[repr(C)]
pub(super) struct ReceivedArgs<T> {
    _head: ReceivedHead,
    stime: T,
    rtime: T,
    _flags: u64,
    _reserved: [u64; 16],
}

/// What comes before the times.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ReceivedHead {
    uuid: [u8; 16],
    stransid: u64,
    rtransid: u64,
}

/// `struct btrfs_ioctl_subvol_wait`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct WaitArgs {
    subvolid: u64,
    mode: u32,
    count: u32,
}

const _: () = {
    assert!(size_of::<VolArgs>() == 4096 && size_of::<VolArgsV2>() == 4096);
    assert!(size_of::<RootRefs>() == 4096 && size_of::<WaitArgs>() == 16);
    assert!(size_of::<ReceivedArgs<Time>>() == 200 && size_of::<ReceivedArgs<Time32>>() == 192);
};

/// Flags of the second version.
const SNAPSHOT_READ_ONLY: u64 = 1 << 1;
/// Quota groups that the new subvolume is to be in (`-i`).
const QGROUP_INHERIT: u64 = 1 << 2;
/// The subvolume is given by its id.
const BY_ID: u64 = 1 << 4;

/// The name that an argument holds.
///
/// # Errors
///
/// `ENAMETOOLONG` if it has no end.
fn name_of(bytes: &[u8]) -> Result<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == 0);
    bytes.get(..end.ok_or(ENAMETOOLONG)?).ok_or(EINVAL)
}

pub(super) fn create(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let args: KBox<VolArgs> = arg.read_boxed()?;
    file.create_subvolume(name_of(&args.name)?)
}

/// What `struct btrfs_qgroup_inherit` begins with; after it are the limits and the groups.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct QgroupInherit {
    flags: u64,
    groups: u64,
    ref_copies: u64,
    excl_copies: u64,
    limits: [u64; 5],
}

const _: () = assert!(size_of::<QgroupInherit>() == 72);

/// Checks the arguments of making a subvolume. Quota groups are only looked at: while quotas are
/// off, and of a writable volume they are, nothing comes of them, as in the C driver.
fn check_make(args: &VolArgsV2) -> Result {
    const SET_LIMITS: u64 = 1;
    const HEAD: u64 = size_of::<QgroupInherit>() as u64;
    if args.flags & !(SNAPSHOT_READ_ONLY | QGROUP_INHERIT) != 0 {
        return Err(EOPNOTSUPP);
    }
    if args.flags & QGROUP_INHERIT == 0 {
        return Ok(());
    }
    if args.inherit_size < HEAD || args.inherit_size > 4096 {
        return Err(EINVAL);
    }
    let inherit: QgroupInherit = UserArg::new(args.inherit).read()?;
    if inherit.flags & !SET_LIMITS != 0 {
        return Err(EOPNOTSUPP);
    }
    let size = inherit
        .groups
        .checked_mul(8)
        .and_then(|groups| groups.checked_add(HEAD));
    if inherit.ref_copies != 0 || inherit.excl_copies != 0 || size != Some(args.inherit_size) {
        return Err(EINVAL);
    }
    Ok(())
}

pub(super) fn create_v2(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let args: KBox<VolArgsV2> = arg.read_boxed()?;
    check_make(&args)?;
    file.create_subvolume(name_of(&args.name)?)
}

pub(super) fn snapshot(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let args: KBox<VolArgs> = arg.read_boxed()?;
    file.create_snapshot(name_of(&args.name)?, args.fd, false)
}

pub(super) fn snapshot_v2(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let args: KBox<VolArgsV2> = arg.read_boxed()?;
    check_make(&args)?;
    let read_only = args.flags & SNAPSHOT_READ_ONLY != 0;
    file.create_snapshot(name_of(&args.name)?, args.fd, read_only)
}

pub(super) fn destroy(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let args: KBox<VolArgs> = arg.read_boxed()?;
    file.delete_subvolume(name_of(&args.name)?)
}

pub(super) fn destroy_v2(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let args: KBox<VolArgsV2> = arg.read_boxed()?;
    if args.flags & !BY_ID != 0 {
        return Err(EOPNOTSUPP);
    }
    if args.flags & BY_ID == 0 {
        return file.delete_subvolume(name_of(&args.name)?);
    }
    let id = args.name.first_chunk::<8>().ok_or(EINVAL)?;
    file.delete_subvolume_by_id(u64::from_le_bytes(*id))
}

pub(super) fn set_flags(file: &OpenFile<'_>, arg: UserArg) -> Result {
    if !file.owner_or_capable() {
        return Err(EPERM);
    }
    drop(file.want_write()?);
    if !file.is_subvol_root() {
        return Err(EINVAL);
    }
    let flags: u64 = arg.read()?;
    if flags & !READ_ONLY != 0 {
        return Err(EOPNOTSUPP);
    }
    file.set_subvolume_read_only(flags & READ_ONLY != 0)
}

pub(super) fn set_default(file: &OpenFile<'_>, arg: UserArg) -> Result {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    let _writing = file.want_write()?;
    let tree = match arg.read::<u64>()? {
        0 => tree_id::FS,
        tree => tree,
    };
    subvolume::set_default(file.fs(), tree)?;
    // Mounts look it up in the last commit.
    file.fs().commit()
}

/// Notes where the subvolume was received from; returns the transaction and the time of that.
pub(super) fn set_received<T: UserTime>(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let mut head: ReceivedHead = arg.read()?;
    let stime: T = arg.add(offset_of!(ReceivedArgs<T>, stime) as u64)?.read()?;
    if !file.owner_or_capable() {
        return Err(EPERM);
    }
    let _writing = file.want_write()?;
    if !file.is_subvol_root() {
        return Err(EINVAL);
    }
    let received = Received {
        uuid: head.uuid,
        stransid: head.stransid,
        stime: stime.into(),
        now: file.now(),
    };
    head.rtransid = subvolume::set_received(file.fs(), file.tree(), &received)?;
    file.fs().commit()?;
    arg.write(&head)?;
    arg.add(offset_of!(ReceivedArgs<T>, rtime) as u64)?
        .write(&T::from(received.now))
}

/// The deleted subvolumes whose trees are still there, in the order of their ids.
fn deleted(view: &Reader) -> Result<KVec<u64>> {
    let mut found = KVec::new();
    let mut cursor = Cursor::new(view, view.tree_root(tree_id::ROOT)?);
    cursor.seek(&Key::new(ORPHAN, item_type::ORPHAN_ITEM, 0))?;
    while let Some((key, _)) = cursor.item() {
        if !key.is(ORPHAN, item_type::ORPHAN_ITEM) {
            break;
        }
        found.push(key.offset, GFP_KERNEL)?;
        cursor.next()?;
    }
    Ok(found)
}

const ORPHAN: u64 = crate::format::objectid::ORPHAN;

/// `SUBVOL_SYNC_WAIT`: waits until deleted subvolumes are gone, or tells of them.
pub(super) fn wait_deleted(file: &OpenFile<'_>, arg: UserArg) -> Result {
    const FOR_ONE: u32 = 0;
    const FOR_QUEUED: u32 = 1;
    const COUNT: u32 = 2;
    const PEEK_FIRST: u32 = 3;
    const PEEK_LAST: u32 = 4;
    let mut args: WaitArgs = arg.read()?;
    let fs = file.fs();
    // What is deleted is looked up in the last commit.
    if !fs.is_read_only() {
        fs.commit()?;
    }
    let waiting = deleted(&fs.reader()?)?;
    match args.mode {
        FOR_ONE => (),
        FOR_QUEUED => args.subvolid = *waiting.last().ok_or(ENOENT)?,
        COUNT => {
            args.count = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
            return arg.write(&args);
        }
        PEEK_FIRST => {
            args.subvolid = waiting.first().copied().unwrap_or(0);
            return arg.write(&args);
        }
        PEEK_LAST => {
            args.subvolid = waiting.last().copied().unwrap_or(0);
            return arg.write(&args);
        }
        _ => return Err(EINVAL),
    }
    if !tree_id::is_fs_tree(args.subvolid) && args.subvolid != 0 {
        return Err(EINVAL);
    }
    if !waiting.contains(&args.subvolid) {
        let there = fs.reader()?.root(args.subvolid).is_ok();
        return Err(if there { EEXIST } else { ENOENT });
    }
    loop {
        file.wake_cleaner();
        if !crate::platform::sleep_interruptible(200) {
            return Err(EINTR);
        }
        if !fs.is_read_only() {
            fs.commit()?;
        }
        if !deleted(&fs.reader()?)?.contains(&args.subvolid) {
            return arg.write(&args);
        }
    }
}
