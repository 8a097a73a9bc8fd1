// SPDX-License-Identifier: GPL-2.0
//! The kernel's way to ask a volume for memory: that of nodes that are cached, and, once these are
//! gone, of those that wait for a commit.

use super::committer::Committer;
use crate::bindings;
use crate::volume::Fs;
use core::ptr::NonNull;
use kernel::prelude::*;

/// A registered shrinker; dropping it unregisters, after calls that run have ended.
pub(super) struct Shrinker {
    shrinker: NonNull<bindings::shrinker>,
    /// What `private_data` points to.
    _asked: KBox<Asked>,
}

/// Who is asked for memory.
struct Asked {
    fs: Fs,
    committer: Committer,
}

// SAFETY: A shrinker may be freed from any thread, and `Fs` is shared between threads anyway.
unsafe impl Send for Shrinker {}
// SAFETY: There is nothing to call on a shared reference.
unsafe impl Sync for Shrinker {}

/// The smallest of `SHRINK_STOP` and `SHRINK_EMPTY`.
const SHRINK_STOP: usize = usize::MAX;
const SHRINK_EMPTY: usize = usize::MAX - 1;

/// # Safety
///
/// `shrinker` is one that [`Shrinker::new`] registered.
unsafe fn asked<'a>(shrinker: *mut bindings::shrinker) -> &'a Asked {
    // SAFETY: By this function's contract; what is asked is kept until the shrinker is
    // unregistered.
    unsafe { &*(*shrinker).private_data.cast::<Asked>() }
}

/// `shrinker::count_objects`: nodes are the objects, those that a commit would let go of as well.
///
/// # Safety
///
/// As memory reclaim calls it.
unsafe extern "C" fn count(
    shrinker: *mut bindings::shrinker,
    _control: *mut bindings::shrink_control,
) -> usize {
    // SAFETY: Reclaim passes the shrinker that is registered.
    let fs = &unsafe { asked(shrinker) }.fs;
    match fs.cache.reclaimable().saturating_add(fs.pressure.dirty()) {
        0 => SHRINK_EMPTY,
        count => count,
    }
}

/// `shrinker::scan_objects`. Shards of the cache that are in use are passed by, and a commit is
/// left to its thread, so that this waits for nothing that the task which needs the memory might
/// hold.
///
/// # Safety
///
/// As memory reclaim calls it.
unsafe extern "C" fn scan(
    shrinker: *mut bindings::shrinker,
    control: *mut bindings::shrink_control,
) -> usize {
    // SAFETY: Reclaim passes the shrinker that is registered, and its own request.
    let (asked, wanted) = unsafe { (asked(shrinker), (*control).nr_to_scan) };
    let freed = asked.fs.cache.reclaim(wanted);
    if freed < wanted && asked.fs.pressure.ask(wanted.saturating_sub(freed)) {
        asked.committer.try_wake();
        return if freed == 0 { SHRINK_STOP } else { freed };
    }
    // With nothing freed, reclaim goes on to ask for all that it means to: this is how the need
    // becomes known.
    if freed == 0 && asked.fs.pressure.dirty() == 0 {
        return SHRINK_STOP;
    }
    freed
}

impl Shrinker {
    /// Registers a shrinker for the volume.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(fs: &Fs, committer: &Committer) -> Result<Self> {
        let asked = Asked {
            fs: fs.clone(),
            committer: committer.clone(),
        };
        let asked = KBox::new(asked, GFP_KERNEL)?;
        // SAFETY: The format has no arguments.
        let shrinker = unsafe { bindings::shrinker_alloc(0, c"rbtrfs-nodes".as_char_ptr()) };
        let shrinker = NonNull::new(shrinker).ok_or(ENOMEM)?;
        // SAFETY: The shrinker is not registered yet, so it is ours to fill in. `asked` is kept
        // with it.
        unsafe {
            let raw = shrinker.as_ptr();
            (*raw).count_objects = Some(count);
            (*raw).scan_objects = Some(scan);
            (*raw).seeks = bindings::DEFAULT_SEEKS as i32;
            (*raw).private_data = (&raw const *asked).cast_mut().cast();
            bindings::shrinker_register(raw);
        }
        Ok(Self {
            shrinker,
            _asked: asked,
        })
    }
}

impl Drop for Shrinker {
    fn drop(&mut self) {
        // SAFETY: The shrinker is ours; this waits for calls that run.
        unsafe { bindings::shrinker_free(self.shrinker.as_ptr()) }
    }
}
