// SPDX-License-Identifier: GPL-2.0
//! Commands of btrfs that are not carried out yet, so that user space can tell them from those that do not exist.
//!
//! Those that would take a subvolume away from under a send say so first, as they will have to.

use super::subvol::RootRefs;
use super::{both, none, read, sized, write};
use crate::format::item_type;
use crate::fs_warn;
use crate::subvol::dir;
use crate::vfs::{capable_sys_admin, OpenFile, UserArg};
use kernel::prelude::*;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

const PATH_NAME_MAX: usize = 4087;

/// `struct btrfs_ioctl_vol_args`; that of the second version has the same size.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct VolArgs {
    fd: i64,
    pub(super) name: [u8; PATH_NAME_MAX + 1],
}

const _: () = assert!(size_of::<VolArgs>() == size_of::<RootRefs>());

const SNAP_CREATE: u32 = write::<VolArgs>(1);
const DEFRAG: u32 = write::<VolArgs>(2);
const RESIZE: u32 = write::<VolArgs>(3);
const ADD_DEV: u32 = write::<VolArgs>(10);
const RM_DEV: u32 = write::<VolArgs>(11);
const SUBVOL_CREATE: u32 = write::<VolArgs>(14);
const SNAP_DESTROY: u32 = write::<VolArgs>(15);
const DEFRAG_RANGE: u32 = sized(1, 16, 48);
const DEFAULT_SUBVOL: u32 = write::<u64>(19);
const SNAP_CREATE_V2: u32 = write::<VolArgs>(23);
const SUBVOL_CREATE_V2: u32 = write::<VolArgs>(24);
const SUBVOL_SETFLAGS: u32 = write::<u64>(26);
const SCRUB: u32 = sized(3, 27, 1024);
const SCRUB_CANCEL: u32 = none(28);
const SCRUB_PROGRESS: u32 = sized(3, 29, 1024);
const SET_RECEIVED_SUBVOL: u32 = sized(3, 37, 200);
const SET_RECEIVED_SUBVOL_32: u32 = sized(3, 37, 192);
const QUOTA_CTL: u32 = sized(3, 40, 16);
const QGROUP_ASSIGN: u32 = sized(1, 41, 24);
const QGROUP_CREATE: u32 = sized(1, 42, 16);
const QGROUP_LIMIT: u32 = sized(2, 43, 48);
const QUOTA_RESCAN: u32 = sized(1, 44, 64);
const QUOTA_RESCAN_STATUS: u32 = sized(2, 45, 64);
const QUOTA_RESCAN_WAIT: u32 = none(46);
const DEV_REPLACE: u32 = sized(3, 53, 2600);
const SET_FEATURES: u32 = sized(1, 57, 48);
const RM_DEV_V2: u32 = write::<VolArgs>(58);
const SNAP_DESTROY_V2: u32 = write::<VolArgs>(63);
const ENCODED_READ: u32 = sized(2, 64, 128);
const ENCODED_WRITE: u32 = sized(1, 64, 128);
const SUBVOL_SYNC_WAIT: u32 = sized(1, 65, 16);

const _: () = {
    assert!(SNAP_CREATE == 0x5000_9401 && SUBVOL_SETFLAGS == 0x4008_941a);
    assert!(SNAP_DESTROY == 0x5000_940f && SNAP_DESTROY_V2 == 0x5000_943f);
    assert!(SCRUB == 0xc400_941b && DEV_REPLACE == 0xca28_9435);
    assert!(SET_RECEIVED_SUBVOL == 0xc0c8_9425 && SUBVOL_SYNC_WAIT == 0x4010_9441);
    assert!(QUOTA_CTL == 0xc010_9428 && ENCODED_READ == 0x8080_9440);
    assert!(both::<u64>(0) != read::<u64>(0));
};

/// The bit of `SUBVOL_SETFLAGS` that makes a subvolume read-only.
const READ_ONLY: u64 = 1 << 1;
/// The bit of `SNAP_DESTROY_V2` that says that the subvolume is given by its id, which takes the name's place.
const BY_ID: u64 = 1 << 4;

/// Answers for a command that nothing else knows.
pub(super) fn refuse(file: &OpenFile<'_>, cmd: u32, arg: UserArg) -> Result {
    match cmd {
        SUBVOL_SETFLAGS => set_flags(file, arg),
        SNAP_DESTROY => destroy(file, arg),
        SNAP_DESTROY_V2 => destroy_v2(file, arg),
        SCRUB_CANCEL | SCRUB_PROGRESS if !capable_sys_admin() => Err(EPERM),
        // No scrub runs.
        SCRUB_CANCEL | SCRUB_PROGRESS => Err(ENOTCONN),
        SNAP_CREATE
        | SNAP_CREATE_V2
        | SUBVOL_CREATE
        | SUBVOL_CREATE_V2
        | DEFRAG
        | DEFRAG_RANGE
        | RESIZE
        | ADD_DEV
        | RM_DEV
        | RM_DEV_V2
        | DEFAULT_SUBVOL
        | SCRUB
        | SET_RECEIVED_SUBVOL
        | SET_RECEIVED_SUBVOL_32
        | QUOTA_CTL
        | QGROUP_ASSIGN
        | QGROUP_CREATE
        | QGROUP_LIMIT
        | QUOTA_RESCAN
        | QUOTA_RESCAN_STATUS
        | QUOTA_RESCAN_WAIT
        | DEV_REPLACE
        | SET_FEATURES
        | ENCODED_READ
        | ENCODED_WRITE
        | SUBVOL_SYNC_WAIT => Err(EOPNOTSUPP),
        _ => Err(ENOTTY),
    }
}

fn set_flags(file: &OpenFile<'_>, arg: UserArg) -> Result {
    if !file.owner_or_capable() {
        return Err(EPERM);
    }
    let _writing = file.want_write()?;
    if !file.is_subvol_root() {
        return Err(EINVAL);
    }
    let flags: u64 = arg.read()?;
    if flags & !READ_ONLY != 0 {
        return Err(EOPNOTSUPP);
    }
    let (fs, tree) = (file.fs(), file.tree());
    if flags & READ_ONLY == 0 && fs.state.sends_of(tree) != 0 {
        fs_warn!(
            fs,
            "Attempt to set subvolume {} read-write during send",
            tree
        );
        return Err(EPERM);
    }
    Err(EOPNOTSUPP)
}

fn destroy(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let args: KBox<VolArgs> = arg.read_boxed()?;
    destroy_by_name(file, &args)
}

fn destroy_v2(file: &OpenFile<'_>, arg: UserArg) -> Result {
    /// Offsets in `struct btrfs_ioctl_vol_args_v2`.
    const FLAGS: u64 = 16;
    const NAME: u64 = 56;
    let flags: u64 = arg.add(FLAGS)?.read()?;
    if flags & !BY_ID != 0 {
        return Err(EOPNOTSUPP);
    }
    if flags & BY_ID != 0 {
        if !capable_sys_admin() {
            return Err(EPERM);
        }
        return destroy_tree(file, arg.add(NAME)?.read()?);
    }
    let mut args: KBox<VolArgs> = arg.read_boxed()?;
    // The name begins 48 bytes later than that of the first version.
    args.name.copy_within((NAME - 8) as usize.., 0);
    destroy_by_name(file, &args)
}

fn destroy_by_name(file: &OpenFile<'_>, args: &VolArgs) -> Result {
    let _writing = file.want_write()?;
    let name = args.name.split(|byte| *byte == 0).next().unwrap_or(&[]);
    if name.contains(&b'/') {
        return Err(EINVAL);
    }
    if !file.is_dir() {
        return Err(ENOTDIR);
    }
    let reader = file.fs().reader()?;
    let root = reader.root(file.tree())?;
    let found = dir::lookup(&reader, root, file.ino(), name)?.ok_or(ENOENT)?;
    if found.location.typ != item_type::ROOT_ITEM {
        return Err(EINVAL);
    }
    destroy_tree(file, found.location.objectid)
}

fn destroy_tree(file: &OpenFile<'_>, tree: u64) -> Result {
    let fs = file.fs();
    if fs.state.sends_of(tree) != 0 {
        fs_warn!(fs, "attempt to delete subvolume {} during send", tree);
        return Err(EPERM);
    }
    Err(EOPNOTSUPP)
}
