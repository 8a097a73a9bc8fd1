// SPDX-License-Identifier: GPL-2.0
//! The copies of chunks by their place on the device, as the device tree of a commit has them.

use crate::format::chunk::DevExtent;
use crate::format::{self, item_type, tree_id, Key};
use crate::trans::Reader;
use kernel::prelude::*;

/// A range of the device that is a copy of a chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceExtent {
    /// Where it starts on the device, in bytes.
    pub(crate) physical: u64,
    /// Its length, in bytes.
    pub(crate) len: u64,
    /// The chunk's logical start, in bytes.
    pub(crate) chunk: u64,
}

impl DeviceExtent {
    /// The first one that ends after the physical address `from`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` for a bad item; what reading nodes gives.
    pub(crate) fn first_after(reader: &Reader, from: u64) -> Result<Option<DeviceExtent>> {
        let devid = reader.superblock().dev_item.devid.get();
        let mut cursor = reader.cursor(reader.root(tree_id::DEV)?);
        let key = Key::new(devid, item_type::DEV_EXTENT, from);
        if !cursor.seek_before(&key)? {
            cursor.seek(&key)?;
        }
        while let Some((key, data)) = cursor.item() {
            if (key.objectid, key.typ) > (devid, item_type::DEV_EXTENT) {
                break;
            }
            if key.is(devid, item_type::DEV_EXTENT) {
                let extent = Self::parse(&key, data)?;
                if extent.end() > from {
                    return Ok(Some(extent));
                }
            }
            cursor.next()?;
        }
        Ok(None)
    }

    /// The last one that starts at the physical address `up_to` or before; `None` if there is none.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` for a bad item; what reading nodes gives.
    pub(crate) fn last_up_to(reader: &Reader, up_to: u64) -> Result<Option<DeviceExtent>> {
        let devid = reader.superblock().dev_item.devid.get();
        let mut cursor = reader.cursor(reader.root(tree_id::DEV)?);
        if !cursor.seek_before(&Key::new(devid, item_type::DEV_EXTENT, up_to))? {
            return Ok(None);
        }
        let Some((key, data)) = cursor.item() else {
            return Ok(None);
        };
        if !key.is(devid, item_type::DEV_EXTENT) {
            return Ok(None);
        }
        Self::parse(&key, data).map(Some)
    }

    fn parse(key: &Key, data: &[u8]) -> Result<DeviceExtent> {
        let item: DevExtent = format::read(data)?;
        Ok(DeviceExtent {
            physical: key.offset,
            len: item.length.get(),
            chunk: item.chunk_offset.get(),
        })
    }

    /// The physical address after it.
    pub(crate) fn end(&self) -> u64 {
        self.physical.saturating_add(self.len)
    }

    /// The logical range of the chunk.
    pub(crate) fn logical(&self) -> (u64, u64) {
        (self.chunk, self.chunk.saturating_add(self.len))
    }

    /// Where in this copy a logical address of the chunk is.
    pub(crate) fn physical_of(&self, logical: u64) -> u64 {
        self.physical
            .saturating_add(logical.saturating_sub(self.chunk))
    }

    /// The number of this copy among those of its chunk, from 1 on; `None` if the chunk is gone by
    /// now.
    pub(crate) fn mirror(&self, reader: &Reader) -> Option<u32> {
        let chunks = reader.fs().chunk_map();
        let chunk = chunks.lookup(self.chunk)?;
        let stripes = (1u32..).zip(chunk.stripes());
        let mut same = stripes.filter(|(_, physical)| *physical == self.physical);
        let is_same = chunk.logical == self.chunk && chunk.length == self.len;
        same.next().filter(|_| is_same).map(|(mirror, _)| mirror)
    }
}
