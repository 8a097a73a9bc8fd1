// SPDX-License-Identifier: GPL-2.0
//! Shrinking: what lies beyond the new end is relocated.

use super::write_size;
use crate::balance::relocate::relocate_block_group;
use crate::platform::fatal_signal_pending;
use crate::state::ExclusiveToken;
use crate::volume::device_extent::DeviceExtent;
use crate::volume::Fs;
use kernel::prelude::*;

/// How often relocation is tried: what had no space at first may have some when others have moved.
const TRIES: u32 = 2;

/// Nothing is allocated beyond the new end of the device as long as this lives.
struct Limit<'a>(&'a Fs);

impl<'a> Limit<'a> {
    fn set(fs: &'a Fs, end: u64) -> Self {
        let mut writer = fs.writer.lock();
        writer.space_mut().devices.set_limit(Some(end));
        fs.refresh_reservations(writer.space_mut());
        Self(fs)
    }
}

impl Drop for Limit<'_> {
    fn drop(&mut self) {
        let mut writer = self.0.writer.lock();
        writer.space_mut().devices.set_limit(None);
        self.0.refresh_reservations(writer.space_mut());
    }
}

/// Empties the device from `end` (a physical address in bytes) on and makes that its size.
///
/// # Errors
///
/// `EAGAIN` while sends run, `ECANCELED`, `EINTR` on a fatal signal, `ENOSPC`; those of relocation
/// and of a commit.
pub(super) fn make_way(fs: &Fs, end: u64, token: &ExclusiveToken<'_>) -> Result {
    let _relocation = fs.state.begin_relocation(&fs.device)?;
    let _limit = Limit::set(fs, end);
    let check = || {
        if token.is_canceled() {
            return Err(ECANCELED);
        }
        if fatal_signal_pending() {
            return Err(EINTR);
        }
        Ok(())
    };
    // What the running transaction allocated is in the device tree then.
    fs.commit()?;
    let mut without_space = 0;
    for _ in 0..TRIES {
        without_space = relocate_beyond(fs, end, &check)?;
        if without_space == 0 {
            break;
        }
    }
    if without_space > 0 {
        return Err(ENOSPC);
    }
    check()?;
    write_size(fs, end)
}

/// Relocates all block groups with a copy that reaches beyond `end`, the last one first. Returns
/// how many had no space elsewhere.
fn relocate_beyond(fs: &Fs, end: u64, check: &dyn Fn() -> Result) -> Result<u64> {
    let mut without_space = 0u64;
    let mut up_to = Some(u64::MAX);
    while let Some(physical) = up_to {
        check()?;
        let last = DeviceExtent::last_up_to(&fs.reader()?, physical)?;
        let Some(extent) = last.filter(|extent| extent.end() > end) else {
            break;
        };
        match relocate_block_group(fs, extent.chunk, check) {
            Ok(()) => {}
            // The other copy took it along, or a commit that is on its way did.
            Err(error) if error == ENOENT => {}
            Err(error) if error == ENOSPC => without_space = without_space.saturating_add(1),
            Err(error) => return Err(error),
        }
        up_to = extent.physical.checked_sub(1);
    }
    Ok(without_space)
}
