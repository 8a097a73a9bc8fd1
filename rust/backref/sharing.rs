// SPDX-License-Identifier: GPL-2.0
//! Whether others use a file's extents, too.
//!
//! An extent is shared directly, by references of other files or of other places in the same one,
//! or because a block on the way from the subvolume's root down to the file extent item has more
//! than one parent, as all of them have below the root of a snapshot. The way is found from the
//! top, so that what is known of its blocks serves the next extent, too.
//!
//! In the running transaction, the extent tree is behind: what is queued for it counts as if it
//! were there.

use super::data_ref::{DataRef, Items};
use crate::extent::backref::{find_extent, for_each_keyed, FoundExtent};
use crate::extent::delayed_ref::{RefDelta, RefHead};
use crate::extent::refs::{CountedRef, RefKind};
use crate::format::header::MAX_LEVEL;
use crate::format::{item_type, tree_id, Key};
use crate::trans::View;
use crate::tree::{Cursor, TreeRoot};
use kernel::prelude::*;

/// A block of a path and whether it, or one above it, has several parents.
#[derive(Clone, Copy)]
struct Block {
    bytenr: u64,
    shared: bool,
}

/// Looks at the extents of one file.
pub struct Sharing<'v, V> {
    view: &'v V,
    root: TreeRoot,
    ino: u64,
    last_snapshot: u64,
    /// The blocks of the last path, by level.
    path: [Option<Block>; MAX_LEVEL as usize],
}

/// The references of an extent, as far as they matter.
enum Direct {
    None,
    One(RefKind, u64),
    Several,
}

impl Direct {
    /// Counts a holder with `count` references.
    fn add(&mut self, kind: RefKind, count: i64) {
        *self = match (&self, u64::try_from(count)) {
            (_, Err(_) | Ok(0)) => return,
            (Direct::None, Ok(count)) => Direct::One(kind, count),
            _ => Direct::Several,
        };
    }

    fn is_known(&self, holder: &RefKind) -> bool {
        match self {
            Direct::None => false,
            Direct::One(kind, _) => kind == holder,
            Direct::Several => true,
        }
    }
}

/// An extent, in the extent tree or about to be.
struct Known<'v> {
    bytenr: u64,
    num_bytes: u64,
    found: Option<FoundExtent>,
    queued: Option<&'v RefHead>,
}

impl Known<'_> {
    fn deltas(&self) -> &[RefDelta] {
        self.queued.map_or(&[], |head| &head.deltas)
    }

    /// How many references of this kind there are, if the extent tree has `count`.
    fn count_of(&self, one: &CountedRef) -> i64 {
        let mut deltas = self.deltas().iter();
        let delta = deltas.find(|delta| delta.kind == one.kind);
        i64::from(one.count).saturating_add(delta.map_or(0, |delta| delta.count))
    }

    /// The number of all references.
    fn refs(&self) -> i64 {
        let refs = self.found.as_ref().map_or(0, |found| found.record.refs);
        let net = self.queued.map_or(0, RefHead::net);
        i64::try_from(refs).unwrap_or(i64::MAX).saturating_add(net)
    }
}

impl<'v, V: View> Sharing<'v, V> {
    /// For inode `ino` of the subvolume `root`.
    ///
    /// # Errors
    ///
    /// What reading the subvolume's root item gives.
    pub fn new(view: &'v V, root: TreeRoot, ino: u64) -> Result<Self> {
        Ok(Self {
            view,
            root,
            ino,
            last_snapshot: view.tree_root_item(root.id)?.last_snapshot.get(),
            path: [None; MAX_LEVEL as usize],
        })
    }

    /// Whether anything but this place of the file refers to the extent at the logical address
    /// `bytenr` (`btrfs_is_data_extent_shared`). The file has it at `offset`, in bytes, by an item
    /// of `generation`. Parts of one extent that the file has kept after some of it was overwritten
    /// count as one place.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` for damaged items of the extent tree, after a line in the log; `ENOMEM`; errors of
    /// reading.
    pub fn is_shared(&mut self, bytenr: u64, generation: u64, offset: u64) -> Result<bool> {
        let Some(known) = self.find(bytenr)? else {
            return Ok(false);
        };
        let (kind, count) = match self.direct(&known)? {
            Direct::None => return Ok(false),
            Direct::Several => return Ok(true),
            Direct::One(kind, count) => (kind, count),
        };
        let data_ref = DataRef::of(&kind);
        if data_ref.is_some_and(|of| (of.root, of.ino) != (self.root.id, self.ino)) {
            return Ok(true);
        }
        // A snapshot shares only what was there when it was taken.
        if generation > self.last_snapshot {
            return Ok(false);
        }
        match data_ref {
            Some(data_ref) if count > 1 => self.any_path_is_shared(&known, &data_ref),
            _ => self.path_is_shared(&Key::new(self.ino, item_type::EXTENT_DATA, offset)),
        }
    }

    /// The extent at a logical address; nothing if there is none, or it is about to go.
    fn find(&self, bytenr: u64) -> Result<Option<Known<'v>>> {
        let queued = self.view.queued(bytenr);
        if queued.is_some_and(|head| head.drop_all) {
            return Ok(None);
        }
        let extents = self.view.tree_root(tree_id::EXTENT)?;
        let found = find_extent(self.view.volume(), self.view, extents, bytenr)?;
        let in_tree = found.as_ref().map(|found| found.num_bytes);
        let num_bytes = in_tree.or_else(|| Some(queued?.num_bytes));
        Ok(num_bytes.map(|num_bytes| Known {
            bytenr,
            num_bytes,
            found,
            queued,
        }))
    }

    fn direct(&self, known: &Known<'_>) -> Result<Direct> {
        let mut direct = Direct::None;
        if let Some(found) = &known.found {
            for one in found.record.inline() {
                direct.add(one.kind, known.count_of(one));
            }
            let extents = self.view.tree_root(tree_id::EXTENT)?;
            let fs = self.view.volume();
            for_each_keyed(fs, self.view, extents, known.bytenr, |_, one| {
                direct.add(one.kind, known.count_of(&one));
                Ok(!matches!(direct, Direct::Several))
            })?;
        }
        for delta in known.deltas() {
            if !direct.is_known(&delta.kind) {
                direct.add(delta.kind, delta.count);
            }
        }
        Ok(direct)
    }

    /// Whether one of the paths to the items is shared that a reference stands for.
    fn any_path_is_shared(&mut self, known: &Known<'_>, data_ref: &DataRef) -> Result<bool> {
        let extent = (known.bytenr, known.num_bytes);
        let first = data_ref.first_key();
        let mut items = Items::new(self.view, self.root, *data_ref, extent, &first)?;
        while let Some(found) = items.next(|_| true)? {
            if self.path_is_shared(&found.key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a block on the way to the item with this key has several parents.
    fn path_is_shared(&mut self, key: &Key) -> Result<bool> {
        let mut cursor = Cursor::new(self.view, self.root);
        cursor.seek(key)?;
        let mut shared = false;
        for level in (0..=self.root.level).rev() {
            let bytenr = cursor.node_at(level).ok_or(EUCLEAN)?.bytenr();
            let known = *self.path.get(usize::from(level)).ok_or(EUCLEAN)?;
            shared = match known {
                Some(block) if block.bytenr == bytenr => block.shared,
                _ => shared || self.has_parents(bytenr)?,
            };
            let block = self.path.get_mut(usize::from(level)).ok_or(EUCLEAN)?;
            *block = Some(Block { bytenr, shared });
        }
        Ok(shared)
    }

    /// Whether a tree block has more than one parent.
    fn has_parents(&self, bytenr: u64) -> Result<bool> {
        Ok(self.find(bytenr)?.is_some_and(|block| block.refs() > 1))
    }
}
