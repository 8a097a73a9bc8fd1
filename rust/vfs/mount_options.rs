// SPDX-License-Identifier: GPL-2.0
//! Mount options.
//!
//! Hints of the C driver are accepted, and do nothing: data is never compressed, nor written where
//! it was. Options that would have to change what is read or done, and do not, are refused by name.

use super::committer;
use crate::bindings;
use crate::log::Replay;
use crate::state::SendBalance;
use crate::volume::OpenOptions;
use kernel::prelude::*;

/// Which part of the machine's memory the cached tree blocks of a volume may take: a fourth.
const CACHE_SHARE: u64 = 4;

/// Which part those may take that wait for a commit, as long as that is less than the engine's own
/// limit.
const DIRTY_SHARE: u64 = 32;

/// Which subvolume is mounted.
#[derive(Default)]
pub(super) enum Subvol {
    /// The volume's default one.
    #[default]
    Default,
    /// The one whose tree has this id.
    Id(u64),
    /// The one at this path from the top-level subvolume.
    Path(KVec<u8>),
    /// Both must agree.
    PathAndId(KVec<u8>, u64),
}

/// What the options of one mount say.
pub(super) struct MountOptions {
    pub(super) subvol: Subvol,
    /// A balance that the mount finds stays paused.
    pub(super) skip_balance: bool,
    /// How long changes may wait for a commit, in seconds.
    pub(super) commit_interval: u32,
    /// Users may delete subvolumes that they own.
    pub(super) user_subvol_rm_allowed: bool,
    /// A log is replayed.
    pub(super) replay: Replay,
    /// Whether sends and relocations exclude each other; `None` leaves that as it is.
    pub(super) send_balance: Option<SendBalance>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            subvol: Subvol::Default,
            skip_balance: false,
            commit_interval: committer::INTERVAL,
            user_subvol_rm_allowed: false,
            replay: Replay::Yes,
            send_balance: None,
        }
    }
}

/// The value of an option.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    /// It has none.
    Flag,
    /// The text after the equals sign.
    Text(&'a [u8]),
}

/// What became of an option.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Parsed {
    /// It is ours.
    Taken,
    /// It is for the VFS to look at.
    NotOurs,
}

/// The top-level subvolume.
const TOP_LEVEL: u64 = crate::format::tree_id::FS;

/// Hints, and options about how files are written.
const ACCEPTED_FLAGS: [&[u8]; 25] = [
    b"acl",
    b"autodefrag",
    b"noautodefrag",
    b"barrier",
    b"compress",
    b"compress-force",
    b"datacow",
    b"nodatacow",
    b"datasum",
    b"nodatasum",
    b"discard",
    b"nodiscard",
    b"flushoncommit",
    b"noflushoncommit",
    b"ssd",
    b"nossd",
    b"ssd_spread",
    b"nossd_spread",
    b"space_cache",
    b"nospace_cache",
    b"treelog",
    b"notreelog",
    b"enospc_debug",
    b"noenospc_debug",
    b"subvol",
];

/// Likewise, with a value that is not looked at.
const ACCEPTED_VALUES: [&[u8]; 7] = [
    b"compress",
    b"compress-force",
    b"discard",
    b"max_inline",
    b"metadata_ratio",
    b"space_cache",
    b"thread_pool",
];

impl MountOptions {
    pub(super) fn open(&self) -> OpenOptions {
        // SAFETY: The function only returns a number.
        let memory = unsafe { bindings::rbtrfs_memory_size() };
        let defaults = OpenOptions::default();
        OpenOptions {
            // The shrinker takes back what others need more.
            cache_bytes: usize::try_from(memory / CACHE_SHARE).unwrap_or(defaults.cache_bytes),
            dirty_bytes: defaults.dirty_bytes.min(memory / DIRTY_SHARE),
            ..defaults
        }
    }

    /// Takes one option.
    ///
    /// # Errors
    ///
    /// `EINVAL` for one that is unknown, malformed or not supported, with a line in the log;
    /// `ENOMEM`.
    pub(super) fn parse(&mut self, key: &[u8], value: Value<'_>) -> Result<Parsed> {
        match (key, value) {
            (b"source", _) => return Ok(Parsed::NotOurs),
            (b"subvol", Value::Text(path)) => self.set_path(path)?,
            (b"subvolid", Value::Text(id)) => self.set_id(id)?,
            (b"commit", Value::Text(text)) => self.set_interval(text)?,
            (b"user_subvol_rm_allowed", Value::Flag) => self.user_subvol_rm_allowed = true,
            (b"send_balance", Value::Text(name)) => {
                let mode = SendBalance::from_name(name);
                self.send_balance = Some(mode.ok_or_else(|| refuse(key, b"=", name))?);
            }
            (b"skip_balance", Value::Flag) => self.skip_balance = true,
            (b"rescue", Value::Text(b"nologreplay")) | (b"norecovery", Value::Flag) => {
                self.replay = Replay::No;
            }
            (_, Value::Flag) if ACCEPTED_FLAGS.contains(&key) => (),
            (_, Value::Text(_)) if ACCEPTED_VALUES.contains(&key) => (),
            (_, Value::Flag) => return Err(refuse(key, b"", b"")),
            (_, Value::Text(text)) => return Err(refuse(key, b"=", text)),
        }
        Ok(Parsed::Taken)
    }

    fn set_path(&mut self, path: &[u8]) -> Result {
        let mut copy = KVec::with_capacity(path.len(), GFP_KERNEL)?;
        copy.extend_from_slice(path, GFP_KERNEL)?;
        self.subvol = match core::mem::take(&mut self.subvol) {
            Subvol::Id(id) | Subvol::PathAndId(_, id) => Subvol::PathAndId(copy, id),
            Subvol::Default | Subvol::Path(_) => Subvol::Path(copy),
        };
        Ok(())
    }

    fn set_interval(&mut self, text: &[u8]) -> Result {
        let seconds = number(text).and_then(|seconds| u32::try_from(seconds).ok());
        self.commit_interval = match seconds {
            Some(0) => committer::INTERVAL,
            Some(seconds) => seconds,
            None => return Err(refuse(b"commit", b"=", text)),
        };
        Ok(())
    }

    fn set_id(&mut self, text: &[u8]) -> Result {
        let id = match number(text) {
            Some(0) => TOP_LEVEL,
            Some(id) => id,
            None => return Err(refuse(b"subvolid", b"=", text)),
        };
        self.subvol = match core::mem::take(&mut self.subvol) {
            Subvol::Path(path) | Subvol::PathAndId(path, _) => Subvol::PathAndId(path, id),
            Subvol::Default | Subvol::Id(_) => Subvol::Id(id),
        };
        Ok(())
    }
}

/// A number as C writes them: decimal, octal after `0`, hexadecimal after `0x`.
fn number(text: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(text).ok()?;
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        u64::from_str_radix(hex, 16).ok()
    } else if text.len() > 1 && text.starts_with('0') {
        u64::from_str_radix(text, 8).ok()
    } else {
        text.parse().ok()
    }
}

fn refuse(key: &[u8], equals: &[u8], value: &[u8]) -> Error {
    let text = |bytes| core::str::from_utf8(bytes).unwrap_or("?");
    pr_err!(
        "unrecognized or unsupported mount option '{}{}{}'\n",
        text(key),
        text(equals),
        text(value)
    );
    EINVAL
}
