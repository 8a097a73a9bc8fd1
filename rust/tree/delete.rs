// SPDX-License-Identifier: GPL-2.0
//! Deleting items.

use super::cow::descend;
use super::edit::{set_low_key, EditContext};
use super::merge::rebalance;
use crate::format::Key;
use kernel::prelude::*;

/// Deletes the item at `key`. A tree without items is an empty leaf.
///
/// # Errors
///
/// `ENOENT` if there is no such item.
pub fn delete<C: EditContext>(cx: &mut C, tree: u64, key: &Key) -> Result {
    let mut path = descend(cx, tree, key, 0)?;
    if !path.exact {
        return Err(ENOENT);
    }
    let step = path.step(0)?;
    let leaf = cx.dirty_mut(step.bytenr)?;
    leaf.remove_item(step.slot)?;
    if step.slot == 0 {
        if let Some(first) = leaf.key(0) {
            set_low_key(cx, &path, 0, &first)?;
        }
    }
    rebalance(cx, &mut path)
}
