// SPDX-License-Identifier: GPL-2.0
//! The two items of the root tree that tie a subvolume to the directory that holds it.

use crate::format::root::RootRef;
use crate::format::{self, item_type, tree_id, Key};
use crate::trans::Transaction;
use crate::tree::{edit, Cursor, EditContext};
use kernel::prelude::*;
use zerocopy::IntoBytes;

/// Where a subvolume hangs.
#[derive(Clone, Copy)]
pub(super) struct RootRefName<'a> {
    /// The tree of the subvolume that holds it.
    pub(super) parent: u64,
    /// The directory there.
    pub(super) dir: u64,
    /// The `DIR_INDEX` of the entry.
    pub(super) index: u64,
    pub(super) name: &'a [u8],
}

const fn forward(parent: u64, tree: u64) -> Key {
    Key::new(parent, item_type::ROOT_REF, tree)
}

const fn backward(parent: u64, tree: u64) -> Key {
    Key::new(tree, item_type::ROOT_BACKREF, parent)
}

/// The `DIR_INDEX` of the entry by which `tree` hangs in `parent`, if that is `name` in `dir`.
///
/// # Errors
///
/// `EUCLEAN` for a damaged item; those of reading.
pub(super) fn find(
    trans: &Transaction<'_>,
    parent: u64,
    tree: u64,
    dir: u64,
    name: &[u8],
) -> Result<Option<u64>> {
    let mut cursor = Cursor::new(trans, EditContext::root(trans, tree_id::ROOT)?);
    if !cursor.seek(&forward(parent, tree))? {
        return Ok(None);
    }
    let (_, data) = cursor.item().ok_or(EUCLEAN)?;
    let head: RootRef = format::read(data)?;
    let len = usize::from(head.name_len.get());
    let found = format::slice(data, size_of::<RootRef>(), len)?;
    let same = head.dirid.get() == dir && found == name;
    Ok(same.then(|| head.sequence.get()))
}

/// Adds both items.
pub(super) fn add(trans: &mut Transaction<'_>, tree: u64, place: &RootRefName<'_>) -> Result {
    let head = RootRef {
        dirid: place.dir.into(),
        sequence: place.index.into(),
        name_len: u16::try_from(place.name.len())
            .map_err(|_| ENAMETOOLONG)?
            .into(),
    };
    let mut data = KVec::new();
    data.extend_from_slice(head.as_bytes(), GFP_KERNEL)?;
    data.extend_from_slice(place.name, GFP_KERNEL)?;
    edit::insert(trans, tree_id::ROOT, &backward(place.parent, tree), &data)?;
    edit::insert(trans, tree_id::ROOT, &forward(place.parent, tree), &data)
}

/// Removes both items.
pub(super) fn remove(trans: &mut Transaction<'_>, parent: u64, tree: u64) -> Result {
    edit::delete(trans, tree_id::ROOT, &backward(parent, tree))?;
    edit::delete(trans, tree_id::ROOT, &forward(parent, tree))
}
