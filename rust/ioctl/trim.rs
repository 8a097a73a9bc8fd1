// SPDX-License-Identifier: GPL-2.0
//! `FITRIM`.

use crate::trim::{self, TrimRange};
use crate::vfs::{capable_sys_admin, OpenFile, UserArg};
use kernel::prelude::*;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct fstrim_range`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Range {
    start: u64,
    len: u64,
    minlen: u64,
}

pub(super) fn trim(file: &OpenFile<'_>, arg: UserArg) -> Result {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    let granularity = file.fs().device.discard_granularity();
    let granularity = granularity.ok_or(EOPNOTSUPP)?;
    let mut range: Range = arg.read()?;
    range.minlen = range.minlen.max(granularity);
    let wanted = TrimRange {
        start: range.start,
        len: range.len,
        minlen: range.minlen,
    };
    let (result, trimmed) = trim::trim(file.fs(), &wanted, &|| file.is_freezing());
    if result != Err(EINVAL) {
        range.len = trimmed;
        arg.write(&range)?;
    }
    result
}
