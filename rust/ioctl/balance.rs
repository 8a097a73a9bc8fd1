// SPDX-License-Identifier: GPL-2.0
//! `BALANCE_V2`, `BALANCE_CTL` and `BALANCE_PROGRESS`.

use crate::balance::args::balance_flags;
use crate::balance::control::{self, Outcome};
use crate::balance::ioctl_args::IoctlBalanceArgs;
use crate::state::Refusal;
use crate::vfs::{capable_sys_admin, zeroed_box, OpenFile, UserArg};
use kernel::prelude::*;

pub(super) type Args = IoctlBalanceArgs;

/// What the ioctl returns while another exclusive operation runs:
/// `BTRFS_ERROR_DEV_EXCL_RUN_IN_PROGRESS`.
pub(super) const EXCLUSIVE_RUNS: isize = 8;

const PAUSE: i32 = 1;
const CANCEL: i32 = 2;

pub(super) fn balance(file: &OpenFile<'_>, arg: UserArg) -> Result<isize> {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    let _writing = file.want_write()?;
    let mut args: KBox<Args> = arg.read_boxed()?;
    let outcome = if args.flags.get() & balance_flags::RESUME != 0 {
        control::resume(file.fs())
    } else {
        control::start(file.fs(), args.control()?)
    };
    file.notify_exclusive_operation();
    let Outcome { result, status } = match outcome {
        Ok(outcome) => outcome,
        Err(Refusal::Exclusive) => return Ok(EXCLUSIVE_RUNS),
        Err(Refusal::Error(error)) => return Err(error),
    };
    if matches!(result, Ok(()) | Err(ECANCELED)) {
        args.show(&status);
        arg.write(&*args)?;
    }
    result.map(|()| 0)
}

pub(super) fn control(file: &OpenFile<'_>, arg: UserArg) -> Result {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    let done = match arg.value() as i32 {
        PAUSE => control::pause(file.fs()),
        CANCEL => control::cancel(file.fs()),
        _ => Err(EINVAL),
    };
    file.notify_exclusive_operation();
    done
}

pub(super) fn progress(file: &OpenFile<'_>, arg: UserArg) -> Result {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    let status = file.fs().state.balance_status()?;
    let mut args: KBox<Args> = zeroed_box()?;
    args.show(&status);
    arg.write(&*args)
}
