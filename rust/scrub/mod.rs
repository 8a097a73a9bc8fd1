// SPDX-License-Identifier: GPL-2.0
//! Scrub: every allocated byte of every copy is read and proved, and what is bad is written over
//! with a good copy.
//!
//! The device is walked by physical address, so that a scrub can be resumed from where it was. Each
//! *window* of a chunk is looked up in the newest commit, read and repaired under that commit's
//! epoch, and left: nothing that the commit refers to is written to meanwhile, so that no lock is
//! held, and others write, relocate and send as if there were no scrub.

mod extents;
mod pace;
mod repair;
mod report;
mod stripe;
mod supers;
mod window;

use crate::platform::yield_now;
use crate::state::{ScrubProgress, ScrubToken};
use crate::volume::device_extent::DeviceExtent;
use crate::volume::Fs;
use crate::{fs_err, fs_info};
use kernel::prelude::*;
use pace::Pace;
use stripe::STRIPE;
use window::ReadBuffer;

/// What a scrub is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct ScrubArgs {
    /// The id of the device.
    pub devid: u64,
    /// Where on the device to begin, in bytes.
    pub start: u64,
    /// No chunk that lies from here on is looked at. In bytes, of the device.
    pub end: u64,
    /// Nothing is repaired.
    pub read_only: bool,
}

/// How a scrub came out.
pub struct Outcome {
    /// How it ended.
    pub result: Result,
    /// What it had counted by then.
    pub progress: ScrubProgress,
}

/// Scrubs the device and returns when that has ended. `is_interrupted` says whether the caller has
/// to go on with something else.
///
/// The result is `ECANCELED` if somebody cancelled the scrub, `EINTR` if `is_interrupted` or a
/// signal said so, `ENODEV` for another device, `EINPROGRESS` while another scrub runs, `EROFS`
/// if a transaction failed, and else what reading trees gives. Bad copies are no error.
pub fn scrub(fs: &Fs, args: &ScrubArgs, is_interrupted: &dyn Fn() -> bool) -> Outcome {
    let mut progress = ScrubProgress {
        last_physical: args.start,
        ..ScrubProgress::default()
    };
    let begun = check(fs, args).and_then(|()| fs.state.begin_scrub(args.start));
    let token = match begun {
        Ok(token) => token,
        Err(error) => {
            return Outcome {
                result: Err(error),
                progress,
            }
        }
    };
    fs_info!(fs, "scrub: started on devid {}", args.devid);
    let mut scrub = Scrub {
        fs,
        args,
        token: &token,
        is_interrupted,
        progress: &mut progress,
    };
    let mut result = scrub.run();
    match &result {
        Ok(()) => fs_info!(fs, "scrub: finished on devid {} with status: 0", args.devid),
        Err(error) => fs_info!(
            fs,
            "scrub: not finished on devid {} with status: {}",
            args.devid,
            error.to_errno()
        ),
    }
    if progress.super_errors > 0 && !args.read_only {
        // A commit writes all copies.
        if let Err(error) = supers::rewrite(fs) {
            fs_err!(
                fs,
                "scrub: failed to commit transaction to fix super block errors: {}",
                error.to_errno()
            );
            result = result.and(Err(error));
        }
    }
    Outcome { result, progress }
}

fn check(fs: &Fs, args: &ScrubArgs) -> Result {
    if args.devid != fs.reader()?.superblock().dev_item.devid.get() {
        return Err(ENODEV);
    }
    fs.check_failed()?;
    if !args.read_only {
        fs.check_writable()?;
    }
    Ok(())
}

/// A scrub under way.
struct Scrub<'a> {
    fs: &'a Fs,
    args: &'a ScrubArgs,
    token: &'a ScrubToken<'a>,
    is_interrupted: &'a dyn Fn() -> bool,
    progress: &'a mut ScrubProgress,
}

impl Scrub<'_> {
    fn run(&mut self) -> Result {
        let result = self.count_and_run();
        if matches!(result, Err(ENOMEM)) {
            self.progress.malloc_errors = self.progress.malloc_errors.saturating_add(1);
        }
        result
    }

    fn count_and_run(&mut self) -> Result {
        self.progress.super_errors = supers::count_bad(self.fs)?;
        let mut buffer = ReadBuffer::new()?;
        let mut pace = Pace::new();
        let mut from = self.args.start;
        loop {
            self.check()?;
            let extent = DeviceExtent::first_after(&self.fs.reader()?, from)?;
            let Some(extent) = extent.filter(|extent| extent.physical < self.args.end) else {
                return Ok(());
            };
            self.device_extent(&extent, from, &mut buffer, &mut pace)?;
            from = extent.end();
        }
    }

    /// Scrubs a copy of a chunk, from the physical address `from` on if that lies within.
    fn device_extent(
        &mut self,
        extent: &DeviceExtent,
        from: u64,
        buffer: &mut ReadBuffer,
        pace: &mut Pace,
    ) -> Result {
        let into = from.saturating_sub(extent.physical);
        let mut at = extent.chunk.saturating_add(into - into % STRIPE);
        loop {
            self.check()?;
            let most = pace.window(self.fs.scrub_speed_max());
            let done = window::scrub(
                self.fs,
                self.args,
                extent,
                (at, most),
                buffer,
                self.progress,
            );
            self.token.publish(self.progress);
            let Some(done) = done? else {
                break;
            };
            at = done.end;
            self.progress.last_physical = extent.physical_of(at);
            self.token.publish(self.progress);
            pace.sleep(done.read, self.fs.scrub_speed_max(), &|| self.check())?;
            yield_now();
        }
        self.progress.last_physical = extent.end();
        self.token.publish(self.progress);
        Ok(())
    }

    /// Whether to go on.
    fn check(&self) -> Result {
        if self.token.is_canceled() {
            return Err(ECANCELED);
        }
        if (self.is_interrupted)() || crate::platform::signal_pending() {
            return Err(EINTR);
        }
        Ok(())
    }
}
