// SPDX-License-Identifier: GPL-2.0
//! The full send: one walk over the subvolume's items in key order, each handed to what knows its
//! type.

use super::cursor::{Cursor, Here};
use super::data::clones::CloneSources;
use super::data::reader::DataReader;
use super::inode::Current;
use super::lookup::Finder;
use super::names::delayed_rmdir::DelayedRmdirs;
use super::names::dir_moves::DirMoves;
use super::names::name_cache::NameCache;
use super::names::orphan_names::OrphanNames;
use super::names::path::{DirCache, FsPath};
use super::names::recorded_refs::RecordedRefs;
use super::names::refs::EarlyDirs;
use super::snapshots::Parent;
use super::stream::Stream;
use super::utimes::Utimes;
use super::Snapshot;
use crate::format::{item_type, objectid, BlockSize, Key};
use crate::number_set::NumberSet;
use crate::platform;
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

    /// Sends every item of the subvolume, and then the directory times that are still due.
    pub(super) fn walk(&mut self) -> Result {
        let mut cursor = Cursor::new(self.session, self.root.id).with_readahead();
        cursor.seek(&Key::new(objectid::FIRST_FREE, item_type::INODE_ITEM, 0))?;
        while let Some((key, data)) = cursor.item() {
            let here = cursor.here()?;
            if here.slot == 0 {
                platform::yield_now();
            }
            self.item(here, &key, data)?;
            self.session.renew();
            if !cursor.next()? {
                break;
            }
            // Once for the rest of the leaf, and not for each item of it.
            cursor.renew()?;
        }
        self.finish(None)?;
        self.send_due_utimes()
    }

    /// One item of the walk.
    fn item(&mut self, here: Here, key: &Key, data: &[u8]) -> Result {
        self.finish(Some(key))?;
        if matches!(key.objectid, objectid::FREE_INO | objectid::FREE_SPACE) {
            return Ok(());
        }
        if key.typ == item_type::INODE_ITEM {
            return self.begin_inode(&here.leaf, key.objectid, data);
        }
        if self.inode.as_ref().is_some_and(|inode| inode.ignored) {
            return Ok(());
        }
        match key.typ {
            item_type::INODE_REF | item_type::INODE_EXTREF => {
                self.current(key, "new reference without updated inode item")?;
                self.names_of(key, data)
            }
            item_type::XATTR_ITEM => {
                self.current(key, "new xattr without updated inode item")?;
                self.xattrs_of(data)
            }
            item_type::DIR_ITEM if key.objectid == objectid::FIRST_FREE => self.orphans.note(data),
            item_type::EXTENT_DATA => self.extent(here),
            _ => Ok(()),
        }
    }

    /// Makes sure that an item belongs to the inode whose item came before it.
    fn current(&self, key: &Key, what: &str) -> Result {
        match &self.inode {
            Some(inode) if inode.ino == key.objectid => Ok(()),
            _ => {
                self.inconsistent_snapshot_error(key.objectid, what);
                Err(EIO)
            }
        }
    }
}
