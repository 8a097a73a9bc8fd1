// SPDX-License-Identifier: GPL-2.0
//! Registration as a filesystem type, under the name that the module parameter `fstype` gives.

use super::control_device::ControlDevice;
use super::device_number::Numbers;
use super::inode::InodeCache;
use super::{fs_context, super_block, sysfs};
use crate::bindings;
use core::pin::Pin;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::types::Opaque;

/// What the module keeps for all superblocks. Fields are dropped in this order.
pub(super) struct Filesystem {
    fs_type: Opaque<bindings::file_system_type>,
    sysfs: sysfs::Top,
    inode_cache: InodeCache,
    numbers: Numbers,
}

// SAFETY: The type is registered with the VFS, which synchronises all use of `fs_type`.
unsafe impl Send for Filesystem {}
// SAFETY: As above; the other fields are `Sync`.
unsafe impl Sync for Filesystem {}

impl Drop for Filesystem {
    fn drop(&mut self) {
        // SAFETY: `Registration::register` registered the keys as soon as there was a box. The type
        // is not registered any more, so that no lock has one of these classes.
        unsafe { bindings::rbtrfs_fs_type_unregister_keys(self.fs_type.get()) };
    }
}

impl Filesystem {
    /// The one that a context of ours was made for.
    ///
    /// # Safety
    ///
    /// `fc` is a context of a type that [`Registration`] registered, and lives for `'a`; so does,
    /// then, the module and what it keeps.
    pub(super) unsafe fn of_context<'a>(fc: *const bindings::fs_context) -> &'a Self {
        // SAFETY: By this function's contract.
        let fs_type: *const Opaque<bindings::file_system_type> = unsafe { (*fc).fs_type }.cast();
        // SAFETY: Every type of ours is the field of a `Filesystem`.
        unsafe { &*kernel::container_of!(fs_type, Self, fs_type) }
    }

    /// The one whose type a superblock is of.
    ///
    /// # Safety
    ///
    /// `sb` is a superblock of a type that [`Registration`] registered, and lives for `'a`.
    pub(super) unsafe fn of_super<'a>(sb: *const bindings::super_block) -> &'a Self {
        // SAFETY: By this function's contract.
        let fs_type: *const Opaque<bindings::file_system_type> = unsafe { (*sb).s_type }.cast();
        // SAFETY: Every type of ours is the field of a `Filesystem`.
        unsafe { &*kernel::container_of!(fs_type, Self, fs_type) }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::file_system_type {
        self.fs_type.get()
    }

    pub(super) fn inode_cache(&self) -> &InodeCache {
        &self.inode_cache
    }

    /// The device numbers of the volumes.
    pub(super) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    pub(super) fn sysfs(&self) -> &sysfs::Top {
        &self.sysfs
    }
}

/// The registered filesystem type; dropping it unregisters. The VFS holds the module while anything
/// is mounted, so that this is not dropped before.
pub(crate) struct Registration {
    /// Refers to what follows, and is dropped before.
    control: Option<ControlDevice>,
    filesystem: Pin<KBox<Filesystem>>,
}

impl Registration {
    /// Registers the type.
    ///
    /// # Errors
    ///
    /// `EBUSY`, with a line in the log, if the name is taken; `EINVAL` if it is not a name;
    /// `ENOMEM`.
    pub(crate) fn new(module: &'static ThisModule) -> Result<Self> {
        bindings::agree()?;
        // SAFETY: This is called once, from the module's initialiser.
        unsafe { super::platform::init() }?;
        let registration = Self::register(module);
        if registration.is_err() {
            super::platform::exit();
        }
        registration
    }

    fn register(module: &'static ThisModule) -> Result<Self> {
        // SAFETY: The parameter is a terminated string that lives as long as the module.
        let name: &'static CStr = unsafe { CStr::from_char_ptr(bindings::rbtrfs_fstype().cast()) };
        let shown = name.to_str().unwrap_or("?");
        if name.is_empty() || name.to_bytes().contains(&b'.') {
            pr_err!("'{shown}' cannot be the name of a filesystem\n");
            return Err(EINVAL);
        }
        let filesystem = KBox::new(
            Filesystem {
                fs_type: Opaque::new(bindings::file_system_type {
                    owner: module.as_ptr(),
                    name: name.as_char_ptr(),
                    fs_flags: (bindings::FS_REQUIRES_DEV
                        | bindings::FS_ALLOW_IDMAP
                        | bindings::FS_MGTIME) as i32,
                    init_fs_context: Some(fs_context::init),
                    kill_sb: Some(super_block::kill),
                    ..pin_init::zeroed()
                }),
                sysfs: sysfs::Top::new(name)?,
                inode_cache: InodeCache::new()?,
                numbers: Numbers::new()?,
            },
            GFP_KERNEL,
        )?;
        let filesystem = KBox::into_pin(filesystem);
        // SAFETY: The keys are pinned with the structure, and its drop unregisters them.
        unsafe { bindings::rbtrfs_fs_type_register_keys(filesystem.fs_type.get()) };
        // SAFETY: The structure is pinned, and lives until it is unregistered.
        let status = unsafe { bindings::register_filesystem(filesystem.fs_type.get()) };
        if status == EBUSY.to_errno() {
            pr_err!(
                "a filesystem '{shown}' is registered already (the C driver's?); unload it, or load this module with fstype=NAME\n"
            );
        }
        to_result(status)?;
        let mut registration = Self {
            control: None,
            filesystem,
        };
        if name == c"btrfs" {
            // SAFETY: The registration drops the device before the filesystem.
            match unsafe { ControlDevice::new(module, &registration.filesystem) } {
                Ok(control) => registration.control = Some(control),
                // Volumes can be mounted all the same.
                Err(e) => pr_warn!("no /dev/btrfs-control: error {}\n", e.to_errno()),
            }
        }
        pr_info!("registered as '{shown}'\n");
        Ok(registration)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        drop(self.control.take());
        // SAFETY: `register` registered the type; no superblock of it is left, for each holds the
        // module.
        let status = unsafe { bindings::unregister_filesystem(self.filesystem.fs_type.get()) };
        if status != 0 {
            pr_err!("the filesystem was not registered: {status}\n");
        }
        super::platform::exit();
    }
}
