// SPDX-License-Identifier: GPL-2.0
//! The device's error counts on disk: an item in the device tree.

use super::fs::Fs;
use crate::device::stats::STATS;
use crate::format::{self, item_type, objectid, tree_id, Key};
use crate::trans::transaction::Transaction;
use crate::trans::Reader;
use crate::tree::edit;
use crate::tree::insert::insert;
use kernel::prelude::*;
use zerocopy::little_endian::U64;
use zerocopy::IntoBytes;

fn key(devid: u64) -> Key {
    Key::new(objectid::DEV_STATS, item_type::PERSISTENT_ITEM, devid)
}

/// What the last commit has; zeros where nothing was ever counted.
fn stored(reader: &Reader) -> Result<[u64; STATS]> {
    let mut counts = [0; STATS];
    let mut cursor = reader.cursor(reader.root(tree_id::DEV)?);
    if !cursor.seek(&key(reader.superblock().dev_item.devid.get()))? {
        return Ok(counts);
    }
    let (_, item) = cursor.item().ok_or(EUCLEAN)?;
    for (at, count) in counts.iter_mut().enumerate() {
        let offset = at.saturating_mul(size_of::<U64>());
        // An item that an older kernel wrote may be shorter.
        if offset < item.len() {
            *count = format::read_at::<U64>(item, offset)?.get();
        }
    }
    Ok(counts)
}

/// Takes the counts over that are on disk. Without them, of a damaged device tree, they begin at
/// zero.
pub(crate) fn load(fs: &Fs) -> Result {
    match stored(&fs.reader()?) {
        Ok(counts) if counts == [0; STATS] => Ok(()),
        Ok(counts) => {
            fs.stats.load(&counts);
            crate::fs_info!(fs, "{}", fs.stats.text(fs.name()));
            Ok(())
        }
        Err(ENOMEM) => Err(ENOMEM),
        Err(e) => {
            crate::fs_warn!(fs, "failed to read the device statistics: {}", e.to_errno());
            Ok(())
        }
    }
}

/// Stores the counts, if they changed since the last commit.
pub(crate) fn store(trans: &mut Transaction<'_>) -> Result {
    let fs = trans.fs;
    if !fs.stats.take_changed() {
        return Ok(());
    }
    let item = fs.stats.get().map(U64::new);
    let key = key(trans.superblock.dev_item.devid.get());
    if edit::get(trans, tree_id::DEV, &key)?.is_some() {
        edit::replace(trans, tree_id::DEV, &key, item.as_bytes())
    } else {
        insert(trans, tree_id::DEV, &key, item.as_bytes())
    }
}
