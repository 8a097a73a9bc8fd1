// SPDX-License-Identifier: GPL-2.0
//! What a resize is asked for, as text.

use crate::mount;
use kernel::prelude::*;

/// A size as it was asked for, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewSize {
    /// All of the device.
    Max,
    /// This size.
    To(u64),
    /// So much more.
    Grow(u64),
    /// So much less.
    Shrink(u64),
}

impl NewSize {
    /// The size of a volume of `old` bytes on a device of `device` bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL` below zero, `ERANGE` above what can be counted.
    pub(super) fn of(self, old: u64, device: u64) -> Result<u64> {
        match self {
            NewSize::Max => Ok(device),
            NewSize::To(size) => Ok(size),
            NewSize::Grow(more) => old.checked_add(more).ok_or(ERANGE),
            NewSize::Shrink(less) => old.checked_sub(less).ok_or(EINVAL),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResizeArgs {
    /// The id of the device.
    pub(super) devid: u64,
    /// The text has the device.
    pub(super) names_device: bool,
    pub(super) size: NewSize,
}

impl ResizeArgs {
    /// # Errors
    ///
    /// `EINVAL` for text that is none of these, and for a size or a device of zero.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let colon = text.iter().position(|byte| *byte == b':');
        let (devid, size) = match colon.and_then(|at| text.split_at_checked(at)) {
            Some((devid, [_, size @ ..])) => (Some(decimal(devid)?), size),
            _ => (None, text),
        };
        if devid == Some(0) {
            return Err(EINVAL);
        }
        let size = match size {
            b"max" => NewSize::Max,
            [b'+', size @ ..] => NewSize::Grow(bytes(size)?),
            [b'-', size @ ..] => NewSize::Shrink(bytes(size)?),
            size => NewSize::To(bytes(size)?),
        };
        Ok(Self {
            devid: devid.unwrap_or(1),
            names_device: devid.is_some(),
            size,
        })
    }
}

fn decimal(text: &[u8]) -> Result<u64> {
    let text = core::str::from_utf8(text).map_err(|_| EINVAL)?;
    text.parse().map_err(|_| EINVAL)
}

/// A size with a unit or none, not zero.
fn bytes(text: &[u8]) -> Result<u64> {
    if !text.first().is_some_and(u8::is_ascii_digit) {
        return Err(EINVAL);
    }
    mount::size(text).filter(|size| *size != 0).ok_or(EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let of = |text: &str| ResizeArgs::parse(text.as_bytes()).map(|args| args.size);
        assert_eq!(of("max"), Ok(NewSize::Max));
        assert_eq!(of("1:max"), Ok(NewSize::Max));
        assert_eq!(of("+1g"), Ok(NewSize::Grow(1 << 30)));
        assert_eq!(of("-512M"), Ok(NewSize::Shrink(512 << 20)));
        assert_eq!(of("0x1000k"), Ok(NewSize::To(4 << 20)));
        assert_eq!(of("2:1t"), Ok(NewSize::To(1 << 40)));
        for bad in [
            "", "0", "+0", "-", "++1", "1x", "maxi", "0:1g", ":1g", "a:1g", "1:", "1:2:3",
        ] {
            assert_eq!(of(bad), Err(EINVAL), "{bad}");
        }
        assert_eq!(ResizeArgs::parse(b"7:+1").unwrap().devid, 7);
        assert_eq!(ResizeArgs::parse(b"+1").unwrap().devid, 1);
    }

    #[test]
    fn sizes() {
        assert_eq!(NewSize::Max.of(10, 20), Ok(20));
        assert_eq!(NewSize::Grow(5).of(10, 20), Ok(15));
        assert_eq!(NewSize::Shrink(11).of(10, 20), Err(EINVAL));
        assert_eq!(NewSize::Grow(u64::MAX).of(10, 20), Err(ERANGE));
    }
}
