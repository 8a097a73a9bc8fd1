// SPDX-License-Identifier: GPL-2.0
//! The files of `/sys/fs/btrfs` about the driver, and those about a volume and its device.

use super::sysfs::Attribute;
use crate::bindings;
use crate::format::superblock::{compat_ro, incompat, SuperBlock};
use core::fmt::Write;
use kernel::prelude::*;

/// A UUID as text.
pub(super) struct Uuid<'a>(pub(super) &'a [u8; 16]);

impl core::fmt::Display for Uuid<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_char('-')?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// What the driver supports that is no bit of a volume. The other files of that directory are
/// [`FEATURES`].
pub(super) static ABILITIES: [Attribute; 6] = [
    Attribute::constant(c"acl", "1\n"),
    Attribute::constant(c"rmdir_subvol", "0\n"),
    Attribute::constant(c"supported_checksums", "crc32c xxhash64 sha256 blake2b\n"),
    Attribute::constant(c"send_stream_version", "2\n"),
    Attribute::constant(c"supported_sectorsizes", "4096\n"),
    Attribute::constant(
        c"supported_rescue_options",
        "usebackuproot nologreplay ignorebadroots ignoredatacsums ignoremetacsums ignoresuperflags all\n",
    ),
];

/// A feature that is a bit of the superblock.
pub(super) struct Feature {
    /// Bits of which one is set where the feature is in use; one of them is zero.
    incompat: u64,
    compat_ro: u64,
    /// In the driver's directory: it can be neither set nor cleared on a mounted volume.
    pub(super) supported: Attribute,
    /// In the directory of a volume that uses it.
    pub(super) in_use: Attribute,
}

impl Feature {
    const fn new(name: &'static CStr, incompat: u64, compat_ro: u64) -> Self {
        Self {
            incompat,
            compat_ro,
            supported: Attribute::constant(name, "0\n"),
            in_use: Attribute::constant(name, "1\n"),
        }
    }

    pub(super) fn is_in_use(&self, superblock: &SuperBlock) -> bool {
        superblock.incompat_flags.get() & self.incompat != 0
            || superblock.compat_ro_flags.get() & self.compat_ro != 0
    }
}

pub(super) static FEATURES: [Feature; 8] = [
    Feature::new(c"default_subvol", incompat::DEFAULT_SUBVOL, 0),
    Feature::new(c"compress_lzo", incompat::COMPRESS_LZO, 0),
    Feature::new(c"compress_zstd", incompat::COMPRESS_ZSTD, 0),
    Feature::new(c"extended_iref", incompat::EXTENDED_IREF, 0),
    Feature::new(c"skinny_metadata", incompat::SKINNY_METADATA, 0),
    Feature::new(c"no_holes", incompat::NO_HOLES, 0),
    Feature::new(c"free_space_tree", 0, compat_ro::FREE_SPACE_TREE),
    Feature::new(c"block_group_tree", 0, compat_ro::BLOCK_GROUP_TREE),
];

pub(super) static VOLUME: [Attribute; 16] = [
    Attribute::volume(c"label", |_, sb, out| {
        let label = sb.label.split(|byte| *byte == 0).next().unwrap_or(&[]);
        if label.is_empty() {
            return Ok(());
        }
        out.bytes(label)?;
        out.bytes(b"\n")
    }),
    Attribute::volume(c"nodesize", |fs, _, out| {
        writeln!(out, "{}", u32::from(fs.geometry.nodesize))
    }),
    Attribute::volume(c"sectorsize", |fs, _, out| {
        writeln!(out, "{}", u32::from(fs.geometry.sectorsize))
    }),
    Attribute::volume(c"clone_alignment", |fs, _, out| {
        writeln!(out, "{}", u32::from(fs.geometry.sectorsize))
    }),
    Attribute::constant(c"quota_override", "0\n"),
    Attribute::volume(c"checksum", |fs, _, out| {
        let name = fs.geometry.checksum.name();
        writeln!(out, "{name} ({name}-lib)")
    }),
    Attribute::constant(c"temp_fsid", "0\n"),
    Attribute::volume(c"metadata_uuid", |_, sb, out| {
        // Volumes on which the two differ are not mounted.
        writeln!(out, "{}", Uuid(&sb.fsid))
    }),
    Attribute::volume(c"generation", |_, sb, out| {
        writeln!(out, "{}", sb.generation.get())
    }),
    Attribute::volume(c"exclusive_operation", |fs, _, out| {
        writeln!(out, "{}", fs.state.exclusive_operation().name())
    }),
    Attribute::volume(c"send_in_progress", |fs, _, out| {
        writeln!(out, "{}", fs.state.send_in_progress())
    }),
    Attribute::volume(c"send_balance", |fs, _, out| {
        writeln!(out, "{}", fs.state.send_balance().name())
    }),
    // For how long, in milliseconds, the oldest commit that is being read has been: what was freed
    // since is pinned.
    Attribute::volume(c"oldest_epoch_age_ms", |fs, _, out| {
        writeln!(out, "{}", fs.epochs.oldest_age_ms())
    }),
    Attribute::constant(c"read_policy", "[pid]\n"),
    // Balance never starts by itself.
    Attribute::constant(c"bg_reclaim_threshold", "0\n"),
    Attribute::volume(c"commit_stats", |fs, _, out| {
        let times = fs.commits.times();
        writeln!(out, "commits {}", times.commits)?;
        writeln!(out, "cur_commit_ms {}", times.current)?;
        writeln!(out, "last_commit_ms {}", times.last)?;
        writeln!(out, "max_commit_ms {}", times.max)?;
        writeln!(out, "total_commit_ms {}", times.total)
    })
    .writable(|fs, text| {
        // The only thing to be written: forget the longest one.
        if !capable_sys_resource() {
            return Err(EPERM);
        }
        if text.trim_ascii() != b"0" {
            return Err(EINVAL);
        }
        fs.commits.reset_max();
        Ok(())
    }),
];

pub(super) static DEVICE: [Attribute; 7] = [
    Attribute::volume(c"error_stats", |fs, _, out| {
        let names = ["write", "read", "flush", "corruption", "generation"];
        for (name, count) in names.iter().zip(fs.stats.get()) {
            writeln!(out, "{name}_errs {count}")?;
        }
        Ok(())
    }),
    Attribute::volume(c"fsid", |_, sb, out| writeln!(out, "{}", Uuid(&sb.fsid))),
    Attribute::constant(c"in_fs_metadata", "1\n"),
    Attribute::constant(c"missing", "0\n"),
    Attribute::constant(c"replace_target", "0\n"),
    Attribute::volume(c"scrub_speed_max", |fs, _, out| {
        writeln!(out, "{}", fs.scrub_speed_max())
    })
    .writable(|fs, text| {
        let limit = crate::mount::size(text.trim_ascii()).ok_or(EINVAL)?;
        fs.set_scrub_speed_max(limit);
        Ok(())
    }),
    Attribute::volume(c"writeable", |fs, _, out| {
        writeln!(out, "{}", u8::from(!fs.is_read_only()))
    }),
];

fn capable_sys_resource() -> bool {
    // SAFETY: The function looks at the current task's credentials.
    unsafe { bindings::rbtrfs_capable(bindings::CAP_SYS_RESOURCE as i32) }
}
