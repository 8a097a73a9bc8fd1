// SPDX-License-Identifier: GPL-2.0
//! `SUBVOL_GETFLAGS`, `GET_SUBVOL_INFO` and `GET_SUBVOL_ROOTREF`.

use crate::format::inode::Timespec;
use crate::format::tree_id;
use crate::subvol::resolve::{for_each_child, with_root_backref};
use crate::vfs::{zeroed_box, OpenFile, UserArg};
use kernel::prelude::*;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The bit of a subvolume's flags by which user space knows that it is read-only.
pub(super) const READ_ONLY: u64 = 1 << 1;
const NAME_MAX: usize = 255;
const MAX_REFS: usize = 255;

/// `struct btrfs_ioctl_timespec`, and where user space is 32 bits wide, the same without its
/// padding.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Time {
    sec: u64,
    nsec: u32,
    padding: u32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub(super) struct Time32 {
    sec: u64,
    nsec: u32,
}

/// Either of them.
pub(super) trait UserTime:
    FromBytes + IntoBytes + zerocopy::Immutable + From<Timespec> + Into<Timespec>
{
}

impl UserTime for Time {}
impl UserTime for Time32 {}

impl From<Timespec> for Time {
    fn from(time: Timespec) -> Self {
        Time {
            sec: time.sec.get(),
            nsec: time.nsec.get(),
            padding: 0,
        }
    }
}

impl From<Time> for Timespec {
    fn from(time: Time) -> Self {
        Timespec {
            sec: time.sec.into(),
            nsec: time.nsec.into(),
        }
    }
}

impl From<Timespec> for Time32 {
    fn from(time: Timespec) -> Self {
        Time32 {
            sec: time.sec.get(),
            nsec: time.nsec.get(),
        }
    }
}

impl From<Time32> for Timespec {
    fn from(time: Time32) -> Self {
        Timespec {
            sec: time.sec.into(),
            nsec: time.nsec.into(),
        }
    }
}

/// What comes before the times in `struct btrfs_ioctl_get_subvol_info_args`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Head {
    treeid: u64,
    name: [u8; NAME_MAX + 1],
    parent_id: u64,
    dirid: u64,
    generation: u64,
    flags: u64,
    uuid: [u8; 16],
    parent_uuid: [u8; 16],
    received_uuid: [u8; 16],
    ctransid: u64,
    otransid: u64,
    stransid: u64,
    rtransid: u64,
}

/// `struct btrfs_ioctl_get_subvol_info_args`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Info {
    head: Head,
    /// Of change, creation, sending and receiving.
    times: [Time; 4],
    reserved: [u64; 8],
}

/// The same for a 32-bit program.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub(super) struct Info32 {
    head: Head,
    times: [Time32; 4],
    reserved: [u64; 8],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RootRef {
    treeid: u64,
    dirid: u64,
}

/// `struct btrfs_ioctl_get_subvol_rootref_args`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RootRefs {
    min_treeid: u64,
    refs: [RootRef; MAX_REFS],
    num_items: u8,
    padding: [u8; 7],
}

const _: () = {
    assert!(size_of::<Info>() == 504 && size_of::<Info32>() == 488);
    assert!(size_of::<RootRefs>() == 4096);
};

pub(super) fn get_flags(file: &OpenFile<'_>, arg: UserArg) -> Result {
    if !file.is_subvol_root() {
        return Err(EINVAL);
    }
    let item = file.reader_of(tree_id::ROOT)?.root_item(file.tree())?;
    let flags = if item.is_read_only() { READ_ONLY } else { 0 };
    arg.write(&flags)
}

pub(super) fn info(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let mut info = zeroed_box::<Info>()?;
    let times = fill(file, &mut info.head)?;
    info.times = times.map(Time::from);
    arg.write(&*info)
}

pub(super) fn info_32(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let mut head = zeroed_box::<Head>()?;
    let times = fill(file, &mut head)?;
    let times = times.map(Time32::from);
    arg.write(&*head)?;
    arg.add(size_of::<Head>() as u64)?.write(&times)?;
    let reserved = core::mem::offset_of!(Info32, reserved) as u64;
    arg.add(reserved)?.write(&[0u64; 8])
}

/// Fills in what is known of the file's subvolume, and answers its times.
fn fill(file: &OpenFile<'_>, head: &mut Head) -> Result<[Timespec; 4]> {
    let reader = file.reader_of(tree_id::ROOT)?;
    let tree = file.tree();
    let item = reader.root_item(tree)?;
    head.treeid = tree;
    head.generation = item.generation.get();
    head.flags = item.flags.get();
    head.uuid = item.uuid;
    head.parent_uuid = item.parent_uuid;
    head.received_uuid = item.received_uuid;
    head.ctransid = item.ctransid.get();
    head.otransid = item.otransid.get();
    head.stransid = item.stransid.get();
    head.rtransid = item.rtransid.get();
    if tree != tree_id::FS {
        with_root_backref(&reader, tree, |place| {
            head.parent_id = place.parent;
            head.dirid = place.dirid;
            let name = head.name.get_mut(..place.name.len()).ok_or(EUCLEAN)?;
            name.copy_from_slice(place.name);
            Ok(())
        })?;
    }
    Ok([item.ctime, item.otime, item.stime, item.rtime])
}

/// The subvolumes that the file's subvolume holds, as many as fit.
pub(super) fn root_refs(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let mut args: KBox<RootRefs> = arg.read_boxed()?;
    let from = args.min_treeid;
    let mut count = 0usize;
    let mut more = false;
    let refs = &mut args.refs;
    for_each_child(
        &file.reader_of(tree_id::ROOT)?,
        file.tree(),
        from,
        &mut |treeid, dirid| {
            match refs.get_mut(count) {
                Some(place) => {
                    *place = RootRef { treeid, dirid };
                    count = count.saturating_add(1);
                }
                None => more = true,
            }
            !more
        },
    )?;
    args.num_items = u8::try_from(count).map_err(|_| EUCLEAN)?;
    if let Some(last) = count.checked_sub(1).and_then(|at| args.refs.get(at)) {
        args.min_treeid = last.treeid.saturating_add(1);
    }
    arg.write(&*args)?;
    if more {
        return Err(EOVERFLOW);
    }
    Ok(())
}
