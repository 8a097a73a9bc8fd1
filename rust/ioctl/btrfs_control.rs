// SPDX-License-Identifier: GPL-2.0
//! The commands of `/dev/btrfs-control`: is this device part of a volume, and are all of its
//! devices there?
//!
//! A volume has one device here, so that nothing is remembered of those that were scanned.

use super::subvol_modify::VolArgs;
use super::{info, read, write};
use crate::vfs::{capable_sys_admin, Devices, UserArg};
use kernel::prelude::*;

const SCAN_DEV: u32 = write::<VolArgs>(4);
const FORGET_DEV: u32 = write::<VolArgs>(5);
const DEVICES_READY: u32 = read::<VolArgs>(39);

const _: () = {
    assert!(SCAN_DEV == 0x5000_9404 && FORGET_DEV == 0x5000_9405);
    assert!(DEVICES_READY == 0x9000_9427);
};

/// Carries out the command `cmd`. User space sees what is returned.
///
/// # Errors
///
/// `EPERM` for all but root; `ENOTTY` for a command that is not known; `EINVAL` for a device
/// without a volume; `ENOENT` and `EBUSY` where there is nothing to forget; those of opening the
/// device.
pub(crate) fn control(devices: &Devices<'_>, cmd: u32, arg: UserArg) -> Result<isize> {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    let args: KBox<VolArgs> = arg.read_boxed()?;
    let path = CStr::from_bytes_until_nul(&args.name).map_err(|_| ENAMETOOLONG)?;
    match cmd {
        SCAN_DEV => devices.volume_size(path).map(|_| 0),
        // One of several devices waits for the others.
        DEVICES_READY => devices.volume_size(path).map(|size| isize::from(size != 1)),
        // Everything, which is nothing.
        FORGET_DEV if path.is_empty() => Ok(0),
        FORGET_DEV if devices.is_mounted(path)? => Err(EBUSY),
        FORGET_DEV => Err(ENOENT),
        super::GET_SUPPORTED_FEATURES => info::supported_features(arg).map(|()| 0),
        _ => Err(ENOTTY),
    }
}
