// SPDX-License-Identifier: GPL-2.0
//! The inode whose items are being walked.

use super::names::path::FsPath;
use crate::format::inode::InodeItem;
use kernel::prelude::*;

/// File types within a mode.
pub(super) mod mode {
    const TYPE: u32 = 0o170_000;

    pub(in crate::send) fn kind(mode: u32) -> u32 {
        mode & TYPE
    }

    pub(in crate::send) const FIFO: u32 = 0o010_000;
    pub(in crate::send) const CHAR: u32 = 0o020_000;
    pub(in crate::send) const DIR: u32 = 0o040_000;
    pub(in crate::send) const BLOCK: u32 = 0o060_000;
    pub(in crate::send) const FILE: u32 = 0o100_000;
    pub(in crate::send) const LINK: u32 = 0o120_000;
    pub(in crate::send) const SOCKET: u32 = 0o140_000;
}

/// What became of an inode since the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    New,
    Changed,
    Deleted,
}

/// The inode whose items are being walked.
pub(super) struct Current {
    pub(super) ino: u64,
    /// Its item: the parent's if it was deleted.
    pub(super) item: InodeItem,
    /// The parent's item, if it was changed.
    pub(super) before: Option<InodeItem>,
    pub(super) fate: Fate,
    /// The parent has another inode of this number.
    pub(super) replaces: bool,
    /// Where the extent that was seen last ends in the file, in bytes.
    pub(super) last_extent: Option<u64>,
    /// It has no names, being deleted, and is left out of the stream.
    pub(super) ignored: bool,
    /// Names were sent, and the directories that hold them are still to be noted.
    pub(super) names_pending: bool,
    /// It has a name in the stream, not only an orphan name.
    pub(super) named: bool,
    /// Up to which `progress` the path of its first name holds.
    pub(super) path_until: u64,
    /// Where the file ends at the receiver, in bytes.
    pub(super) next_write: u64,
}

impl Current {
    pub(super) fn new(ino: u64, item: InodeItem, fate: Fate) -> Self {
        Current {
            ino,
            item,
            before: None,
            fate,
            replaces: false,
            last_extent: None,
            ignored: false,
            names_pending: false,
            named: false,
            path_until: 0,
            next_write: 0,
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.item.generation.get()
    }

    pub(super) fn is(&self, kind: u32) -> bool {
        mode::kind(self.item.mode.get()) == kind
    }
}

/// How far the send is.
pub(super) struct Position {
    /// Inodes below this one have their names in the stream (`send_progress`).
    pub(super) progress: u64,
    /// The inode whose items are being walked.
    pub(super) inode: Option<Current>,
    /// Its path in the stream, if `path_known`.
    pub(super) path: FsPath,
    pub(super) path_known: bool,
    /// Its `security.capability`, which is sent when the inode is done.
    pub(super) capability: Option<KVec<u8>>,
}

impl Position {
    pub(super) fn new() -> Result<Self> {
        Ok(Position {
            progress: 0,
            inode: None,
            path: FsPath::new()?,
            path_known: false,
            capability: None,
        })
    }
}
