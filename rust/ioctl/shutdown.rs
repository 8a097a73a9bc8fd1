// SPDX-License-Identifier: GPL-2.0
//! `SHUTDOWN`, whose number and flags are those of XFS's `GOINGDOWN`.

use crate::vfs::{capable_sys_admin, OpenFile, UserArg};
use kernel::prelude::*;

const DEFAULT: u32 = 0;
const LOGFLUSH: u32 = 1;
const NOLOGFLUSH: u32 = 2;

pub(super) fn shutdown(file: &OpenFile<'_>, arg: UserArg) -> Result {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    // As in the C driver: without a log there is nothing between losing what is in memory and
    // writing all of it.
    let flush = match arg.read::<u32>()? {
        DEFAULT | LOGFLUSH => true,
        NOLOGFLUSH => false,
        _ => return Err(EINVAL),
    };
    if file.fs().check_shut_down().is_err() {
        return Ok(());
    }
    file.shut_down(flush)
}
