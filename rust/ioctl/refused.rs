// SPDX-License-Identifier: GPL-2.0
//! Commands about what this driver cannot do yet: quotas, replacing and adding devices.
//!
//! Each returns what the C driver returns on a volume where the feature was never used, so that a
//! program that only asks, or turns off what is off, goes on as there. What would begin to use the
//! feature is refused with `EOPNOTSUPP` and a line in the log.

use super::subvol_modify::VolArgs;
use super::{none, sized, write};
use crate::format::tree_id;
use crate::fs_warn;
use crate::vfs::{capable_sys_admin, OpenFile, UserArg};
use kernel::prelude::*;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

const ADD_DEV: u32 = write::<VolArgs>(10);
const RM_DEV: u32 = write::<VolArgs>(11);
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

const _: () = {
    assert!(DEV_REPLACE == 0xca28_9435);
    assert!(QUOTA_CTL == 0xc010_9428);
    assert!(QGROUP_LIMIT == 0x8030_942b && QUOTA_RESCAN_STATUS == 0x8040_942d);
};

/// Carries out a command that nothing else knows.
///
/// # Errors
///
/// `ENOTTY` for one that does not exist; `EPERM`, `EROFS`; `ENOTCONN` for what is about quotas, of
/// which there are none; `EOPNOTSUPP`.
pub(super) fn dispatch(file: &OpenFile<'_>, cmd: u32, arg: UserArg) -> Result {
    match cmd {
        QUOTA_CTL | QGROUP_ASSIGN | QGROUP_CREATE | QGROUP_LIMIT | QUOTA_RESCAN
        | QUOTA_RESCAN_STATUS | QUOTA_RESCAN_WAIT | DEV_REPLACE | ADD_DEV | RM_DEV | RM_DEV_V2
        | SET_FEATURES => {
            if !capable_sys_admin() {
                return Err(EPERM);
            }
            administer(file, cmd, arg)
        }
        _ => Err(ENOTTY),
    }
}

/// Carries out a command that is for administrators.
fn administer(file: &OpenFile<'_>, cmd: u32, arg: UserArg) -> Result {
    match cmd {
        QUOTA_CTL => quota_control(file, arg),
        QGROUP_ASSIGN | QGROUP_CREATE | QGROUP_LIMIT | QUOTA_RESCAN => change_quotas(file),
        // No flags, no progress: none runs.
        QUOTA_RESCAN_STATUS => arg.write(&[0u64; 8]),
        QUOTA_RESCAN_WAIT => Ok(()),
        DEV_REPLACE => replace(file, arg),
        ADD_DEV => Err(unsupported(file, "adding a device")),
        RM_DEV | RM_DEV_V2 => Err(unsupported(file, "removing a device")),
        SET_FEATURES => set_features(file, arg),
        _ => Err(ENOTTY),
    }
}

pub(super) fn unsupported(file: &OpenFile<'_>, what: &str) -> Error {
    fs_warn!(file.fs(), "{} is not supported yet, nothing was done", what);
    EOPNOTSUPP
}

/// `struct btrfs_ioctl_quota_ctl_args`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct QuotaControl {
    command: u64,
    _status: u64,
}

const QUOTA_ENABLE: u64 = 1;
const QUOTA_DISABLE: u64 = 2;
const QUOTA_ENABLE_SIMPLE: u64 = 4;

fn has_quotas(file: &OpenFile<'_>) -> Result<bool> {
    match file.fs().reader()?.root(tree_id::QUOTA) {
        Ok(_) => Ok(true),
        Err(e) if e == ENOENT => Ok(false),
        Err(e) => Err(e),
    }
}

fn quota_control(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let _writing = file.want_write()?;
    let args: QuotaControl = arg.read()?;
    match args.command {
        QUOTA_DISABLE if !has_quotas(file)? => Ok(()),
        QUOTA_ENABLE | QUOTA_ENABLE_SIMPLE | QUOTA_DISABLE => Err(unsupported(file, "quota")),
        _ => Err(EINVAL),
    }
}

/// Anything that needs quotas to be on.
fn change_quotas(file: &OpenFile<'_>) -> Result {
    if !has_quotas(file)? {
        return Err(ENOTCONN);
    }
    drop(file.want_write()?);
    Err(unsupported(file, "quota"))
}

/// What comes first in `struct btrfs_ioctl_dev_replace_args`, as far as the status goes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Replace {
    command: u64,
    result: u64,
    /// State, progress, two times, two counts of errors; zeros say that nothing was ever replaced.
    status: [u64; 6],
}

const REPLACE_START: u64 = 0;
const REPLACE_STATUS: u64 = 1;
const REPLACE_CANCEL: u64 = 2;
const REPLACE_NO_ERROR: u64 = 0;
const REPLACE_NOT_STARTED: u64 = 1;

fn replace(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let mut args: Replace = arg.read()?;
    let is_read_only = file.fs().is_read_only();
    match args.command {
        REPLACE_START if is_read_only => return Err(EROFS),
        REPLACE_START => return Err(unsupported(file, "replacing a device")),
        REPLACE_STATUS => {
            args.result = REPLACE_NO_ERROR;
            args.status = [0; 6];
        }
        // The result tells, and may be an error number.
        REPLACE_CANCEL if is_read_only => {
            args.result = i64::from(EROFS.to_errno()) as u64;
        }
        REPLACE_CANCEL => args.result = REPLACE_NOT_STARTED,
        _ => return Err(EINVAL),
    }
    arg.write(&args)
}

/// Two `struct btrfs_ioctl_feature_flags`: which bits to change, and what they become.
fn set_features(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let flags: [u64; 6] = arg.read()?;
    match flags {
        [0, 0, 0, ..] => Ok(()),
        _ => Err(unsupported(file, "changing features of a mounted volume")),
    }
}
