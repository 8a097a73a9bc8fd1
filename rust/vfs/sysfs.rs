// SPDX-License-Identifier: GPL-2.0
//! `/sys/fs/btrfs`: what this driver can do, and for each mounted volume the files that btrfs-progs
//! read.
//!
//! Under another `fstype` the directory has that name, so that the C driver's can be there, too.

use super::sysfs_files::{Uuid, ABILITIES, DEVICE, FEATURES, VOLUME};
use super::sysfs_space::{self, SpaceFilter};
use super::table::Table;
use crate::balance::committed_usage::usage;
use crate::bindings;
use crate::format::superblock::SuperBlock;
use crate::space::usage::Usage;
use crate::volume::Fs;
use core::fmt::Write;
use core::ptr::NonNull;
use kernel::error::to_result;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::str::as_char_ptr_in_const_context;
use kernel::sync::Mutex;
use kernel::types::Opaque;

/// What `show` writes to: a page.
pub(super) struct Text<'a> {
    page: &'a mut [u8],
    len: usize,
}

impl Text<'_> {
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> core::fmt::Result {
        let end = self.len.checked_add(bytes.len()).ok_or(core::fmt::Error)?;
        self.page
            .get_mut(self.len..end)
            .ok_or(core::fmt::Error)?
            .copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.bytes(text.as_bytes())
    }
}

/// What is shown in one file of a volume.
type ShowVolume = fn(&Fs, &SuperBlock, &mut Text<'_>) -> core::fmt::Result;

/// What is shown of some of a volume's block groups, in a file of the directory that is about
/// these.
pub(super) type ShowSpace = fn(&Fs, &[Usage], &mut Text<'_>) -> core::fmt::Result;

/// What a write to a file does.
type Store = fn(&Fs, &[u8]) -> Result;

enum Show {
    /// The same for every volume.
    Constant(&'static str),
    Volume(ShowVolume),
    Space(SpaceFilter, ShowSpace),
}

/// One file.
#[repr(C)]
pub(super) struct Attribute {
    attr: bindings::attribute,
    show: Show,
    store: Option<Store>,
}

// SAFETY: Attributes are statics that nobody changes; the pointer in them is to a string literal.
unsafe impl Sync for Attribute {}

impl Attribute {
    // With lockdep the structure has more fields.
    #[allow(clippy::needless_update)]
    const fn new(name: &'static CStr, show: Show) -> Self {
        Self {
            attr: bindings::attribute {
                name: as_char_ptr_in_const_context(name),
                mode: 0o444,
                ..pin_init::zeroed()
            },
            show,
            store: None,
        }
    }

    /// Makes the file one that root may write to.
    pub(super) const fn writable(mut self, store: Store) -> Self {
        self.attr.mode |= 0o200;
        self.store = Some(store);
        self
    }

    /// A file about the block groups of a place.
    pub(super) const fn space(name: &'static CStr, place: SpaceFilter, show: ShowSpace) -> Self {
        Self::new(name, Show::Space(place, show))
    }

    pub(super) const fn constant(name: &'static CStr, text: &'static str) -> Self {
        Self::new(name, Show::Constant(text))
    }

    pub(super) const fn volume(name: &'static CStr, show: ShowVolume) -> Self {
        Self::new(name, Show::Volume(show))
    }
}

/// One directory.
#[pin_data]
struct Node {
    #[pin]
    kobj: Opaque<bindings::kobject>,
    /// The volume that it is about; none for the top ones, and none once the volume goes.
    #[pin]
    fs: Mutex<Option<Fs>>,
}

/// `sysfs_ops::show`.
///
/// # Safety
///
/// As sysfs calls it: `kobj` is that of a [`Node`], `attr` that of an [`Attribute`], `buf` a page.
unsafe extern "C" fn show(
    kobj: *mut bindings::kobject,
    attr: *mut bindings::attribute,
    buf: *mut kernel::ffi::c_char,
) -> isize {
    let kobj: *mut Opaque<bindings::kobject> = kobj.cast();
    // SAFETY: By this function's contract; sysfs keeps the node while the call runs, and attributes
    // are statics.
    let (node, attribute, page) = unsafe {
        (
            &*kernel::container_of!(kobj, Node, kobj),
            &*kernel::container_of!(attr, Attribute, attr),
            core::slice::from_raw_parts_mut(buf.cast::<u8>(), kernel::page::PAGE_SIZE),
        )
    };
    let mut text = Text { page, len: 0 };
    match show_to(node, &attribute.show, &mut text) {
        Ok(()) => isize::try_from(text.len).unwrap_or(0),
        Err(e) => e.to_errno() as isize,
    }
}

fn show_to(node: &Node, show: &Show, text: &mut Text<'_>) -> Result {
    let written = match show {
        Show::Constant(constant) => text.write_str(constant),
        Show::Volume(show) => {
            // The lock is let go before the volume is asked, which may take locks and read.
            let fs = node.fs.lock().clone().ok_or(ENODEV)?;
            let reader = fs.reader()?;
            show(&fs, reader.superblock(), text)
        }
        Show::Space(place, show) => {
            let fs = node.fs.lock().clone().ok_or(ENODEV)?;
            let sums = usage(&fs)?;
            let mut here: KVec<Usage> = KVec::with_capacity(sums.len(), GFP_KERNEL)?;
            for sum in sums.iter().filter(|sum| place.has(sum)) {
                here.push(*sum, GFP_KERNEL)?;
            }
            show(&fs, &here, text)
        }
    };
    written.map_err(|_| EIO)
}

/// `sysfs_ops::store`.
///
/// # Safety
///
/// As sysfs calls it: `kobj` is that of a [`Node`], `attr` that of an [`Attribute`], `buf` holds
/// `len` bytes.
unsafe extern "C" fn store(
    kobj: *mut bindings::kobject,
    attr: *mut bindings::attribute,
    buf: *const kernel::ffi::c_char,
    len: usize,
) -> isize {
    let kobj: *mut Opaque<bindings::kobject> = kobj.cast();
    // SAFETY: By this function's contract; sysfs keeps the node while the call runs, and attributes
    // are statics.
    let (node, attribute, text) = unsafe {
        (
            &*kernel::container_of!(kobj, Node, kobj),
            &*kernel::container_of!(attr, Attribute, attr),
            core::slice::from_raw_parts(buf.cast::<u8>(), len),
        )
    };
    let stored = || {
        let store = attribute.store.ok_or(EIO)?;
        let fs = node.fs.lock().clone().ok_or(ENODEV)?;
        store(&fs, text)?;
        isize::try_from(len).map_err(|_| EINVAL)
    };
    stored().unwrap_or_else(|e: Error| e.to_errno() as isize)
}

/// `kobj_type::release`.
///
/// # Safety
///
/// As the driver core calls it, once, when nothing refers to the node any more.
unsafe extern "C" fn release(kobj: *mut bindings::kobject) {
    let kobj: *mut Opaque<bindings::kobject> = kobj.cast();
    // SAFETY: `Directory::new` let go of the box that the node is in.
    let node = unsafe { KBox::from_raw(kernel::container_of!(kobj, Node, kobj)) };
    drop(Pin::from(node));
}

static SYSFS_OPS: bindings::sysfs_ops = bindings::sysfs_ops {
    show: Some(show),
    store: Some(store),
};

static TYPE: Table<bindings::kobj_type> = Table::new(bindings::kobj_type {
    release: Some(release),
    sysfs_ops: &raw const SYSFS_OPS,
    ..pin_init::zeroed()
});

/// A directory that is there until this is dropped.
pub(super) struct Directory(NonNull<Node>);

// SAFETY: The driver core's functions on objects may be called from any thread, and a `Node` is
// `Send`.
unsafe impl Send for Directory {}
// SAFETY: As above; what changes in a node is behind its mutex.
unsafe impl Sync for Directory {}

impl Directory {
    /// # Safety
    ///
    /// `parent` is an object that outlives the result.
    unsafe fn new(
        parent: *mut bindings::kobject,
        name: &CStr,
        fs: Option<Fs>,
        attributes: impl IntoIterator<Item = &'static Attribute>,
    ) -> Result<Self> {
        let node = KBox::pin_init(
            pin_init!(Node {
                kobj: Opaque::new(pin_init::zeroed()),
                fs <- new_mutex!(fs),
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: The node is not moved from here on; `release` frees it.
        let node = KBox::into_raw(unsafe { Pin::into_inner_unchecked(node) });
        // SAFETY: The node is valid until `release`, which waits for the reference that
        // `kobject_init` makes; that is ours, and the drop of the result gives it up.
        let (directory, status) = unsafe {
            let status = bindings::kobject_init_and_add(
                (*node).kobj.get(),
                TYPE.as_ptr(),
                parent,
                c"%s".as_char_ptr(),
                name.as_char_ptr(),
            );
            (Self(NonNull::new_unchecked(node)), status)
        };
        to_result(status)?;
        for attribute in attributes {
            let files = [&raw const attribute.attr, core::ptr::null()];
            // SAFETY: The object was added; the list ends with a null and the attribute is a
            // static.
            to_result(unsafe { bindings::sysfs_create_files(directory.kobj(), files.as_ptr()) })?;
        }
        Ok(directory)
    }

    fn kobj(&self) -> *mut bindings::kobject {
        // SAFETY: The node lives as long as our reference.
        unsafe { self.0.as_ref() }.kobj.get()
    }

    fn notify(&self, file: &CStr) {
        // SAFETY: The object is ours, the name is terminated.
        unsafe {
            bindings::sysfs_notify(self.kobj(), core::ptr::null(), file.as_char_ptr());
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // SAFETY: The object is ours. Deleting it waits for readers of its files, and does nothing
        // if it was never added.
        unsafe { bindings::kobject_del(self.kobj()) };
        // Whoever still refers to the object does not keep the volume from going.
        // SAFETY: The node lives as long as our reference.
        let fs = unsafe { self.0.as_ref() }.fs.lock().take();
        drop(fs);
        // SAFETY: The reference is ours.
        unsafe { bindings::kobject_put(self.kobj()) };
    }
}

/// The directory of the driver, and in it what it can do.
pub(super) struct Top {
    directories: Option<TopDirectories>,
}

/// Inner directories come first, for they are dropped first.
struct TopDirectories {
    _features: Directory,
    top: Directory,
}

impl Top {
    /// Makes the directory `name`. If there is one already, which is another driver's, there is
    /// none of ours.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(name: &CStr) -> Result<Self> {
        // SAFETY: `/sys/fs` is always there, and the name is terminated.
        let taken =
            unsafe { bindings::rbtrfs_sysfs_taken(bindings::rbtrfs_fs_kobj(), name.as_char_ptr()) };
        if taken {
            return Ok(Self { directories: None });
        }
        // SAFETY: The parents are `/sys/fs`, which is always there, and what is made here, which is
        // kept.
        let directories = unsafe {
            let top = Directory::new(bindings::rbtrfs_fs_kobj(), name, None, &[])?;
            let features = FEATURES.iter().map(|feature| &feature.supported);
            let features = Iterator::chain(ABILITIES.iter(), features);
            TopDirectories {
                _features: Directory::new(top.kobj(), c"features", None, features)?,
                top,
            }
        };
        Ok(Self {
            directories: Some(directories),
        })
    }

    /// Makes the directory of a volume that is being mounted.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EEXIST` for a second volume with the same UUID.
    pub(super) fn add(
        &self,
        fs: &Fs,
        sb: &super::super_block::SuperBlock,
    ) -> Result<Option<VolumeDirectory>> {
        let Some(directories) = &self.directories else {
            return Ok(None);
        };
        let reader = fs.reader()?;
        let superblock = reader.superblock();
        let uuid = name_of(format_args!("{}", Uuid(&superblock.fsid)))?;
        let devid = name_of(format_args!("{}", superblock.dev_item.devid.get()))?;
        // SAFETY: The driver's directory is kept, and the name is terminated.
        let taken =
            unsafe { bindings::rbtrfs_sysfs_taken(directories.top.kobj(), uuid.as_ptr().cast()) };
        if taken {
            crate::fs_err!(
                fs,
                "a volume with the UUID {} is mounted from another device",
                Uuid(&superblock.fsid)
            );
            return Err(EEXIST);
        }
        let of = || Some(fs.clone());
        // SAFETY: Each parent is kept longer than what is in it: by the module, and by the order of
        // fields. The superblock has been set up on its device.
        let directory = unsafe {
            let volume = Directory::new(directories.top.kobj(), as_cstr(&uuid)?, of(), &VOLUME)?;
            let devinfo = Directory::new(volume.kobj(), c"devinfo", None, &[])?;
            let devices = Directory::new(volume.kobj(), c"devices", None, &[])?;
            to_result(bindings::rbtrfs_sysfs_link_device(
                devices.kobj(),
                sb.as_ptr(),
            ))?;
            to_result(bindings::rbtrfs_sysfs_link_bdi(volume.kobj(), sb.as_ptr()))?;
            let features = FEATURES
                .iter()
                .filter(|feature| feature.is_in_use(superblock))
                .map(|feature| &feature.in_use);
            VolumeDirectory {
                _device: Directory::new(devinfo.kobj(), as_cstr(&devid)?, of(), &DEVICE)?,
                _devinfo: devinfo,
                _allocation: Allocation::new(&volume, fs)?,
                _devices: devices,
                _features: Directory::new(volume.kobj(), c"features", None, features)?,
                volume,
            }
        };
        Ok(Some(directory))
    }
}

/// The directory of a mounted volume. Inner directories come first, for they are dropped first.
pub(super) struct VolumeDirectory {
    _device: Directory,
    _devinfo: Directory,
    _allocation: Allocation,
    _devices: Directory,
    _features: Directory,
    volume: Directory,
}

impl VolumeDirectory {
    /// Wakes those who poll `exclusive_operation`.
    pub(super) fn notify_exclusive_operation(&self) {
        self.volume.notify(c"exclusive_operation");
    }
}

/// The directory `allocation` of a volume. Inner directories come first, for they are dropped
/// first.
struct Allocation {
    _profiles: KVec<Directory>,
    _kinds: KVec<Directory>,
    _top: Directory,
}

impl Allocation {
    /// # Safety
    ///
    /// The volume's directory outlives the result.
    unsafe fn new(volume: &Directory, fs: &Fs) -> Result<Self> {
        let of = || Some(fs.clone());
        let (mut kinds, mut profiles) = (KVec::new(), KVec::new());
        // SAFETY: Each parent is kept longer than what is in it: by this function's contract and
        // the order of fields.
        unsafe {
            let top = Directory::new(volume.kobj(), c"allocation", of(), &sysfs_space::TOP)?;
            for kind in &sysfs_space::KINDS {
                let directory = Directory::new(top.kobj(), kind.name, of(), &kind.files)?;
                for (name, files) in &kind.profiles {
                    let profile = Directory::new(directory.kobj(), name, of(), files)?;
                    profiles.push(profile, GFP_KERNEL)?;
                }
                kinds.push(directory, GFP_KERNEL)?;
            }
            Ok(Self {
                _profiles: profiles,
                _kinds: kinds,
                _top: top,
            })
        }
    }
}

/// Text with a terminator after it.
fn name_of(text: core::fmt::Arguments<'_>) -> Result<[u8; 64]> {
    let mut name = [0; 64];
    let mut out = Text {
        page: name.get_mut(..63).ok_or(EINVAL)?,
        len: 0,
    };
    out.write_fmt(text).map_err(|_| ENAMETOOLONG)?;
    Ok(name)
}

fn as_cstr(name: &[u8]) -> Result<&CStr> {
    CStr::from_bytes_until_nul(name).map_err(|_| EINVAL)
}
