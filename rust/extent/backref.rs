// SPDX-License-Identifier: GPL-2.0
//! Reading an extent's back references from an extent tree, committed or running.

use super::extent_item::{is_keyed_ref, parse_keyed, ExtentRecord, Fault};
use super::refs::CountedRef;
use crate::format::extent::FLAG_DATA;
use crate::format::{item_type, Key};
use crate::tree::cursor::Cursor;
use crate::tree::{Nodes, TreeRoot};
use crate::volume::fs::Fs;
use kernel::prelude::*;

/// An extent item and where it stands.
#[derive(Debug)]
pub struct FoundExtent {
    /// The item's key.
    pub key: Key,
    /// The size of the extent, in bytes.
    pub num_bytes: u64,
    /// The item.
    pub record: ExtentRecord,
}

impl FoundExtent {
    /// The extent's logical address, in bytes.
    pub fn bytenr(&self) -> u64 {
        self.key.objectid
    }

    /// Whether the extent holds file data.
    pub fn is_data(&self) -> bool {
        self.record.flags & FLAG_DATA != 0
    }

    /// The level of a tree block; `None` for data.
    pub fn level(&self) -> Option<u8> {
        if self.is_data() {
            return None;
        }
        match &self.record.block_info {
            Some(info) => Some(info.level),
            None => u8::try_from(self.key.offset).ok(),
        }
    }
}

/// Reports what is wrong with an item of the extent tree, and makes an error of it.
pub(crate) fn fault(fs: &Fs, key: &Key, fault: Fault) -> Error {
    match fault {
        Fault::NoMemory => ENOMEM,
        Fault::Malformed(what) => {
            crate::fs_err!(fs, "corrupt extent item: key {key}: {what}");
            EUCLEAN
        }
    }
}

/// Finds the extent item of the extent that starts at `bytenr`; `None` if no extent does.
///
/// # Errors
///
/// `EUCLEAN` for an item that is not valid, after a line in the log; errors of reading.
pub fn find_extent<S: Nodes>(
    fs: &Fs,
    nodes: &S,
    extent_root: TreeRoot,
    bytenr: u64,
) -> Result<Option<FoundExtent>> {
    let mut cursor = Cursor::new(nodes, extent_root);
    if !cursor.seek_before(&Key::new(bytenr, item_type::METADATA_ITEM, u64::MAX))? {
        return Ok(None);
    }
    let Some((key, bytes)) = cursor.item() else {
        return Ok(None);
    };
    let num_bytes = match key.typ {
        _ if key.objectid != bytenr => return Ok(None),
        item_type::METADATA_ITEM => u64::from(fs.geometry.nodesize),
        item_type::EXTENT_ITEM => key.offset,
        _ => return Ok(None),
    };
    let record = ExtentRecord::parse(&key, bytes, &fs.geometry).map_err(|f| fault(fs, &key, f))?;
    Ok(Some(FoundExtent {
        key,
        num_bytes,
        record,
    }))
}

/// Calls `each` with every reference to the extent at `bytenr` that is an item of its own, until it
/// says false.
///
/// # Errors
///
/// `EUCLEAN` for an item that is not valid, after a line in the log; errors of reading, and of
/// `each`.
pub fn for_each_keyed<S: Nodes>(
    fs: &Fs,
    nodes: &S,
    extent_root: TreeRoot,
    bytenr: u64,
    each: impl FnMut(&Key, CountedRef) -> Result<bool>,
) -> Result {
    let from = Key::new(bytenr, item_type::TREE_BLOCK_REF, 0);
    for_each_keyed_from(fs, nodes, extent_root, &from, each)
}

/// Like [`for_each_keyed`] of the extent at `from.objectid`, starting at the key `from`.
pub fn for_each_keyed_from<S: Nodes>(
    fs: &Fs,
    nodes: &S,
    extent_root: TreeRoot,
    from: &Key,
    mut each: impl FnMut(&Key, CountedRef) -> Result<bool>,
) -> Result {
    let mut cursor = Cursor::new(nodes, extent_root);
    cursor.seek(from)?;
    while let Some((key, bytes)) = cursor.item() {
        if key.objectid != from.objectid || !is_keyed_ref(key.typ) {
            break;
        }
        let found = parse_keyed(&key, bytes, &fs.geometry).map_err(|f| fault(fs, &key, f))?;
        if !each(&key, found)? || !cursor.next()? {
            break;
        }
    }
    Ok(())
}

/// All references to the extent that `found` describes, inline ones first.
///
/// # Errors
///
/// `EUCLEAN` if their counts do not add up to the extent item's, or one is of the wrong kind, after
/// a line in the log; errors of reading.
pub fn all_refs<S: Nodes>(
    fs: &Fs,
    nodes: &S,
    extent_root: TreeRoot,
    found: &FoundExtent,
) -> Result<KVec<CountedRef>> {
    let mut refs = KVec::new();
    refs.extend_from_slice(found.record.inline(), GFP_KERNEL)?;
    let is_data = found.is_data();
    for_each_keyed(fs, nodes, extent_root, found.bytenr(), |key, r| {
        if r.kind.is_data() != is_data {
            return Err(fault(
                fs,
                key,
                Fault::Malformed("reference of the wrong kind"),
            ));
        }
        refs.push(r, GFP_KERNEL)?;
        Ok(true)
    })?;
    let total = refs
        .iter()
        .fold(0u64, |sum, r| sum.saturating_add(u64::from(r.count)));
    if total != found.record.refs {
        crate::fs_err!(
            fs,
            "extent {} has {} references, but expected {} of its extent item",
            found.bytenr(),
            total,
            found.record.refs
        );
        return Err(EUCLEAN);
    }
    Ok(refs)
}
