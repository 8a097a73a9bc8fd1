// SPDX-License-Identifier: GPL-2.0
//! `/dev/btrfs-control`, on which tools ask about devices that are not mounted.
//!
//! It belongs to whoever is registered as "btrfs"; under another name there is none.

use super::device_number::Numbers;
use super::filesystem::Filesystem;
use super::ioctl::UserArg;
use crate::bindings;
use crate::format::superblock::{SuperBlock, COPIES, MAGIC};
use core::ptr::NonNull;
use kernel::error::{from_err_ptr, to_result};
use kernel::fs::File;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::types::Opaque;
use zerocopy::IntoBytes;

/// The minor number that is set aside for it. The kernel crate's misc devices have numbers that are
/// chosen at run time.
const MINOR: i32 = 234;

/// Open a block device for reading.
const BLK_OPEN_READ: bindings::blk_mode_t = 1;

struct Inner {
    misc: Opaque<bindings::miscdevice>,
    operations: bindings::file_operations,
    filesystem: NonNull<Filesystem>,
}

// SAFETY: The misc layer synchronises all use of `misc`, and `filesystem` points to what is `Sync`.
unsafe impl Send for Inner {}
// SAFETY: As above.
unsafe impl Sync for Inner {}

/// The registered device; dropping it unregisters. Whoever has it open holds the module, so that it
/// is not dropped before.
pub(super) struct ControlDevice(Pin<KBox<Inner>>);

impl ControlDevice {
    /// Registers the device.
    ///
    /// # Errors
    ///
    /// `EBUSY` if another driver has it, `ENOMEM`.
    ///
    /// # Safety
    ///
    /// `filesystem` outlives the result.
    pub(super) unsafe fn new(module: &'static ThisModule, filesystem: &Filesystem) -> Result<Self> {
        let inner = Inner {
            misc: Opaque::new(pin_init::zeroed()),
            operations: bindings::file_operations {
                owner: module.as_ptr(),
                unlocked_ioctl: Some(unlocked_ioctl),
                #[cfg(CONFIG_COMPAT)]
                compat_ioctl: bindings::compat_ptr_ioctl,
                llseek: Some(bindings::noop_llseek),
                ..pin_init::zeroed()
            },
            filesystem: NonNull::from(filesystem),
        };
        let inner = KBox::into_pin(KBox::new(inner, GFP_KERNEL)?);
        let misc = inner.misc.get();
        // SAFETY: The structure is ours until it is registered, and pinned until it is
        // unregistered.
        to_result(unsafe {
            (*misc).minor = MINOR;
            (*misc).name = c"btrfs-control".as_char_ptr();
            (*misc).fops = &raw const inner.operations;
            bindings::misc_register(misc)
        })?;
        Ok(Self(inner))
    }
}

impl Drop for ControlDevice {
    fn drop(&mut self) {
        // SAFETY: `new` registered it.
        unsafe { bindings::misc_deregister(self.0.misc.get()) };
    }
}

/// `file_operations::unlocked_ioctl`.
///
/// # Safety
///
/// As the VFS calls it, for an open file of a device that [`ControlDevice`] registered.
unsafe extern "C" fn unlocked_ioctl(
    file: *mut bindings::file,
    cmd: kernel::ffi::c_uint,
    arg: kernel::ffi::c_ulong,
) -> kernel::ffi::c_long {
    // SAFETY: The misc layer keeps its structure here, and it is registered as long as a file is
    // open.
    let filesystem = unsafe {
        let misc: *const Opaque<bindings::miscdevice> = (*file).private_data.cast();
        (*kernel::container_of!(misc, Inner, misc))
            .filesystem
            .as_ref()
    };
    match crate::ioctl::control(&Devices::of(filesystem), cmd, UserArg::new(arg as u64)) {
        Ok(value) => value,
        Err(e) => e.to_errno() as kernel::ffi::c_long,
    }
}

/// The system's block devices, mounted or not.
pub(crate) struct Devices<'a>(&'a Filesystem);

impl<'a> Devices<'a> {
    /// Those that a filesystem's volumes may be mounted from.
    pub(super) fn of(filesystem: &'a Filesystem) -> Self {
        Self(filesystem)
    }

    /// How many devices the volume has that the device at `path` belongs to.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it holds no btrfs volume; what opening and reading it give.
    pub(crate) fn volume_size(&self, path: &CStr) -> Result<u64> {
        let holder = core::ptr::null_mut();
        // SAFETY: The path is terminated. Without a holder nothing is ever called back.
        let file = from_err_ptr(unsafe {
            bindings::bdev_file_open_by_path(
                path.as_char_ptr(),
                BLK_OPEN_READ,
                holder,
                core::ptr::null(),
            )
        })?;
        let file = NonNull::new(file).ok_or(ENODEV)?;
        // SAFETY: The reference is ours, and `File` is a transparent wrapper. The position that is
        // used is our own.
        let file = unsafe { ARef::from_raw(file.cast::<File>()) };
        let superblock = KBox::<SuperBlock>::new_uninit(GFP_KERNEL | __GFP_ZERO)?;
        // SAFETY: The memory is zeroed, and such a superblock is valid.
        let mut superblock = unsafe { superblock.assume_init() };
        let place = *COPIES.first().ok_or(EINVAL)?;
        let bytes = superblock.as_mut_bytes();
        let (len, mut position) = (bytes.len(), i64::try_from(place).map_err(|_| EINVAL)?);
        // What tools have just written may not have reached the disk: this reads through the page
        // cache. SAFETY: The file is open for reading, and the buffer is as long as is said.
        let read = unsafe {
            bindings::kernel_read(file.as_ptr(), bytes.as_mut_ptr().cast(), len, &mut position)
        };
        match usize::try_from(read) {
            Ok(read) if read == len => (),
            // Too small.
            Ok(_) => return Err(EINVAL),
            Err(_) => return Err(Error::from_errno(i32::try_from(read).unwrap_or(-5))),
        }
        if superblock.magic.get() != MAGIC || superblock.bytenr.get() != place {
            return Err(EINVAL);
        }
        Ok(superblock.num_devices.get())
    }

    /// Whether a volume is mounted from the device at `path`.
    ///
    /// # Errors
    ///
    /// What looking the path up gives.
    pub(crate) fn is_mounted(&self, path: &CStr) -> Result<bool> {
        let mut search = Search {
            numbers: self.0.numbers(),
            dev: 0,
            found: false,
        };
        // SAFETY: The path is terminated, and there is space for the number.
        to_result(unsafe { bindings::lookup_bdev(path.as_char_ptr(), &mut search.dev) })?;
        // SAFETY: The type is registered, and the callback gets what it expects, during the call
        // only.
        unsafe {
            bindings::iterate_supers_type(self.0.as_ptr(), Some(compare), (&raw mut search).cast());
        }
        Ok(search.found)
    }
}

struct Search<'a> {
    numbers: &'a Numbers,
    dev: bindings::dev_t,
    found: bool,
}

/// # Safety
///
/// `sb` is a superblock that is locked, `search` points to a [`Search`] that nobody else uses.
unsafe extern "C" fn compare(sb: *mut bindings::super_block, search: *mut kernel::ffi::c_void) {
    // SAFETY: By this function's contract.
    let (sb, search) = unsafe { (&*sb, &mut *search.cast::<Search<'_>>()) };
    // The number does not change while the superblock is locked.
    let is_volume = search.numbers.of(search.dev) == Some(sb.s_dev);
    search.found |= is_volume || sb.s_dev == search.dev;
}
