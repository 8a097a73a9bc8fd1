// SPDX-License-Identifier: GPL-2.0
//! The kernel's way to ask a volume's node cache for memory.

use crate::bindings;
use crate::volume::Fs;
use core::ptr::NonNull;
use kernel::prelude::*;

/// A registered shrinker; dropping it unregisters, after calls that run have ended.
pub(super) struct Shrinker {
    shrinker: NonNull<bindings::shrinker>,
    /// What `private_data` points to.
    _fs: KBox<Fs>,
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
unsafe fn fs_of<'a>(shrinker: *mut bindings::shrinker) -> &'a Fs {
    // SAFETY: By this function's contract; the volume is kept until the shrinker is unregistered.
    unsafe { &*(*shrinker).private_data.cast::<Fs>() }
}

/// `shrinker::count_objects`: nodes are the objects.
///
/// # Safety
///
/// As memory reclaim calls it.
unsafe extern "C" fn count(
    shrinker: *mut bindings::shrinker,
    _control: *mut bindings::shrink_control,
) -> usize {
    // SAFETY: Reclaim passes the shrinker that is registered.
    match unsafe { fs_of(shrinker) }.cache.reclaimable() {
        0 => SHRINK_EMPTY,
        count => count,
    }
}

/// `shrinker::scan_objects`. Shards of the cache that are in use are passed by, so that this waits for no lock
/// that the task which needs the memory might hold.
///
/// # Safety
///
/// As memory reclaim calls it.
unsafe extern "C" fn scan(
    shrinker: *mut bindings::shrinker,
    control: *mut bindings::shrink_control,
) -> usize {
    // SAFETY: Reclaim passes the shrinker that is registered, and its own request.
    let (fs, wanted) = unsafe { (fs_of(shrinker), (*control).nr_to_scan) };
    match fs.cache.reclaim(wanted) {
        0 => SHRINK_STOP,
        freed => freed,
    }
}

impl Shrinker {
    /// Registers a shrinker for the volume.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(fs: &Fs) -> Result<Self> {
        let fs = KBox::new(fs.clone(), GFP_KERNEL)?;
        // SAFETY: The format has no arguments.
        let shrinker = unsafe { bindings::shrinker_alloc(0, c"rbtrfs-nodes".as_char_ptr()) };
        let shrinker = NonNull::new(shrinker).ok_or(ENOMEM)?;
        // SAFETY: The shrinker is not registered yet, so it is ours to fill in. The volume is kept with it.
        unsafe {
            let raw = shrinker.as_ptr();
            (*raw).count_objects = Some(count);
            (*raw).scan_objects = Some(scan);
            (*raw).seeks = bindings::DEFAULT_SEEKS as i32;
            (*raw).private_data = (&raw const *fs).cast_mut().cast();
            bindings::shrinker_register(raw);
        }
        Ok(Self { shrinker, _fs: fs })
    }
}

impl Drop for Shrinker {
    fn drop(&mut self) {
        // SAFETY: The shrinker is ours; this waits for calls that run.
        unsafe { bindings::shrinker_free(self.shrinker.as_ptr()) }
    }
}
