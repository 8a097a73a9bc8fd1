// SPDX-License-Identifier: GPL-2.0
//! The files of `/sys/fs/btrfs/<uuid>/allocation`: how much space block groups of each type have.
//!
//! They show what the last operation left: what is reserved are extents that the running
//! transaction has not entered into its trees yet.

use super::sysfs::{Attribute, ShowSpace, Text};
use crate::balance::committed_usage::commit_reserve;
use crate::format::chunk::block_group_flags as bg;
use crate::space::block_group::Kind as BlockGroupKind;
use crate::space::chunk_alloc::wanted_size;
use crate::space::usage::Usage;
use crate::volume::Fs;
use core::fmt::Write;
use kernel::prelude::*;

/// The block groups that a directory is about.
#[derive(Clone, Copy)]
pub(super) struct SpaceFilter {
    /// Their type; zero for those of every type.
    kind: u64,
    /// Their profile; `None` for those of every profile.
    profile: Option<u64>,
}

impl SpaceFilter {
    const ALL: SpaceFilter = SpaceFilter {
        kind: 0,
        profile: None,
    };

    const fn of(kind: u64, profile: Option<u64>) -> Self {
        Self { kind, profile }
    }

    /// Whether such block groups are among them.
    pub(super) fn has(&self, usage: &Usage) -> bool {
        let profile = usage.flags & bg::PROFILE_MASK;
        usage.flags & self.kind == self.kind && self.profile.is_none_or(|wanted| wanted == profile)
    }
}

/// A directory for one type of block groups.
pub(super) struct Kind {
    /// Its name.
    pub(super) name: &'static CStr,
    /// The files in it.
    pub(super) files: [Attribute; 18],
    /// Directories for the profiles that one device can have, with their files.
    pub(super) profiles: [(&'static CStr, [Attribute; 2]); 2],
}

/// The files about all types.
pub(super) static TOP: [Attribute; 3] = [
    Attribute::constant(c"global_rsv_reserved", "0\n"),
    Attribute::space(c"global_rsv_size", SpaceFilter::ALL, |fs, sums, out| {
        writeln!(out, "{}", commit_reserve(sums, fs.geometry.nodesize))
    }),
    // What was freed and cannot be used again yet, as it waits for a commit or for those who read
    // one before it.
    Attribute::space(c"bytes_pinned", SpaceFilter::ALL, PINNED),
];

pub(super) static KINDS: [Kind; 3] = [
    kind(c"data", bg::DATA, "1\n", |fs, _, out| {
        chunk_size(BlockGroupKind::Data, fs, out)
    }),
    kind(c"metadata", bg::METADATA, "4\n", |fs, _, out| {
        chunk_size(BlockGroupKind::Metadata, fs, out)
    }),
    kind(c"system", bg::SYSTEM, "2\n", |fs, _, out| {
        chunk_size(BlockGroupKind::System, fs, out)
    }),
];

fn chunk_size(kind: BlockGroupKind, fs: &Fs, out: &mut Text<'_>) -> core::fmt::Result {
    writeln!(out, "{}", wanted_size(kind, fs.device.size()))
}

fn sum(sums: &[Usage], of: fn(&Usage) -> u64) -> u64 {
    sums.iter()
        .fold(0u64, |total, usage| total.saturating_add(of(usage)))
}

const TOTAL: ShowSpace = |_, sums, out| writeln!(out, "{}", sum(sums, |usage| usage.total));
const USED: ShowSpace = |_, sums, out| writeln!(out, "{}", sum(sums, |usage| usage.used));
const PINNED: ShowSpace = |_, sums, out| writeln!(out, "{}", sum(sums, |usage| usage.pinned));
const RESERVED: ShowSpace = |_, sums, out| writeln!(out, "{}", sum(sums, |usage| usage.reserved));
const READ_ONLY: ShowSpace = |_, sums, out| {
    let bytes = sum(sums, |usage| usage.supers.saturating_add(usage.read_only));
    writeln!(out, "{bytes}")
};
const DISK_TOTAL: ShowSpace = |_, sums, out| {
    let bytes = sum(sums, |usage| usage.total.saturating_mul(usage.copies()));
    writeln!(out, "{bytes}")
};
const DISK_USED: ShowSpace = |_, sums, out| {
    let bytes = sum(sums, |usage| usage.used.saturating_mul(usage.copies()));
    writeln!(out, "{bytes}")
};

/// What is reserved for data in memory, and the metadata that commits keep for themselves.
fn may_use(fs: &Fs, sums: &[Usage], out: &mut Text<'_>) -> core::fmt::Result {
    let is_any = |kind: u64| sums.iter().any(|usage| usage.flags & kind != 0);
    let bytes = if is_any(bg::METADATA) {
        commit_reserve(sums, fs.geometry.nodesize)
    } else if is_any(bg::DATA) {
        fs.data_bytes_may_use()
    } else {
        0
    };
    writeln!(out, "{bytes}")
}

/// How many block groups are meant for extents of some size: none.
fn size_classes(_: &Fs, sums: &[Usage], out: &mut Text<'_>) -> core::fmt::Result {
    let data = sums.iter().filter(|usage| usage.flags & bg::DATA != 0);
    let groups = data.fold(0u64, |sum, usage| sum.saturating_add(usage.groups));
    write!(out, "none {groups}\nsmall 0\nmedium 0\nlarge 0\n")
}

const fn kind(name: &'static CStr, kind: u64, flags: &'static str, chunk_size: ShowSpace) -> Kind {
    let all = SpaceFilter::of(kind, None);
    Kind {
        name,
        files: [
            Attribute::constant(c"flags", flags),
            Attribute::space(c"total_bytes", all, TOTAL),
            Attribute::space(c"bytes_used", all, USED),
            Attribute::space(c"bytes_pinned", all, PINNED),
            Attribute::space(c"bytes_reserved", all, RESERVED),
            Attribute::space(c"bytes_may_use", all, may_use),
            Attribute::space(c"bytes_readonly", all, READ_ONLY),
            Attribute::constant(c"bytes_zone_unusable", "0\n"),
            Attribute::space(c"disk_total", all, DISK_TOTAL),
            Attribute::space(c"disk_used", all, DISK_USED),
            Attribute::space(c"chunk_size", all, chunk_size),
            Attribute::space(c"size_classes", all, size_classes),
            // Balance never starts by itself.
            Attribute::constant(c"bg_reclaim_threshold", "0\n"),
            Attribute::constant(c"dynamic_reclaim", "0\n"),
            Attribute::constant(c"periodic_reclaim", "0\n"),
            Attribute::constant(c"reclaim_count", "0\n"),
            Attribute::constant(c"reclaim_bytes", "0\n"),
            Attribute::constant(c"reclaim_errors", "0\n"),
        ],
        profiles: [
            (c"single", profile(SpaceFilter::of(kind, Some(0)))),
            (c"dup", profile(SpaceFilter::of(kind, Some(bg::DUP)))),
        ],
    }
}

const fn profile(place: SpaceFilter) -> [Attribute; 2] {
    [
        Attribute::space(c"total_bytes", place, TOTAL),
        Attribute::space(c"used_bytes", place, USED),
    ]
}
