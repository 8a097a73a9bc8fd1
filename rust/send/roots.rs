// SPDX-License-Identifier: GPL-2.0
//! The subvolumes that a send reads: which may be read, and what the stream calls them.

use super::names::path::is_name;
use crate::format::root::RootRef;
use crate::format::{self, item_type, tree_id, Key};
use crate::fs_err;
use crate::trans::Reader;
use kernel::prelude::*;

/// A read-only snapshot under send: where its root is, each commit tells.
#[derive(Clone, Copy)]
pub(super) struct SnapshotRoot {
    /// The id of its tree.
    pub(super) id: u64,
    /// The transaction that changed it last, unless a relocation did.
    pub(super) generation: u64,
}

/// A subvolume that may be read by a send.
pub(super) struct Sendable {
    pub(super) tree: SnapshotRoot,
    /// The UUID that a receiver looks for: that of the original, if the subvolume was received
    /// itself.
    pub(super) uuid: [u8; 16],
    pub(super) ctransid: u64,
}

impl Sendable {
    #[inline(never)]
    pub(super) fn new(reader: &Reader, id: u64) -> Result<Self> {
        if !tree_id::is_fs_tree(id) {
            return Err(ENOENT);
        }
        let item = reader.root_item(id)?;
        if !item.is_read_only() || item.is_dead() {
            return Err(EPERM);
        }
        Ok(Sendable {
            tree: SnapshotRoot {
                id,
                generation: reader.root(id)?.generation,
            },
            uuid: match item.received_uuid {
                uuid if uuid == [0; 16] => item.uuid,
                uuid => uuid,
            },
            ctransid: item.ctransid.get(),
        })
    }
}

/// The name of a subvolume in the first directory that holds it.
pub(super) fn name_of(reader: &Reader, id: u64) -> Result<KVec<u8>> {
    let mut cursor = reader.cursor(reader.root(tree_id::ROOT)?);
    cursor.seek(&Key::new(id, item_type::ROOT_BACKREF, 0))?;
    let (_, data) = cursor
        .item()
        .filter(|(key, _)| key.is(id, item_type::ROOT_BACKREF))
        .ok_or(ENOENT)?;
    let backref: RootRef = format::read(data)?;
    let len = usize::from(backref.name_len.get());
    let name = format::slice(data, size_of::<RootRef>(), len)?;
    if !is_name(name) {
        fs_err!(
            reader.fs(),
            "send: root {} has a name that no entry can have",
            id
        );
        return Err(EUCLEAN);
    }
    let mut copy = KVec::new();
    copy.extend_from_slice(name, GFP_KERNEL)?;
    Ok(copy)
}
