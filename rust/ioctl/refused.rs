// SPDX-License-Identifier: GPL-2.0
//! Commands of btrfs that are not carried out yet, so that user space can tell them from those that
//! do not exist.

use super::subvol_modify::VolArgs;
use super::{both, none, read, sized, write};
use crate::vfs::capable_sys_admin;
use kernel::prelude::*;

const DEFRAG: u32 = write::<VolArgs>(2);
const RESIZE: u32 = write::<VolArgs>(3);
const ADD_DEV: u32 = write::<VolArgs>(10);
const RM_DEV: u32 = write::<VolArgs>(11);
const DEFRAG_RANGE: u32 = sized(1, 16, 48);
const SCRUB: u32 = sized(3, 27, 1024);
const SCRUB_CANCEL: u32 = none(28);
const SCRUB_PROGRESS: u32 = sized(3, 29, 1024);
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
const ENCODED_READ: u32 = sized(2, 64, 128);
const ENCODED_WRITE: u32 = sized(1, 64, 128);

const _: () = {
    assert!(SCRUB == 0xc400_941b && DEV_REPLACE == 0xca28_9435);
    assert!(QUOTA_CTL == 0xc010_9428 && ENCODED_READ == 0x8080_9440);
    assert!(both::<u64>(0) != read::<u64>(0));
};

/// Answers for a command that nothing else knows.
pub(super) fn refuse(cmd: u32) -> Result {
    match cmd {
        SCRUB_CANCEL | SCRUB_PROGRESS if !capable_sys_admin() => Err(EPERM),
        // No scrub runs.
        SCRUB_CANCEL | SCRUB_PROGRESS => Err(ENOTCONN),
        DEFRAG | DEFRAG_RANGE | RESIZE | ADD_DEV | RM_DEV | RM_DEV_V2 | SCRUB | QUOTA_CTL
        | QGROUP_ASSIGN | QGROUP_CREATE | QGROUP_LIMIT | QUOTA_RESCAN | QUOTA_RESCAN_STATUS
        | QUOTA_RESCAN_WAIT | DEV_REPLACE | SET_FEATURES | ENCODED_READ => Err(EOPNOTSUPP),
        // Receiving decompresses by itself where it is told that there is no such command.
        ENCODED_WRITE => Err(ENOTTY),
        _ => Err(ENOTTY),
    }
}
