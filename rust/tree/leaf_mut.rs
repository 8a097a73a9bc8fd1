// SPDX-License-Identifier: GPL-2.0
//! Changes to the items of a leaf.
//!
//! Item heads follow the header in the order of their keys. The data of item 0 ends at the end of
//! the block, and the data of each other item ends where that of the item before it starts.

use super::node::Node;
use super::node_buf::{at_data, copy_within, put, NodeBuf};
use crate::format::header::{Item, HEADER_SIZE, ITEM_SIZE};
use crate::format::{read_at, Key};
use core::mem::offset_of;
use kernel::prelude::*;
use zerocopy::little_endian::U32;

/// The head of item `slot`.
pub(super) fn item_head(node: &Node, slot: usize) -> Result<Item> {
    if !node.is_leaf() || slot >= node.nritems() as usize {
        return Err(EUCLEAN);
    }
    let offset = slot
        .checked_mul(ITEM_SIZE)
        .and_then(|bytes| bytes.checked_add(HEADER_SIZE))
        .ok_or(EUCLEAN)?;
    read_at(node.bytes(), offset)
}

impl NodeBuf {
    /// Inserts an item of `len` zero bytes at `slot` and returns its data. The caller picks the
    /// slot that keeps the keys in order.
    ///
    /// # Errors
    ///
    /// `EOVERFLOW` if the item does not fit; `EINVAL` if this is no leaf or `slot` is after the
    /// last item.
    pub fn insert_item(&mut self, slot: usize, key: &Key, len: usize) -> Result<&mut [u8]> {
        let end = self.open_items(slot, 1, len)?;
        let start = end.checked_sub(len).ok_or(EUCLEAN)?;
        self.put_item_head(slot, key, start, len)?;
        let (start, end) = (at_data(start)?, at_data(end)?);
        let data = self.raw_mut().get_mut(start..end).ok_or(EUCLEAN)?;
        data.fill(0);
        Ok(data)
    }

    /// Removes item `slot`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is none.
    pub fn remove_item(&mut self, slot: usize) -> Result {
        self.close_items(slot, 1)
    }

    /// The data of item `slot`, to be overwritten in place; `None` if there is no such item.
    pub fn item_mut(&mut self, slot: usize) -> Option<&mut [u8]> {
        let item = item_head(self.node(), slot).ok()?;
        let start = at_data(item.offset.get() as usize).ok()?;
        let end = start.checked_add(item.size.get() as usize)?;
        self.raw_mut().get_mut(start..end)
    }

    /// Gives item `slot` another key. The caller sees to the order.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if there is no such item.
    pub fn set_item_key(&mut self, slot: usize, key: &Key) -> Result {
        let item = item_head(self.node(), slot)?;
        self.put_item_head(
            slot,
            key,
            item.offset.get() as usize,
            item.size.get() as usize,
        )
    }

    /// Where the data of the last item starts, in bytes after the header: the end of the free
    /// space.
    pub(super) fn data_start(&self) -> Result<usize> {
        self.data_end(self.entries())
    }

    /// [`NodeBuf::move_entries`] for leaves.
    pub(super) fn move_items(
        src: &mut NodeBuf,
        from: usize,
        count: usize,
        dst: &mut NodeBuf,
        at: usize,
    ) -> Result {
        let (low, high) = src.data_range(from, count)?;
        let len = high.checked_sub(low).ok_or(EUCLEAN)?;
        let end = dst.open_items(at, count, len)?;
        let start = end.checked_sub(len).ok_or(EUCLEAN)?;
        let data = src
            .bytes()
            .get(at_data(low)?..at_data(high)?)
            .ok_or(EUCLEAN)?;
        dst.raw_mut()
            .get_mut(at_data(start)?..at_data(end)?)
            .ok_or(EUCLEAN)?
            .copy_from_slice(data);
        for i in 0..count {
            let item = item_head(src.node(), from.checked_add(i).ok_or(EUCLEAN)?)?;
            let offset = (item.offset.get() as usize)
                .checked_sub(low)
                .and_then(|offset| offset.checked_add(start))
                .ok_or(EUCLEAN)?;
            dst.put_item_head(
                at.checked_add(i).ok_or(EUCLEAN)?,
                &item.key.into(),
                offset,
                item.size.get() as usize,
            )?;
        }
        src.close_items(from, count)
    }

    /// Where the data of item `slot` ends, or would end if it were inserted there, in bytes after
    /// the header.
    fn data_end(&self, slot: usize) -> Result<usize> {
        match slot.checked_sub(1) {
            None => Ok(self.capacity()),
            Some(before) => Ok(item_head(self.node(), before)?.offset.get() as usize),
        }
    }

    /// Start and end of the data of `count` items from `from` on, in bytes after the header.
    fn data_range(&self, from: usize, count: usize) -> Result<(usize, usize)> {
        let end = from.checked_add(count).ok_or(EINVAL)?;
        Ok((self.data_end(end)?, self.data_end(from)?))
    }

    /// Makes space for `count` items with `len` bytes of data in all at `slot`, and returns where
    /// their data ends. Their heads are for the caller to fill.
    fn open_items(&mut self, slot: usize, count: usize, len: usize) -> Result<usize> {
        if !self.is_leaf() || slot > self.entries() {
            return Err(EINVAL);
        }
        let need = count
            .checked_mul(ITEM_SIZE)
            .and_then(|heads| heads.checked_add(len))
            .ok_or(EOVERFLOW)?;
        if need > self.free_space() {
            return Err(EOVERFLOW);
        }
        let low = self.data_start()?;
        let end = self.data_end(slot)?;
        let target = low.checked_sub(len).ok_or(EUCLEAN)?;
        copy_within(
            self.raw_mut(),
            at_data(low)?,
            at_data(end)?,
            at_data(target)?,
        )?;
        for moved in slot..self.entries() {
            let offset = item_head(self.node(), moved)?.offset.get() as usize;
            self.put_offset(moved, offset.checked_sub(len).ok_or(EUCLEAN)?)?;
        }
        self.shift_entries(slot, slot.checked_add(count).ok_or(EUCLEAN)?)?;
        Ok(end)
    }

    /// Removes `count` items from `slot` on.
    fn close_items(&mut self, slot: usize, count: usize) -> Result {
        let after = slot.checked_add(count).ok_or(EINVAL)?;
        if !self.is_leaf() || after > self.entries() {
            return Err(EINVAL);
        }
        let (low, high) = self.data_range(slot, count)?;
        let len = high.checked_sub(low).ok_or(EUCLEAN)?;
        let start = self.data_start()?;
        let target = start.checked_add(len).ok_or(EUCLEAN)?;
        copy_within(
            self.raw_mut(),
            at_data(start)?,
            at_data(low)?,
            at_data(target)?,
        )?;
        for moved in after..self.entries() {
            let offset = item_head(self.node(), moved)?.offset.get() as usize;
            self.put_offset(moved, offset.checked_add(len).ok_or(EUCLEAN)?)?;
        }
        self.shift_entries(after, slot)
    }

    fn put_item_head(&mut self, slot: usize, key: &Key, offset: usize, size: usize) -> Result {
        let head = Item {
            key: (*key).into(),
            offset: U32::new(u32::try_from(offset).map_err(|_| EUCLEAN)?),
            size: U32::new(u32::try_from(size).map_err(|_| EUCLEAN)?),
        };
        let at = self.entry_offset(slot)?;
        put(self.raw_mut(), at, &head)
    }

    fn put_offset(&mut self, slot: usize, offset: usize) -> Result {
        let offset = U32::new(u32::try_from(offset).map_err(|_| EUCLEAN)?);
        let at = self
            .entry_offset(slot)?
            .checked_add(offset_of!(Item, offset))
            .ok_or(EUCLEAN)?;
        put(self.raw_mut(), at, &offset)
    }
}

#[cfg(test)]
mod tests {
    use super::super::node_buf::tests::buf;
    use super::*;

    #[test]
    fn items_keep_their_data_as_others_come_and_go() {
        let mut leaf = buf(0);
        let item = |n: u64| (Key::new(n, 1, 0), [n as u8; 30]);
        for n in [2, 4, 1, 3] {
            let slot = leaf.search(&item(n).0).unwrap_err();
            let data = leaf.insert_item(slot, &item(n).0, 30).unwrap();
            assert_eq!(data, [0; 30]);
            data.fill(n as u8);
        }
        leaf.remove_item(1).unwrap();
        for (slot, n) in [1, 3, 4].into_iter().enumerate() {
            assert_eq!(leaf.item(slot), Some((item(n).0, &item(n).1[..])));
        }
        assert_eq!(leaf.entries(), 3);
        assert_eq!(leaf.used(), 3 * (ITEM_SIZE + 30));
        leaf.item_mut(1).unwrap().fill(9);
        leaf.set_item_key(1, &item(2).0).unwrap();
        assert_eq!(leaf.item(1), Some((item(2).0, &[9u8; 30][..])));
    }

    #[test]
    fn largest_item_fills_the_leaf() {
        let mut leaf = buf(0);
        let key = Key::new(1, 1, 1);
        let max = 4096 - HEADER_SIZE - ITEM_SIZE;
        assert_eq!(leaf.insert_item(0, &key, max + 1), Err(EOVERFLOW));
        assert_eq!(leaf.insert_item(0, &key, usize::MAX), Err(EOVERFLOW));
        leaf.insert_item(0, &key, max).unwrap();
        assert_eq!(leaf.free_space(), 0);
        assert_eq!(leaf.insert_item(1, &key, 0), Err(EOVERFLOW));
    }

    #[test]
    fn slots_that_do_not_exist_are_refused() {
        let mut leaf = buf(0);
        let key = Key::new(1, 1, 1);
        assert_eq!(leaf.insert_item(1, &key, 0), Err(EINVAL));
        assert_eq!(leaf.remove_item(0), Err(EINVAL));
        assert_eq!(leaf.item_mut(0), None);
        assert_eq!(leaf.set_item_key(0, &key), Err(EUCLEAN));
        assert_eq!(buf(1).insert_item(0, &key, 0), Err(EINVAL));
        assert_eq!(buf(1).item_mut(0), None);
    }
}
