// SPDX-License-Identifier: GPL-2.0
//! Mount options between the VFS and `crate::mount`: where messages about them go, and how a volume
//! is opened by them.

use crate::bindings;
use crate::mount::{Level, Settings};
use crate::volume::OpenOptions;
use kernel::fmt;
use kernel::prelude::*;
use kernel::str::CString;

/// Which part of the machine's memory the cached tree blocks of a volume may take: a fourth.
const CACHE_SHARE: u64 = 4;

/// Which part those may take that wait for a commit, as long as that is less than the engine's own
/// limit.
const DIRTY_SHARE: u64 = 32;

/// How a volume is opened by these settings.
pub(super) fn open_options(settings: &Settings, read_only: bool) -> OpenOptions {
    // SAFETY: The function only returns a number.
    let memory = unsafe { bindings::rbtrfs_memory_size() };
    let defaults = OpenOptions::default();
    OpenOptions {
        read_only,
        // The shrinker takes back what others need more.
        cache_bytes: usize::try_from(memory / CACHE_SHARE).unwrap_or(defaults.cache_bytes),
        dirty_bytes: defaults.dirty_bytes.min(memory / DIRTY_SHARE),
        barrier: settings.barrier,
        rescue: settings.rescue,
    }
}

/// Prints a message about the options of a mount in the kernel's log, and in that of the context,
/// if it has one: from there `mount` reads it.
///
/// # Safety
///
/// `fc` is a context of ours, and in use by the caller alone.
pub(super) unsafe fn log(fc: *mut bindings::fs_context, level: Level, message: fmt::Arguments<'_>) {
    let letter = match level {
        Level::Error => {
            pr_err!("{}\n", message);
            b'e'
        }
        Level::Warning => {
            pr_warn!("{}\n", message);
            b'w'
        }
    };
    // Without memory the message is in the kernel's log alone.
    if let Ok(text) = CString::try_from_fmt(message) {
        // SAFETY: By this function's contract; the text is terminated.
        unsafe { bindings::rbtrfs_fc_log(fc, letter as kernel::ffi::c_char, text.as_char_ptr()) };
    }
}
