// SPDX-License-Identifier: GPL-2.0
//! The state of a running send (`struct send_ctx`). Its methods are in the files of the parts of
//! the stream that they write.

use super::current_inode::Current;
use super::data::clone_sources::CloneSources;
use super::data::reader::DataReader;
use super::lookup::Finder;
use super::names::early_dirs::EarlyDirs;
use super::names::name_cache::NameCache;
use super::names::orphan_dirs::DelayedRmdirs;
use super::names::orphan_names::OrphanNames;
use super::names::path::{DirCache, FsPath};
use super::names::pending_moves::DirMoves;
use super::names::recorded_refs::RecordedRefs;
use super::snapshots::Parent;
use super::stream::Stream;
use super::utimes::Utimes;
use super::Snapshot;
use crate::format::BlockSize;
use crate::number_set::NumberSet;
use crate::volume::ReadSession;
use kernel::prelude::*;

/// What the caller wants of the stream besides its version.
#[derive(Clone, Copy)]
pub(super) struct Options {
    /// Only say where file data changed.
    pub(super) no_data: bool,
    /// Send compressed extents as they are.
    pub(super) compressed: bool,
}

/// A send under way.
pub(super) struct Send<'a> {
    pub(super) session: &'a ReadSession,
    pub(super) root: Snapshot,
    pub(super) options: Options,
    pub(super) sectorsize: BlockSize,
    pub(super) stream: Stream<'a>,
    /// Inodes below this one have their names in the stream.
    pub(super) progress: u64,
    /// The inode whose items are being walked.
    pub(super) inode: Option<Current>,
    /// Its path in the stream, if `path_known`.
    pub(super) path: FsPath,
    pub(super) path_known: bool,
    /// Its `security.capability`, which is sent when the inode is done.
    pub(super) capability: Option<KVec<u8>>,
    /// Another path, of whatever is being worked on.
    pub(super) other: FsPath,
    pub(super) components: KVec<u8>,
    pub(super) dirs: DirCache,
    pub(super) orphans: OrphanNames,
    pub(super) early: EarlyDirs,
    pub(super) utimes: Utimes,
    /// Look-ups in the subvolume off the walk.
    pub(super) finder: Finder<'a>,
    pub(super) data: KBox<DataReader<'a>>,
    pub(super) clones: CloneSources<'a>,
    /// In an incremental send, what the receiver has.
    pub(super) parent: Option<KBox<Parent<'a>>>,
    /// Look-ups of directory entries in the subvolume.
    pub(super) entries: Finder<'a>,
    pub(super) names: NameCache,
    pub(super) recorded_refs: RecordedRefs,
    pub(super) dir_moves: DirMoves,
    pub(super) delayed_rmdirs: DelayedRmdirs,
    /// Directories that are the same ones in the parent.
    pub(super) kept: NumberSet,
    /// Yet another path.
    pub(super) spare: FsPath,
}

impl<'a> Send<'a> {
    /// A send in memory of its own, as it is too large for the stack that the walk runs on.
    #[inline(never)]
    pub(super) fn new(
        session: &'a ReadSession,
        root: Snapshot,
        options: Options,
        stream: Stream<'a>,
        clones: CloneSources<'a>,
        parent: Option<Snapshot>,
    ) -> Result<KBox<Self>> {
        let path = FsPath::new()?;
        let other = FsPath::new()?;
        // A parent that is the younger one says nothing about what it has.
        let older = parent.filter(|parent| parent.generation < root.generation);
        let known_to = older.map_or(0, |parent| parent.generation);
        let parent = parent.map(|root| Parent::new(session, root)).transpose()?;
        let send = Send {
            session,
            root,
            options,
            sectorsize: session.fs().geometry.sectorsize,
            stream,
            progress: 0,
            inode: None,
            path,
            path_known: false,
            capability: None,
            other,
            components: KVec::new(),
            dirs: DirCache::new(),
            orphans: OrphanNames::new(),
            early: EarlyDirs::new(),
            utimes: Utimes::new(),
            finder: Finder::new(session, root.id),
            data: KBox::new(DataReader::new(session, root.id, known_to), GFP_KERNEL)?,
            clones,
            parent,
            entries: Finder::new(session, root.id),
            names: NameCache::new(),
            recorded_refs: RecordedRefs::new(),
            dir_moves: DirMoves::new(),
            delayed_rmdirs: DelayedRmdirs::new(),
            kept: NumberSet::new(),
            spare: FsPath::empty(),
        };
        Ok(KBox::new(send, GFP_KERNEL)?)
    }
}
