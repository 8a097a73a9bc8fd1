// SPDX-License-Identifier: GPL-2.0
//! `SCRUB`, `SCRUB_CANCEL` and `SCRUB_PROGRESS`.

use crate::scrub::{self, ScrubArgs};
use crate::state::ScrubProgress;
use crate::vfs::{capable_sys_admin, OpenFile, UserArg};
use kernel::prelude::*;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `BTRFS_SCRUB_READONLY`.
const READONLY: u64 = 1;

/// `struct btrfs_ioctl_scrub_args`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Args {
    devid: u64,
    start: u64,
    end: u64,
    flags: u64,
    progress: ScrubProgress,
    unused: [u64; 109],
}

const _: () = assert!(size_of::<Args>() == 1024);

pub(super) fn scrub(file: &OpenFile<'_>, arg: UserArg) -> Result {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    let mut args: KBox<Args> = arg.read_boxed()?;
    if args.flags & !READONLY != 0 {
        return Err(EOPNOTSUPP);
    }
    let read_only = args.flags & READONLY != 0;
    let _writing = match read_only {
        true => None,
        false => Some(file.want_write()?),
    };
    let wanted = ScrubArgs {
        devid: args.devid,
        start: args.start,
        end: args.end,
        read_only,
    };
    let outcome = scrub::scrub(file.fs(), &wanted, &|| file.is_freezing());
    args.progress = outcome.progress;
    // However it ended, user space learns how far it came.
    arg.write(&*args)?;
    outcome.result
}

pub(super) fn cancel(file: &OpenFile<'_>) -> Result {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    file.fs().state.cancel_scrub()
}

pub(super) fn progress(file: &OpenFile<'_>, arg: UserArg) -> Result {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    let mut args: KBox<Args> = arg.read_boxed()?;
    let reader = file.fs().reader()?;
    if args.devid != reader.superblock().dev_item.devid.get() {
        return Err(ENODEV);
    }
    args.progress = file.fs().state.scrub_progress()?;
    arg.write(&*args)
}
