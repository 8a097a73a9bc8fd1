// SPDX-License-Identifier: GPL-2.0
//! Data extents that move: where they go, who refers to them, and their bytes and checksums.

use super::backref_cache::{BackrefCache, Seeds};
use super::copy::Copies;
use super::drop_progress;
use crate::backref::data_ref::{DataRef, Items};
use crate::backref::tree_block::read_block;
use crate::device::WriteIo;
use crate::extent::backref::{all_refs, FoundExtent};
use crate::extent::csum_tree;
use crate::extent::refs::{CountedRef, RefKind};
use crate::format::file_extent::{FileExtent, FileExtentItem};
use crate::format::{item_type, tree_id, Key};
use crate::fs_err;
use crate::subvol::csum;
use crate::subvol::data::{read_pieces, Checksums, Owner, Piece};
use crate::trans::reader::Reader;
use crate::trans::transaction::Transaction;
use crate::tree::edit;
use crate::tree::{EditContext, TreeRoot};
use kernel::prelude::*;
use kernel::rbtree::RBTree;

/// The most bytes copied at once.
const COPY_BYTES: u64 = 1 << 20;

/// A data extent that moves.
#[derive(Debug)]
struct RelocatedExtent {
    /// The new logical address, in bytes; 0 until one is allocated.
    to: u64,
    num_bytes: u64,
    refs: KVec<CountedRef>,
}

/// A file extent item in a tree that shares nothing, to be changed by plain copy-on-write.
#[derive(Clone, Copy, Debug)]
struct Patch {
    tree: u64,
    key: Key,
    from: u64,
}

/// The data extents that move in one transaction.
pub struct DataRelocation {
    extents: RBTree<u64, RelocatedExtent>,
    patches: KVec<Patch>,
    bytes: u64,
    len: usize,
}

impl DataRelocation {
    /// None.
    pub fn new() -> Self {
        DataRelocation {
            extents: RBTree::new(),
            patches: KVec::new(),
            bytes: 0,
            len: 0,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The size of all extents together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the extent at `bytenr` goes, if it moves; a logical address in bytes.
    pub fn target(&self, bytenr: u64) -> Option<u64> {
        self.extents.get(&bytenr).map(|extent| extent.to)
    }

    /// Adds an extent and, to `seeds`, the leaves that refer to it.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` for wrong references, after a line in the log; those of reading.
    pub fn add(
        &mut self,
        trans: &Transaction<'_>,
        found: &FoundExtent,
        seeds: &mut Seeds,
    ) -> Result {
        let (fs, from) = (trans.fs(), found.bytenr());
        let refs = all_refs(fs, trans, trans.root(tree_id::EXTENT)?, found)?;
        for r in refs.iter() {
            match r.kind {
                RefKind::SharedData { parent } => seeds.add(0, parent)?,
                RefKind::Data { root, ino, offset } => {
                    let data_ref = DataRef { root, ino, offset };
                    let tree = trans.root(root).map_err(|e| {
                        if e == ENOENT {
                            fs_err!(
                                fs,
                                "extent {}: backref names root {}, which is not there",
                                from,
                                root
                            );
                            EIO
                        } else {
                            e
                        }
                    })?;
                    self.find_items(trans, tree, &data_ref, found, seeds)?;
                }
                _ => return Err(EUCLEAN),
            }
        }
        let extent = RelocatedExtent {
            to: 0,
            num_bytes: found.num_bytes,
            refs,
        };
        self.bytes = self.bytes.saturating_add(found.num_bytes);
        self.len = self.len.saturating_add(1);
        self.extents
            .try_create_and_insert(from, extent, GFP_KERNEL)?;
        Ok(())
    }

    /// Finds the file extent items of one inode that refer to an extent.
    fn find_items(
        &mut self,
        trans: &Transaction<'_>,
        tree: TreeRoot,
        data_ref: &DataRef,
        found: &FoundExtent,
        seeds: &mut Seeds,
    ) -> Result {
        let mut from = data_ref.first_key();
        let is_fs_tree = tree_id::is_fs_tree(data_ref.root);
        if is_fs_tree {
            if let Some(progress) = drop_progress::read(trans, data_ref.root)? {
                from = from.max(progress.key);
            }
        }
        let extent = (found.bytenr(), found.num_bytes);
        let mut items = Items::new(trans, tree, *data_ref, extent, &from)?;
        while let Some(item) = items.next(|_| true)? {
            if is_fs_tree {
                seeds.add(0, item.leaf)?;
            } else {
                let patch = Patch {
                    tree: data_ref.root,
                    key: item.key,
                    from: found.bytenr(),
                };
                self.patches.push(patch, GFP_KERNEL)?;
            }
        }
        Ok(())
    }

    /// Counts the file extent items that refer to the extents: as many as the extent items say.
    ///
    /// # Errors
    ///
    /// `EIO` if not, after a line in the log; those of reading.
    pub fn prove(&self, trans: &Transaction<'_>, backref_cache: &BackrefCache) -> Result {
        let mut counts: RBTree<u64, u64> = RBTree::new();
        let mut count = |bytenr: u64| -> Result {
            match counts.get_mut(&bytenr) {
                Some(count) => *count = count.saturating_add(1),
                None => {
                    counts.try_create_and_insert(bytenr, 1, GFP_KERNEL)?;
                }
            }
            Ok(())
        };
        for patch in self.patches.iter() {
            count(patch.from)?;
        }
        for (level, bytenr, block) in backref_cache.iter() {
            if level != 0 {
                break;
            }
            let leaf = read_block(trans, bytenr, level, block.generation)?;
            for slot in 0..leaf.nritems() as usize {
                let (key, data) = leaf.item(slot).ok_or(EUCLEAN)?;
                if key.typ != item_type::EXTENT_DATA {
                    continue;
                }
                if let Some(item) = FileExtent::read(data)?.in_extent() {
                    let bytenr = item.disk_bytenr.get();
                    if self.extents.get(&bytenr).is_some() {
                        count(bytenr)?;
                    }
                }
            }
        }
        for (from, extent) in self.extents.iter() {
            let expected = extent
                .refs
                .iter()
                .fold(0u64, |sum, r| sum.saturating_add(u64::from(r.count)));
            let found = counts.get(from).copied().unwrap_or(0);
            if found != expected {
                fs_err!(
                    trans.fs(),
                    "data extent {} has {} references in trees, but expected {} of its extent item",
                    from,
                    found,
                    expected
                );
                return Err(EIO);
            }
        }
        Ok(())
    }

    /// Allocates the new places and copies bytes and checksums there.
    ///
    /// # Errors
    ///
    /// `ENOSPC`, `EIO` for data that does not match its checksums, `ENOMEM`.
    pub fn copy_data(&mut self, trans: &mut Transaction<'_>, reader: &Reader) -> Result {
        let mut buf = KVVec::new();
        for (from, extent) in self.extents.iter_mut() {
            extent.to = trans.alloc_data(extent.num_bytes, 0)?;
            copy_extent(reader, *from, extent, &mut buf)?;
        }
        Ok(())
    }

    /// Gives the new places the references and checksums of the old ones, which go, and changes the
    /// file extent items that are not in copied leaves.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and those of tree edits.
    pub fn finish(&self, trans: &mut Transaction<'_>, reader: &Reader, copies: &Copies) -> Result {
        for (from, extent) in self.extents.iter() {
            copy_checksums(trans, reader, *from, extent)?;
            let refs = trans.refs();
            for r in extent.refs.iter() {
                let kind = match r.kind {
                    RefKind::SharedData { parent } => RefKind::SharedData {
                        parent: copies.of(parent)?,
                    },
                    kind => kind,
                };
                refs.add(extent.to, extent.num_bytes, kind, i64::from(r.count))?;
            }
            refs.drop_extent(*from, extent.num_bytes)?;
        }
        for patch in self.patches.iter() {
            let to = self.target(patch.from).ok_or(EUCLEAN)?;
            edit::update_in_place(trans, patch.tree, &patch.key, |data| {
                FileExtentItem::set_disk_bytenr(data, to)
            })?;
        }
        Ok(())
    }
}

impl Default for DataRelocation {
    fn default() -> Self {
        DataRelocation::new()
    }
}

fn copy_extent(
    reader: &Reader,
    from: u64,
    extent: &RelocatedExtent,
    buf: &mut KVVec<u8>,
) -> Result {
    let owner = Owner {
        tree: tree_id::DATA_RELOC,
        ino: 0,
        checksums: Checksums::WherePresent,
    };
    let chunks = reader.fs().chunk_map();
    let mut done = 0u64;
    while done < extent.num_bytes {
        let len = extent.num_bytes.saturating_sub(done).min(COPY_BYTES);
        buf.resize(len as usize, 0, GFP_KERNEL)?;
        let mut pieces = [Piece {
            logical: from.saturating_add(done),
            file_offset: done,
            buf,
        }];
        read_pieces(reader, &owner, &mut pieces)?;
        let mirrors = chunks.mirrors(extent.to.saturating_add(done), len)?;
        let mut ios = KVec::new();
        for physical in mirrors.iter() {
            let io = WriteIo {
                offset: physical,
                buf,
            };
            ios.push(io, GFP_KERNEL)?;
        }
        reader.fs().device.write_many(&ios)?;
        done = done.saturating_add(len);
    }
    Ok(())
}

fn copy_checksums(
    trans: &mut Transaction<'_>,
    reader: &Reader,
    from: u64,
    extent: &RelocatedExtent,
) -> Result {
    let geometry = &reader.fs().geometry;
    let mut sums = KVec::new();
    let root = reader.root(tree_id::CSUM)?;
    csum::lookup(reader, root, geometry, from, extent.num_bytes, &mut sums)?;
    csum::for_each_run(geometry, extent.to, sums.into_iter(), &mut |at, run| {
        csum_tree::insert_csums(trans, at, run)
    })
}
