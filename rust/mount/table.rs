// SPDX-License-Identifier: GPL-2.0
//! The table of mount options, in the order of the C driver's `btrfs_fs_parameters`.

use super::options::{Compress, Rescue, SpaceCache};
use super::parse::shown;
use super::{number, Level, Log, MountOptions, Settings, COMMIT_INTERVAL};
use crate::format::{tree_id, CompressionMethod};
use crate::state::SendBalance;
use kernel::prelude::*;

/// An option.
pub struct Parameter {
    /// Its name.
    pub name: &'static [u8],
    /// Its value.
    pub takes: Takes,
    /// Nothing changes by it but how something is done, if at all.
    pub is_hint: bool,
}

/// Takes a flag that can be negated.
type TakeFlag = fn(&mut Settings, bool, &mut Log<'_>) -> Result;
/// Takes one of several values.
type TakeChoice = fn(&mut Settings, &mut Log<'_>) -> Result;

/// The values of an option, and what becomes of them.
pub enum Takes {
    /// None.
    Flag(fn(&mut Settings)),
    /// None; with `no` in front of the name the flag is cleared.
    FlagOrNo(TakeFlag),
    /// A number of up to 32 bits.
    Number32(fn(&mut MountOptions, u32, &mut Log<'_>) -> Result),
    /// A number of up to 64 bits.
    Number64(fn(&mut MountOptions, u64)),
    /// Text that is not empty.
    Text(fn(&mut MountOptions, &[u8], &mut Log<'_>) -> Result),
    /// One of these.
    OneOf(&'static [(&'static [u8], TakeChoice)]),
}

impl Takes {
    /// Whether there is no value.
    pub const fn is_flag(&self) -> bool {
        matches!(self, Takes::Flag(_) | Takes::FlagOrNo(_))
    }
}

const fn option(name: &'static [u8], takes: Takes) -> Parameter {
    Parameter {
        name,
        takes,
        is_hint: false,
    }
}

const fn hint(name: &'static [u8], takes: Takes) -> Parameter {
    Parameter {
        name,
        takes,
        is_hint: true,
    }
}

/// A flag that changes nothing.
const HINT: Takes = Takes::Flag(|_| ());
/// One that can be negated.
const HINT_OR_NO: Takes = Takes::FlagOrNo(|_, _, _| Ok(()));
/// A number that changes nothing.
const HINT_NUMBER: Takes = Takes::Number32(|_, _, _| Ok(()));

/// More seconds than this between commits are worth a warning (`BTRFS_WARNING_COMMIT_INTERVAL`).
const LONG_INTERVAL: u32 = 300;

/// All options that are known. Names that are not in this table are unknown to the C driver as
/// well.
pub static PARAMETERS: [Parameter; 35] = [
    option(
        b"acl",
        Takes::FlagOrNo(|settings, on, _| {
            settings.acl = on;
            Ok(())
        }),
    ),
    // Files are never defragmented by themselves.
    hint(b"autodefrag", HINT_OR_NO),
    option(
        b"barrier",
        Takes::FlagOrNo(|settings, on, _| {
            settings.barrier = on;
            Ok(())
        }),
    ),
    option(
        b"clear_cache",
        Takes::Flag(|settings| settings.clear_cache = true),
    ),
    option(b"commit", Takes::Number32(commit)),
    option(
        b"compress",
        Takes::Flag(|settings| settings.compress = Some(ZLIB)),
    ),
    option(b"compress", Takes::Text(compress)),
    option(
        b"compress-force",
        Takes::Flag(|settings| settings.compress = Some(FORCED)),
    ),
    option(b"compress-force", Takes::Text(compress_force)),
    // Data is never written in place, and always has checksums. What would be written in place is
    // not compressed.
    hint(
        b"datacow",
        Takes::FlagOrNo(|settings, on, _| {
            settings.compress = settings.compress.filter(|_| on);
            Ok(())
        }),
    ),
    hint(b"datasum", HINT_OR_NO),
    // There is one device, which is here.
    hint(b"degraded", HINT),
    option(b"device", Takes::Text(device)),
    // What is freed is not told to the device.
    hint(b"discard", HINT_OR_NO),
    hint(
        b"discard",
        Takes::OneOf(&[(b"sync", |_, _| Ok(())), (b"async", |_, _| Ok(()))]),
    ),
    // There is no state that this driver would meet with a crash: errors turn the volume read-only.
    hint(
        b"fatal_errors",
        Takes::OneOf(&[(b"panic", |_, _| Ok(())), (b"bug", |_, _| Ok(()))]),
    ),
    option(
        b"flushoncommit",
        Takes::FlagOrNo(|settings, on, _| {
            settings.flush_on_commit = on;
            Ok(())
        }),
    ),
    hint(b"max_inline", Takes::Text(max_inline)),
    hint(b"metadata_ratio", HINT_NUMBER),
    option(
        b"rescan_uuid_tree",
        Takes::Flag(|settings| settings.rescan_uuid_tree = true),
    ),
    option(
        b"skip_balance",
        Takes::Flag(|settings| settings.skip_balance = true),
    ),
    option(b"space_cache", Takes::FlagOrNo(space_cache)),
    option(
        b"space_cache",
        Takes::OneOf(&[
            (b"v1", |settings, log| space_cache(settings, true, log)),
            (b"v2", |settings, _| {
                settings.space_cache = SpaceCache::Tree;
                Ok(())
            }),
        ]),
    ),
    hint(b"ssd", HINT_OR_NO),
    hint(b"ssd_spread", HINT_OR_NO),
    option(b"subvol", Takes::Text(subvol)),
    // A flag of this very name, which stands in old scripts.
    hint(b"subvol=", HINT),
    option(
        b"subvolid",
        Takes::Number64(|options, id| {
            options
                .subvol
                .set_id(if id == 0 { tree_id::FS } else { id });
        }),
    ),
    hint(b"thread_pool", Takes::Number32(thread_pool)),
    option(
        b"treelog",
        Takes::FlagOrNo(|settings, on, _| {
            settings.tree_log = on;
            Ok(())
        }),
    ),
    option(
        b"user_subvol_rm_allowed",
        Takes::Flag(|settings| settings.user_subvol_rm_allowed = true),
    ),
    option(b"rescue", Takes::OneOf(RESCUE)),
    option(
        b"norecovery",
        Takes::Flag(|settings| settings.rescue.no_log_replay = true),
    ),
    hint(b"enospc_debug", HINT_OR_NO),
    // This driver's own.
    option(
        b"send_balance",
        Takes::OneOf(&[
            (b"exclusive", |settings, _| {
                settings.send_balance = SendBalance::Exclusive;
                Ok(())
            }),
            (b"concurrent", |settings, _| {
                settings.send_balance = SendBalance::Concurrent;
                Ok(())
            }),
        ]),
    ),
];

const RESCUE: &[(&[u8], TakeChoice)] = &[
    (b"usebackuproot", |settings, _| {
        settings.rescue.use_backup_root = true;
        Ok(())
    }),
    (b"nologreplay", |settings, _| {
        settings.rescue.no_log_replay = true;
        Ok(())
    }),
    (b"ignorebadroots", ignore_bad_roots),
    (b"ibadroots", ignore_bad_roots),
    (b"ignoredatacsums", ignore_data_checksums),
    (b"idatacsums", ignore_data_checksums),
    (b"ignoremetacsums", ignore_metadata_checksums),
    (b"imetacsums", ignore_metadata_checksums),
    (b"ignoresuperflags", ignore_super_flags),
    (b"isuperflags", ignore_super_flags),
    (b"all", |settings, _| {
        settings.rescue = Rescue::ALL;
        Ok(())
    }),
];

fn ignore_bad_roots(settings: &mut Settings, _: &mut Log<'_>) -> Result {
    settings.rescue.ignore_bad_roots = true;
    Ok(())
}

fn ignore_data_checksums(settings: &mut Settings, _: &mut Log<'_>) -> Result {
    settings.rescue.ignore_data_checksums = true;
    Ok(())
}

fn ignore_metadata_checksums(settings: &mut Settings, _: &mut Log<'_>) -> Result {
    settings.rescue.ignore_metadata_checksums = true;
    Ok(())
}

fn ignore_super_flags(settings: &mut Settings, _: &mut Log<'_>) -> Result {
    settings.rescue.ignore_super_flags = true;
    Ok(())
}

fn commit(options: &mut MountOptions, seconds: u32, log: &mut Log<'_>) -> Result {
    if seconds > LONG_INTERVAL {
        log(
            Level::Warning,
            fmt!("excessive commit interval {seconds}, use with care"),
        );
    }
    options.settings.commit_interval = if seconds == 0 {
        COMMIT_INTERVAL
    } else {
        seconds
    };
    Ok(())
}

/// `compress` without a value.
const ZLIB: Compress = Compress {
    method: CompressionMethod::Zlib,
    level: 3,
    is_forced: false,
};

/// `compress-force` without a value.
const FORCED: Compress = Compress {
    is_forced: true,
    ..ZLIB
};

/// Takes a method with a level or none.
fn compress(options: &mut MountOptions, text: &[u8], log: &mut Log<'_>) -> Result {
    options.settings.compress = method(text, log)?;
    Ok(())
}

/// The same, to be done whatever data looks like.
fn compress_force(options: &mut MountOptions, text: &[u8], log: &mut Log<'_>) -> Result {
    options.settings.compress = method(text, log)?.map(|compress| Compress {
        is_forced: true,
        ..compress
    });
    Ok(())
}

/// Reads a method with a level or none (`btrfs_parse_compress`).
fn method(text: &[u8], log: &mut Log<'_>) -> Result<Option<Compress>> {
    let (name, level) = match text.iter().position(|byte| *byte == b':') {
        Some(at) => (
            text.get(..at).unwrap_or(b""),
            text.get(at.saturating_add(1)..),
        ),
        None => (text, None),
    };
    let found = CompressionMethod::ALL
        .into_iter()
        .find(|method| method.name().as_bytes() == name);
    let number = level.map_or(Some(0), number::signed);
    match (found, number) {
        (Some(method), Some(number)) => {
            if method == CompressionMethod::Lzo && level.is_some() {
                log(Level::Warning, fmt!("Compression level ignored for LZO"));
            }
            Ok(Some(Compress {
                method,
                level: method.level(number),
                is_forced: false,
            }))
        }
        (None, _) if matches!(text, b"no" | b"none") => Ok(None),
        _ => {
            log(
                Level::Error,
                fmt!("failed to parse compression option '{}'", shown(text)),
            );
            Err(EINVAL)
        }
    }
}

/// Notes a device.
fn device(options: &mut MountOptions, path: &[u8], _: &mut Log<'_>) -> Result {
    Ok(options.devices.push(owned(path)?, GFP_KERNEL)?)
}

/// Checks a size. Files of up to 2048 bytes are kept in the tree, whatever it is.
fn max_inline(_: &mut MountOptions, text: &[u8], log: &mut Log<'_>) -> Result {
    if number::size(text).is_some() {
        return Ok(());
    }
    log(Level::Error, fmt!("Bad value for 'max_inline'"));
    Err(EINVAL)
}

/// The first version of the space cache does not exist any more.
fn space_cache(settings: &mut Settings, on: bool, log: &mut Log<'_>) -> Result {
    if on {
        log(
            Level::Warning,
            fmt!("v1 space cache is deprecated, falling back to no space cache"),
        );
    }
    settings.space_cache = SpaceCache::Without;
    Ok(())
}

fn subvol(options: &mut MountOptions, path: &[u8], _: &mut Log<'_>) -> Result {
    options.subvol.set_path(owned(path)?);
    Ok(())
}

fn thread_pool(_: &mut MountOptions, threads: u32, log: &mut Log<'_>) -> Result {
    if threads != 0 {
        return Ok(());
    }
    log(Level::Error, fmt!("invalid value 0 for thread_pool"));
    Err(EINVAL)
}

fn owned(bytes: &[u8]) -> Result<KVec<u8>> {
    let mut copy = KVec::with_capacity(bytes.len(), GFP_KERNEL)?;
    copy.extend_from_slice(bytes, GFP_KERNEL)?;
    Ok(copy)
}
