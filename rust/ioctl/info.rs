// SPDX-License-Identifier: GPL-2.0
//! What there is to know of the volume and its device, and the label, which can be changed, too.

use crate::balance::committed_usage::{commit_reserve, usage};
use crate::device::features::{COMPAT_RO_SUPPORTED, INCOMPAT_SUPPORTED};
use crate::device::stats::STATS;
use crate::format::superblock::LABEL_SIZE;
use crate::space::space_info::SpaceContext;
use crate::space::usage::allocated;
use crate::trans::transaction::Reserve;
use crate::vfs::{capable_sys_admin, with_current, OpenFile, UserArg};
use crate::volume::Fs;
use crate::{fs_err, fs_info, fs_warn};
use kernel::prelude::*;
use zerocopy::{FromZeros, IntoBytes};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct btrfs_ioctl_fs_info_args`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct FsInfo {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    nodesize: u32,
    sectorsize: u32,
    clone_alignment: u32,
    csum_type: u16,
    csum_size: u16,
    flags: u64,
    generation: u64,
    metadata_uuid: [u8; 16],
    reserved: [u8; 944],
}

/// Bits of `FsInfo::flags`: in, what is asked for; out, what is answered.
const WITH_CSUM: u64 = 1 << 0;
const WITH_GENERATION: u64 = 1 << 1;
const WITH_METADATA_UUID: u64 = 1 << 2;

/// `struct btrfs_ioctl_dev_info_args`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DevInfo {
    devid: u64,
    uuid: [u8; 16],
    bytes_used: u64,
    total_bytes: u64,
    fsid: [u8; 16],
    unused: [u64; 377],
    path: [u8; 1024],
}

/// `struct btrfs_ioctl_space_args`, after which are [`SpaceInfo`]s.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SpaceArgs {
    space_slots: u64,
    total_spaces: u64,
}

/// `struct btrfs_ioctl_space_info`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SpaceInfo {
    flags: u64,
    total_bytes: u64,
    used_bytes: u64,
}

/// The flag of the space that commits keep for themselves.
const GLOBAL_RESERVE: u64 = 1 << 49;

/// `struct btrfs_ioctl_get_dev_stats`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DevStats {
    devid: u64,
    nr_items: u64,
    flags: u64,
    values: [u64; STATS],
    unused: [u64; 121],
}

/// The bit of `DevStats::flags` that asks to set all to zero.
const RESET: u64 = 1 << 0;

/// `struct btrfs_ioctl_feature_flags`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Features {
    compat: u64,
    compat_ro: u64,
    incompat: u64,
}

pub(super) type Label = [u8; LABEL_SIZE];

const _: () = {
    assert!(size_of::<FsInfo>() == 1024 && size_of::<DevInfo>() == 4096);
    assert!(size_of::<SpaceArgs>() == 16 && size_of::<SpaceInfo>() == 24);
    assert!(size_of::<DevStats>() == 1032 && size_of::<Features>() == 24);
};

pub(super) fn fs_info(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let mut info: KBox<FsInfo> = arg.read_boxed()?;
    let asked = info.flags;
    info.zero();
    let reader = file.fs().reader()?;
    let superblock = reader.superblock();
    info.max_id = superblock.dev_item.devid.get();
    info.num_devices = 1;
    info.fsid = superblock.fsid;
    info.nodesize = superblock.nodesize.get();
    info.sectorsize = superblock.sectorsize.get();
    info.clone_alignment = superblock.sectorsize.get();
    info.flags = asked & (WITH_CSUM | WITH_GENERATION | WITH_METADATA_UUID);
    if asked & WITH_CSUM != 0 {
        info.csum_type = superblock.csum_type.get();
        info.csum_size = file.fs().geometry.checksum.size() as u16;
    }
    if asked & WITH_GENERATION != 0 {
        info.generation = reader.generation();
    }
    if asked & WITH_METADATA_UUID != 0 {
        // Volumes on which the two differ are not mounted.
        info.metadata_uuid = superblock.fsid;
    }
    // User memory is touched only when no commit is held.
    drop(reader);
    arg.write(&*info)
}

pub(super) fn dev_info(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let mut info: KBox<DevInfo> = arg.read_boxed()?;
    let fs = file.fs();
    let reader = fs.reader()?;
    let device = &reader.superblock().dev_item;
    if info.devid != device.devid.get() || !(info.uuid == [0; 16] || info.uuid == device.uuid) {
        return Err(ENODEV);
    }
    info.uuid = device.uuid;
    info.bytes_used = allocated(&usage(fs)?);
    info.total_bytes = device.total_bytes.get();
    info.fsid = reader.superblock().fsid;
    info.path.fill(0);
    // The last byte stays zero.
    let (place, _) = info.path.split_at_mut(1023);
    for (to, from) in place.iter_mut().zip(file.device_path()) {
        *to = *from;
    }
    drop(reader);
    arg.write(&*info)
}

/// Sums over the block groups of each kind that there are, and what commits keep for themselves.
fn spaces(fs: &Fs) -> Result<KVec<SpaceInfo>> {
    let sums = usage(fs)?;
    let mut spaces = KVec::new();
    for sum in sums.iter().filter(|sum| sum.total != 0) {
        let space = SpaceInfo {
            flags: sum.flags,
            total_bytes: sum.total,
            used_bytes: sum.in_use(),
        };
        spaces.push(space, GFP_KERNEL)?;
    }
    let reserve = SpaceInfo {
        flags: GLOBAL_RESERVE,
        total_bytes: commit_reserve(&sums, fs.geometry.nodesize),
        used_bytes: 0,
    };
    spaces.push(reserve, GFP_KERNEL)?;
    Ok(spaces)
}

pub(super) fn space_info(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let mut args: SpaceArgs = arg.read()?;
    let spaces = spaces(file.fs())?;
    let shown = match usize::try_from(args.space_slots) {
        // That asks for their number.
        Ok(0) => {
            args.total_spaces = spaces.len() as u64;
            return arg.write(&args);
        }
        Ok(slots) => spaces.get(..slots).unwrap_or(&spaces),
        Err(_) => &spaces,
    };
    args.total_spaces = shown.len() as u64;
    arg.add(size_of::<SpaceArgs>() as u64)?
        .write_slice(shown.as_bytes())?;
    arg.write(&args)
}

/// The device's error counts, and setting them to zero.
pub(super) fn dev_stats(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let mut stats: KBox<DevStats> = arg.read_boxed()?;
    let reset = stats.flags & RESET != 0;
    if reset && !capable_sys_admin() {
        return Err(EPERM);
    }
    let fs = file.fs();
    if stats.devid != fs.reader()?.superblock().dev_item.devid.get() {
        fs_warn!(fs, "get dev_stats failed, device not found");
        return Err(ENODEV);
    }
    let counts = if reset {
        let counts = fs.stats.reset();
        with_current(|name, pid| fs_info!(fs, "device stats zeroed by {name} ({pid})"));
        counts
    } else {
        fs.stats.get()
    };
    let wanted = usize::try_from(stats.nr_items).unwrap_or(STATS);
    for (value, count) in stats.values.iter_mut().zip(counts).take(wanted) {
        *value = count;
    }
    stats.nr_items = wanted.min(STATS) as u64;
    arg.write(&*stats)?;
    if reset {
        store_stats(file)?;
    }
    Ok(())
}

/// Commits the counts that were set to zero, as there may be no other commit before the volume is
/// unmounted. What is mounted read-only keeps them in memory.
fn store_stats(file: &OpenFile<'_>) -> Result {
    let Ok(_writing) = file.want_write() else {
        return Ok(());
    };
    if file.fs().is_read_only() {
        return Ok(());
    }
    let mut trans = file.fs().begin(Reserve::default())?;
    trans.mark_changed();
    trans.commit()
}

pub(super) fn features(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let reader = file.fs().reader()?;
    let superblock = reader.superblock();
    let features = Features {
        compat: superblock.compat_flags.get(),
        compat_ro: superblock.compat_ro_flags.get(),
        incompat: superblock.incompat_flags.get(),
    };
    drop(reader);
    arg.write(&features)
}

/// What is supported, and what of it can be set and cleared on a mounted volume: nothing.
pub(super) fn supported_features(arg: UserArg) -> Result {
    let none = Features {
        compat: 0,
        compat_ro: 0,
        incompat: 0,
    };
    let supported = Features {
        compat: 0,
        compat_ro: COMPAT_RO_SUPPORTED,
        incompat: INCOMPAT_SUPPORTED,
    };
    arg.write(&[supported, none, none])
}

/// Copies the label out, without a zero at its end: user space begins with zeros.
pub(super) fn label(file: &OpenFile<'_>, arg: UserArg) -> Result {
    let mut label = KVec::new();
    label.extend_from_slice(file.fs().reader()?.superblock().label(), GFP_KERNEL)?;
    arg.write_slice(&label)
}

pub(super) fn set_label(file: &OpenFile<'_>, arg: UserArg) -> Result {
    if !capable_sys_admin() {
        return Err(EPERM);
    }
    let mut label: Label = arg.read()?;
    let fs = file.fs();
    let Some(end) = label.iter().position(|byte| *byte == 0) else {
        fs_err!(
            fs,
            "unable to set label with more than {} bytes",
            LABEL_SIZE - 1
        );
        return Err(EINVAL);
    };
    if let Some(rest) = label.get_mut(end..) {
        rest.fill(0);
    }
    let _writing = file.want_write()?;
    let mut trans = fs.begin(Reserve::default())?;
    trans.superblock_mut().label = label;
    trans.mark_changed();
    trans.commit()
}
