// SPDX-License-Identifier: GPL-2.0
//! `BTRFS_IOC_DEFRAG` and `BTRFS_IOC_DEFRAG_RANGE`.

use crate::format::CompressionMethod;
use crate::subvol::defrag::{Defrag, Recompress};
use crate::vfs::{DefragArgs, OpenFile, UserArg};
use kernel::prelude::*;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

const COMPRESS: u64 = 1 << 0;
const START_IO: u64 = 1 << 1;
const COMPRESS_LEVEL: u64 = 1 << 2;
const NOCOMPRESS: u64 = 1 << 3;

/// The threshold of who names none, in bytes.
const THRESHOLD: u64 = 256 << 10;

/// `struct btrfs_ioctl_defrag_range_args`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RangeArgs {
    start: u64,
    len: u64,
    flags: u64,
    extent_thresh: u32,
    /// A method's number, or with [`COMPRESS_LEVEL`] a byte of that and one of the level.
    compress: [u8; 4],
    unused: [u32; 4],
}

/// Without a range: all of the file.
pub(super) fn all(file: &OpenFile<'_>) -> Result {
    let args = DefragArgs {
        start: 0,
        len: u64::MAX,
        defrag: Defrag {
            threshold: THRESHOLD,
            all: false,
        },
        recompress: Recompress::AsWritten,
        starts_io: false,
    };
    run(file, || Ok(args))
}

pub(super) fn range(file: &OpenFile<'_>, arg: UserArg) -> Result {
    run(file, || {
        let args: RangeArgs = arg.read()?;
        args.parse()
    })
}

fn run(file: &OpenFile<'_>, args: impl FnOnce() -> Result<DefragArgs>) -> Result {
    let _writing = file.want_write()?;
    file.may_defragment()?;
    if file.is_dir() {
        return Err(super::refused::unsupported(file, "defragmenting trees"));
    }
    file.defragment(&args()?)
}

impl RangeArgs {
    fn parse(&self) -> Result<DefragArgs> {
        let flags = self.flags;
        if flags & !(COMPRESS | START_IO | COMPRESS_LEVEL | NOCOMPRESS) != 0 {
            return Err(EOPNOTSUPP);
        }
        let recompress = match (flags & COMPRESS != 0, flags & NOCOMPRESS != 0) {
            (true, true) => return Err(EINVAL),
            (true, false) => self.method()?,
            (false, true) => Recompress::Not,
            (false, false) => Recompress::AsWritten,
        };
        let all = recompress != Recompress::AsWritten;
        let threshold = match self.extent_thresh {
            0 => THRESHOLD,
            threshold => threshold.into(),
        };
        Ok(DefragArgs {
            start: self.start,
            len: self.len,
            defrag: Defrag { threshold, all },
            recompress,
            starts_io: all || flags & START_IO != 0,
        })
    }

    fn method(&self) -> Result<Recompress> {
        let [kind, level, ..] = self.compress;
        let has_level = self.flags & COMPRESS_LEVEL != 0;
        let number = if has_level {
            kind.into()
        } else {
            u32::from_le_bytes(self.compress)
        };
        let method = match u8::try_from(number).map_err(|_| EINVAL)? {
            0 => CompressionMethod::Zlib,
            number => CompressionMethod::of_extent(number).ok_or(EINVAL)?,
        };
        let level = if has_level && kind != 0 {
            i32::from(level as i8)
        } else {
            0
        };
        if has_level && kind != 0 && !method.has_level(level) {
            return Err(EINVAL);
        }
        Ok(Recompress::With { method, level })
    }
}
