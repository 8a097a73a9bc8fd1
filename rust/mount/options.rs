// SPDX-License-Identifier: GPL-2.0
//! What the options of a mount say.

use super::{Level, Log};
use crate::format::CompressionMethod;
use crate::state::SendBalance;
use kernel::prelude::*;

/// Which subvolume is mounted.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Subvol {
    /// The volume's default one.
    #[default]
    Default,
    /// The one whose tree has this id.
    Id(u64),
    /// The one at this path, which starts at the top-level subvolume.
    Path(KVec<u8>),
    /// Both must agree.
    PathAndId(KVec<u8>, u64),
}

impl Subvol {
    /// Notes a path beside the id, if there is one.
    pub(super) fn set_path(&mut self, path: KVec<u8>) {
        *self = match core::mem::take(self) {
            Subvol::Id(id) | Subvol::PathAndId(_, id) => Subvol::PathAndId(path, id),
            Subvol::Default | Subvol::Path(_) => Subvol::Path(path),
        };
    }

    /// Notes an id beside the path, if there is one.
    pub(super) fn set_id(&mut self, id: u64) {
        *self = match core::mem::take(self) {
            Subvol::Path(path) | Subvol::PathAndId(path, _) => Subvol::PathAndId(path, id),
            Subvol::Default | Subvol::Id(_) => Subvol::Id(id),
        };
    }
}

/// Seconds between commits, unless the option `commit=` says otherwise
/// (`BTRFS_DEFAULT_COMMIT_INTERVAL`).
pub const COMMIT_INTERVAL: u32 = 30;

/// What `compress=` and `compress-force=` say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compress {
    /// The method for files that have none of their own.
    pub method: CompressionMethod,
    /// The level, for every method that has it.
    pub level: i32,
    /// All is tried, whatever a sample of it looks like.
    pub is_forced: bool,
}

/// What becomes of the free space tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpaceCache {
    /// A volume that has one keeps it.
    #[default]
    AsFound,
    /// `nospace_cache`, and what falls back to it: there shall be none.
    Without,
    /// `space_cache=v2`: a writable volume without one gets it.
    Tree,
}

/// The values of `rescue=`: how to read a damaged volume. All of them forbid writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rescue {
    /// The log tree stays as it is.
    pub no_log_replay: bool,
    /// If the tree root cannot be read, those of earlier commits are tried.
    pub use_backup_root: bool,
    /// Trees that only some operations need may be unreadable.
    pub ignore_bad_roots: bool,
    /// File data is not compared with its checksums.
    pub ignore_data_checksums: bool,
    /// Tree blocks are not compared with their checksums.
    pub ignore_metadata_checksums: bool,
    /// Flags of the superblock may be unknown.
    pub ignore_super_flags: bool,
}

impl Rescue {
    /// All of them (`rescue=all`).
    pub(super) const ALL: Rescue = Rescue {
        no_log_replay: true,
        use_backup_root: true,
        ignore_bad_roots: true,
        ignore_data_checksums: true,
        ignore_metadata_checksums: true,
        ignore_super_flags: true,
    };

    /// Those that are set, by the names under which they are shown, in the C driver's order.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        [
            (self.no_log_replay, "nologreplay"),
            (self.use_backup_root, "usebackuproot"),
            (self.ignore_bad_roots, "ignorebadroots"),
            (self.ignore_data_checksums, "ignoredatacsums"),
            (self.ignore_metadata_checksums, "ignoremetacsums"),
            (self.ignore_super_flags, "ignoresuperflags"),
        ]
        .into_iter()
        .filter_map(|(is_set, name)| is_set.then_some(name))
    }
}

/// What is in force for a mounted volume. A remount starts from what it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// ACLs are kept and count.
    pub acl: bool,
    /// Writes are ordered by flushing the device's cache.
    pub barrier: bool,
    /// A commit has the data that was dirty in the page cache when it was asked for, or came due.
    pub flush_on_commit: bool,
    /// `fsync` may write a log instead of a commit.
    pub tree_log: bool,
    /// New data is compressed.
    pub compress: Option<Compress>,
    /// How long changes may wait for a commit, in seconds.
    pub commit_interval: u32,
    /// A balance that the mount finds stays paused.
    pub skip_balance: bool,
    /// Users may delete subvolumes that they own.
    pub user_subvol_rm_allowed: bool,
    /// All of the UUID tree is checked, though it claims to be right.
    pub rescan_uuid_tree: bool,
    /// The free space tree.
    pub space_cache: SpaceCache,
    /// The free space tree is built anew, once.
    pub clear_cache: bool,
    /// How to read a damaged volume.
    pub rescue: Rescue,
    /// Whether sends and relocations exclude each other.
    pub send_balance: SendBalance,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            acl: true,
            barrier: true,
            flush_on_commit: false,
            tree_log: true,
            compress: None,
            commit_interval: COMMIT_INTERVAL,
            skip_balance: false,
            user_subvol_rm_allowed: false,
            rescan_uuid_tree: false,
            space_cache: SpaceCache::AsFound,
            clear_cache: false,
            rescue: Rescue::default(),
            send_balance: SendBalance::default(),
        }
    }
}

/// What a volume is like, as far as options depend on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// It has a free space tree.
    pub free_space_tree: bool,
    /// It has a block group tree.
    pub block_group_tree: bool,
}

impl Settings {
    /// Whether these may be in force for a mount that is writable, or not (`btrfs_check_options`).
    ///
    /// # Errors
    ///
    /// `EINVAL`, after a message for each rule that is broken.
    pub fn check_read_only(&self, read_only: bool, log: &mut Log<'_>) -> Result {
        let mut checked = Ok(());
        for name in self.rescue.names() {
            if !read_only {
                log(
                    Level::Error,
                    fmt!("{} must be used with ro mount option", name),
                );
                checked = Err(EINVAL);
            }
        }
        checked
    }

    /// Whether these may be in force for such a volume.
    ///
    /// # Errors
    ///
    /// `EINVAL`, after a message.
    pub fn check_volume(&self, facts: Facts, log: &mut Log<'_>) -> Result {
        if self.space_cache != SpaceCache::Without {
            return Ok(());
        }
        if facts.block_group_tree {
            log(
                Level::Error,
                fmt!("cannot disable free-space-tree with block-group-tree feature"),
            );
            return Err(EINVAL);
        }
        if facts.free_space_tree {
            log(Level::Error, fmt!("cannot disable free-space-tree"));
            return Err(EINVAL);
        }
        Ok(())
    }

    /// Forgets what is done once (`btrfs_clear_oneshot_options`).
    pub fn clear_once(&mut self) {
        self.clear_cache = false;
        if self.space_cache == SpaceCache::Without {
            self.space_cache = SpaceCache::AsFound;
        }
    }
}

/// The options of one mount or remount.
#[derive(Debug, Default)]
pub struct MountOptions {
    /// The subvolume; only mounts look at it.
    pub subvol: Subvol,
    /// Devices that were named, which must hold btrfs volumes.
    pub devices: KVec<KVec<u8>>,
    /// All else.
    pub settings: Settings,
}

impl MountOptions {
    /// Those of a remount, of which none was given yet.
    pub fn for_remount(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }
}
