// SPDX-License-Identifier: GPL-2.0
//! `RESIZE`.

use super::balance::EXCLUSIVE_RUNS;
use super::subvol_modify::VolArgs;
use crate::resize;
use crate::state::Refusal;
use crate::vfs::{capable_sys_admin, OpenFile, UserArg};
use kernel::prelude::*;

pub(super) fn resize(file: &OpenFile<'_>, arg: UserArg) -> Result<isize> {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    let _writing = file.want_write()?;
    let args: KBox<VolArgs> = arg.read_boxed()?;
    let end = args.name.iter().position(|byte| *byte == 0);
    let text = end.and_then(|end| args.name.get(..end));
    let done = resize::resize(file.fs(), text.ok_or(ENAMETOOLONG)?);
    file.notify_exclusive_operation();
    match done {
        Ok(()) => Ok(0),
        Err(Refusal::Exclusive) => Ok(EXCLUSIVE_RUNS),
        Err(Refusal::Error(error)) => Err(error),
    }
}
