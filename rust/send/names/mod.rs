// SPDX-License-Identifier: GPL-2.0
//! What inodes are called: in the snapshots, and at the receiver by then.
//!
//! In a full send `refs` gives inodes their names, and `full_path` knows where directories are. In
//! an incremental one `recorded_refs` gathers the names that an inode gained and lost, and
//! `process_recorded_refs` sends them; `inode_state` and `current_path` know what is at the
//! receiver by then and what it is called there, `dir_moves` and `delayed_rmdir` what has to wait.
//! `orphan_names` are those of inodes that have no other name yet.
//!
//! State that outlives a step is in files of its own, which know nothing of the send that uses it.

mod current_path;
mod delayed_rmdir;
mod dir_moves;
pub(super) mod early_dirs;
mod full_path;
mod inode_state;
pub(super) mod name_cache;
pub(super) mod orphan_dirs;
pub(super) mod orphan_names;
pub(super) mod path;
pub(super) mod pending_moves;
mod process_recorded_refs;
pub(super) mod recorded_refs;
mod refs;

use crate::number_set::NumberSet;
use early_dirs::EarlyDirs;
use kernel::prelude::*;
use name_cache::NameCache;
use orphan_dirs::DelayedRmdirs;
use orphan_names::OrphanNames;
use path::{DirCache, FsPath};
use pending_moves::DirMoves;
use recorded_refs::RecordedRefs;

/// What is known of names and directories, and what waits for its turn.
pub(super) struct Names {
    /// The paths of directories, in a full send.
    dirs: DirCache,
    /// The first names of inodes, in an incremental send.
    cache: NameCache,
    pub(super) orphans: OrphanNames,
    pub(super) early: EarlyDirs,
    pub(super) recorded_refs: RecordedRefs,
    pub(super) dir_moves: DirMoves,
    pub(super) delayed_rmdirs: DelayedRmdirs,
    /// Directories that are the same ones in the parent.
    pub(super) kept: NumberSet,
    /// A path besides that of the current inode: the other path of a command that has two.
    pub(super) other: FsPath,
    /// Memory for a third path.
    spare: FsPath,
    /// Memory for the names of a path.
    components: KVec<u8>,
}

impl Names {
    #[inline(never)]
    pub(super) fn new() -> Result<KBox<Self>> {
        let names = Names {
            dirs: DirCache::new(),
            cache: NameCache::new(),
            orphans: OrphanNames::new(),
            early: EarlyDirs::new(),
            recorded_refs: RecordedRefs::new(),
            dir_moves: DirMoves::new(),
            delayed_rmdirs: DelayedRmdirs::new(),
            kept: NumberSet::new(),
            other: FsPath::new()?,
            spare: FsPath::empty(),
            components: KVec::new(),
        };
        Ok(KBox::new(names, GFP_KERNEL)?)
    }
}
