// SPDX-License-Identifier: GPL-2.0
//! Inserting items.

use super::cow::descend;
use super::edit::{max_item_size, set_low_key, EditContext, EditPath};
use super::split::ensure_leaf_space;
use crate::format::header::ITEM_SIZE;
use crate::format::Key;
use kernel::prelude::*;

/// Inserts the item `data` at `key`.
///
/// # Errors
///
/// `EEXIST` if there is an item at `key`, `EOVERFLOW` if `data` is longer than [`max_item_size`].
pub fn insert<C: EditContext>(cx: &mut C, tree: u64, key: &Key, data: &[u8]) -> Result {
    if data.len() > max_item_size(cx.geometry()) {
        return Err(EOVERFLOW);
    }
    let mut path = descend(cx, tree, key, 0)?;
    if path.exact {
        return Err(EEXIST);
    }
    insert_at(cx, &mut path, key, data)
}

/// Inserts items whose keys ascend. Those that go to the same leaf share one walk from the root.
///
/// # Errors
///
/// `EEXIST` if there is an item at one of the keys, `EOVERFLOW` if one is longer than
/// [`max_item_size`], `EINVAL` if the keys do not ascend. The items before that one are inserted
/// then.
pub fn insert_many<'a, C, I>(cx: &mut C, tree: u64, items: I) -> Result
where
    C: EditContext,
    I: IntoIterator<Item = (Key, &'a [u8])>,
{
    let mut last: Option<(EditPath, Key)> = None;
    for (key, data) in items {
        if data.len() > max_item_size(cx.geometry()) {
            return Err(EOVERFLOW);
        }
        let mut path = match last.take() {
            Some((_, before)) if key <= before => return Err(EINVAL),
            Some((path, _)) => follow(cx, path, &key)?,
            None => descend(cx, tree, &key, 0)?,
        };
        if path.exact {
            return Err(EEXIST);
        }
        insert_at(cx, &mut path, &key, data)?;
        last = Some((path, key));
    }
    Ok(())
}

/// Moves a path to `key`, which lies after the key that it leads to; it stays in the leaf if it
/// can.
fn follow<C: EditContext>(cx: &mut C, mut path: EditPath, key: &Key) -> Result<EditPath> {
    if path.upper_bound(cx)?.is_some_and(|bound| *key >= bound) {
        return descend(cx, path.tree, key, 0);
    }
    let step = path.step(0)?;
    let found = cx.dirty_mut(step.bytenr)?.search(key);
    path.exact = found.is_ok();
    path.set_step(0, step.bytenr, found.unwrap_or_else(|slot| slot))?;
    Ok(path)
}

/// Inserts an item, no larger than [`max_item_size`], where `path` leads. Afterwards `path` leads
/// to it.
pub(super) fn insert_at<C: EditContext>(
    cx: &mut C,
    path: &mut EditPath,
    key: &Key,
    data: &[u8],
) -> Result {
    let need = data.len().checked_add(ITEM_SIZE).ok_or(EOVERFLOW)?;
    if cx.dirty_mut(path.step(0)?.bytenr)?.free_space() < need {
        ensure_leaf_space(cx, path, key, need)?;
    }
    let step = path.step(0)?;
    cx.dirty_mut(step.bytenr)?
        .insert_item(step.slot, key, data.len())?
        .copy_from_slice(data);
    if step.slot == 0 {
        set_low_key(cx, path, 0, key)?;
    }
    Ok(())
}
