// SPDX-License-Identifier: GPL-2.0
//! Places in trees that outlive the commit that they were found in.
//!
//! A send waits for its pipe between any two commands, and enters a newer commit after that. A
//! place keeps the nodes that it leads through, which are right for as long as they are in memory,
//! and looks its key up anew before it follows one of their pointers that may lead to something
//! else by now.

use crate::format::file_extent::FileExtent;
use crate::format::Key;
use crate::trans::Reader;
use crate::tree::cursor::Place;
use crate::tree::{self, Node, TreeRoot};
use crate::volume::{ReadSession, Stamp};
use kernel::prelude::*;
use kernel::sync::Arc;

/// A place in a tree, to be moved with a reader.
pub(super) struct Detached {
    tree: u64,
    stamp_of: fn(&Reader) -> Stamp,
    /// Where the root is in commits of the stamp.
    root: Option<TreeRoot>,
    stamp: Stamp,
    place: Place<Arc<Node>>,
}

impl Detached {
    /// In a read-only snapshot under send.
    pub(super) const fn in_snapshot(tree: u64) -> Self {
        Self::new(tree, Stamp::of_snapshots)
    }

    /// In a tree that changes with each commit.
    pub(super) const fn in_tree(tree: u64) -> Self {
        Self::new(tree, Stamp::of_commit)
    }

    const fn new(tree: u64, stamp_of: fn(&Reader) -> Stamp) -> Self {
        Detached {
            tree,
            stamp_of,
            root: None,
            stamp: Stamp::NONE,
            place: Place::nowhere(),
        }
    }

    /// Whether what the place has by address holds in the reader's commit.
    pub(super) fn holds(&self, reader: &Reader) -> bool {
        self.root.is_some() && (self.stamp_of)(reader) == self.stamp
    }

    /// Moves by `go`, which goes from the root.
    fn search<T>(
        &mut self,
        reader: &Reader,
        go: impl FnOnce(&mut tree::Cursor<'_, Reader>) -> Result<T>,
    ) -> Result<T> {
        let root = match self.root {
            Some(root) if self.holds(reader) => root,
            _ => {
                self.stamp = (self.stamp_of)(reader);
                *self.root.insert(reader.root(self.tree)?)
            }
        };
        self.step(reader, root, go)
    }

    fn step<T>(
        &mut self,
        reader: &Reader,
        root: TreeRoot,
        go: impl FnOnce(&mut tree::Cursor<'_, Reader>) -> Result<T>,
    ) -> Result<T> {
        let place = core::mem::replace(&mut self.place, Place::nowhere());
        let mut cursor = tree::Cursor::at(reader, root, place);
        let result = go(&mut cursor);
        self.place = cursor.into_place();
        result
    }

    /// See [`tree::Cursor::seek`].
    pub(super) fn seek(&mut self, reader: &Reader, key: &Key) -> Result<bool> {
        self.search(reader, |cursor| cursor.seek(key))
    }

    /// See [`tree::Cursor::seek_before`].
    pub(super) fn seek_before(&mut self, reader: &Reader, key: &Key) -> Result<bool> {
        self.search(reader, |cursor| cursor.seek_before(key))
    }

    /// Moves from the last item of a leaf to the next one.
    #[inline(never)]
    fn next_leaf(&mut self, reader: &Reader) -> Result<bool> {
        match self.root {
            Some(root) if self.holds(reader) => self.step(reader, root, |cursor| cursor.next()),
            _ => {
                let last = self.place.node_at(0).and_then(|leaf| leaf.last_key());
                let Some(next) = last.and_then(|last| last.successor()) else {
                    return Ok(false);
                };
                self.seek(reader, &next)?;
                Ok(self.place.key().is_some())
            }
        }
    }

    /// The item here. Addresses in it hold in commits of the place's stamp.
    pub(super) fn item(&self) -> Option<(Key, &[u8])> {
        self.place.item()
    }

    /// The leaf.
    pub(super) fn leaf(&self) -> Option<&Arc<Node>> {
        self.place.node_at(0)
    }
}

/// A place in a read-only snapshot under send, moved in whatever commit the session is in.
pub(super) struct Cursor<'a> {
    session: &'a ReadSession,
    at: Detached,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(session: &'a ReadSession, tree: u64) -> Self {
        Cursor {
            session,
            at: Detached::in_snapshot(tree),
        }
    }

    /// See [`tree::Cursor::with_readahead`].
    pub(super) fn with_readahead(mut self) -> Self {
        self.at.place = self.at.place.with_readahead();
        self
    }

    /// See [`tree::Cursor::seek`].
    pub(super) fn seek(&mut self, key: &Key) -> Result<bool> {
        self.session.read(|reader| self.at.seek(reader, key))
    }

    /// See [`tree::Cursor::seek_before`].
    pub(super) fn seek_before(&mut self, key: &Key) -> Result<bool> {
        self.session.read(|reader| self.at.seek_before(reader, key))
    }

    /// See [`tree::Cursor::next`].
    #[inline]
    pub(super) fn next(&mut self) -> Result<bool> {
        if self.at.place.next_in_leaf() {
            return Ok(true);
        }
        self.session.read(|reader| self.at.next_leaf(reader))
    }

    /// Makes addresses in the item here those of the commit that the session is in.
    #[inline]
    pub(super) fn renew(&mut self) -> Result {
        self.session.read(|reader| {
            if self.at.holds(reader) {
                return Ok(());
            }
            let Some(key) = self.at.place.key() else {
                return Ok(());
            };
            self.at.seek(reader, &key).map(|_| ())
        })
    }

    /// See [`Detached::item`].
    #[inline]
    pub(super) fn item(&self) -> Option<(Key, &[u8])> {
        self.at.item()
    }

    /// The key of the item here.
    #[inline]
    pub(super) fn key(&self) -> Option<Key> {
        self.at.place.key()
    }

    /// The leaf.
    #[inline]
    pub(super) fn leaf(&self) -> Option<&Arc<Node>> {
        self.at.leaf()
    }

    /// Where in the leaf the item is.
    #[inline]
    pub(super) fn slot(&self) -> usize {
        self.at.place.slot_at(0)
    }

    /// The item here, to be kept across commands.
    #[inline]
    pub(super) fn here(&self) -> Result<Here> {
        Ok(Here {
            leaf: self.leaf().ok_or(EIO)?.clone(),
            slot: self.slot(),
            stamp: self.at.stamp,
        })
    }
}

/// An item of the sent subvolume, kept across commands.
pub(super) struct Here {
    pub(super) leaf: Arc<Node>,
    pub(super) slot: usize,
    /// Commits in which addresses in the leaf hold.
    pub(super) stamp: Stamp,
}

impl Here {
    /// The bytes of the item.
    pub(super) fn data(&self) -> Result<&[u8]> {
        let (_, data) = self.leaf.item(self.slot).ok_or(EUCLEAN)?;
        Ok(data)
    }

    /// The address of the extent that the item refers to, which holds until the next command; 0 for
    /// a hole.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if it is not a file extent item that refers to one.
    pub(super) fn extent(&self) -> Result<u64> {
        match FileExtent::read(self.data()?)? {
            FileExtent::Regular(item) => Ok(item.disk_bytenr.get()),
            FileExtent::Inline { .. } => Err(EUCLEAN),
        }
    }

    /// Makes addresses in the leaf those of the reader's commit.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if the tree does not have the item any more, those of reading.
    #[inline]
    pub(super) fn renew(&mut self, reader: &Reader, tree: u64) -> Result {
        if self.stamp == Stamp::of_snapshots(reader) {
            return Ok(());
        }
        self.look_up(reader, tree)
    }

    #[cold]
    #[inline(never)]
    fn look_up(&mut self, reader: &Reader, tree: u64) -> Result {
        let key = self.leaf.key(self.slot).ok_or(EUCLEAN)?;
        let mut at = Detached::in_snapshot(tree);
        if !at.seek(reader, &key)? {
            return Err(EUCLEAN);
        }
        self.leaf = at.leaf().ok_or(EUCLEAN)?.clone();
        self.slot = at.place.slot_at(0);
        self.stamp = at.stamp;
        Ok(())
    }
}
