// SPDX-License-Identifier: GPL-2.0
//! Changes to the key pointers of an interior node.

use super::node_buf::{put, NodeBuf};
use crate::format::header::{KeyPtr, KEY_PTR_SIZE};
use crate::format::{read_at, Key};
use kernel::prelude::*;
use zerocopy::little_endian::U64;

impl NodeBuf {
    /// Whether one more key pointer fits.
    pub(super) fn has_room_for_ptr(&self) -> bool {
        self.free_space() >= KEY_PTR_SIZE
    }

    /// Inserts at `slot` a pointer to the child at `bytenr`. The caller picks the slot that keeps
    /// the keys in order.
    ///
    /// # Errors
    ///
    /// `EOVERFLOW` if the node is full; `EINVAL` if this is a leaf or `slot` is after the last
    /// pointer.
    pub fn insert_ptr(&mut self, slot: usize, key: &Key, bytenr: u64, generation: u64) -> Result {
        self.open_ptrs(slot, 1)?;
        let ptr = KeyPtr {
            key: (*key).into(),
            blockptr: U64::new(bytenr),
            generation: U64::new(generation),
        };
        let at = self.entry_offset(slot)?;
        put(self.raw_mut(), at, &ptr)
    }

    /// Removes pointer `slot`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is none.
    pub fn remove_ptr(&mut self, slot: usize) -> Result {
        self.close_ptrs(slot, 1)
    }

    /// Lets pointer `slot` point to the block at `bytenr` of `generation`; its key stays.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if there is no such pointer.
    pub fn set_child(&mut self, slot: usize, bytenr: u64, generation: u64) -> Result {
        let mut ptr = self.key_ptr(slot)?;
        ptr.blockptr = U64::new(bytenr);
        ptr.generation = U64::new(generation);
        let at = self.entry_offset(slot)?;
        put(self.raw_mut(), at, &ptr)
    }

    /// Sets the key of pointer `slot`, which is the first key of the child.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if there is no such pointer.
    pub fn set_ptr_key(&mut self, slot: usize, key: &Key) -> Result {
        let mut ptr = self.key_ptr(slot)?;
        ptr.key = (*key).into();
        let at = self.entry_offset(slot)?;
        put(self.raw_mut(), at, &ptr)
    }

    /// [`NodeBuf::move_entries`] for interior nodes.
    pub(super) fn move_ptrs(
        src: &mut NodeBuf,
        from: usize,
        count: usize,
        dst: &mut NodeBuf,
        at: usize,
    ) -> Result {
        dst.open_ptrs(at, count)?;
        let after = from.checked_add(count).ok_or(EINVAL)?;
        let ptrs = src
            .bytes()
            .get(src.entry_offset(from)?..src.entry_offset(after)?)
            .ok_or(EUCLEAN)?;
        let start = dst.entry_offset(at)?;
        let end = start.checked_add(ptrs.len()).ok_or(EUCLEAN)?;
        dst.raw_mut()
            .get_mut(start..end)
            .ok_or(EUCLEAN)?
            .copy_from_slice(ptrs);
        src.close_ptrs(from, count)
    }

    fn key_ptr(&self, slot: usize) -> Result<KeyPtr> {
        if self.is_leaf() || slot >= self.entries() {
            return Err(EUCLEAN);
        }
        read_at(self.bytes(), self.entry_offset(slot)?)
    }

    fn open_ptrs(&mut self, slot: usize, count: usize) -> Result {
        if self.is_leaf() || slot > self.entries() {
            return Err(EINVAL);
        }
        let need = count.checked_mul(KEY_PTR_SIZE).ok_or(EOVERFLOW)?;
        if need > self.free_space() {
            return Err(EOVERFLOW);
        }
        self.shift_entries(slot, slot.checked_add(count).ok_or(EUCLEAN)?)
    }

    fn close_ptrs(&mut self, slot: usize, count: usize) -> Result {
        let after = slot.checked_add(count).ok_or(EINVAL)?;
        if self.is_leaf() || after > self.entries() {
            return Err(EINVAL);
        }
        self.shift_entries(after, slot)
    }
}

#[cfg(test)]
mod tests {
    use super::super::node_buf::tests::buf;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn pointers_come_change_and_go() {
        let mut node = buf(1);
        let key = |n: u64| Key::new(n, 1, 0);
        for n in [2, 4, 1, 3] {
            let slot = node.search(&key(n)).unwrap_err();
            node.insert_ptr(slot, &key(n), n * 4096, n).unwrap();
        }
        node.remove_ptr(1).unwrap();
        node.set_child(1, 5 * 4096, 9).unwrap();
        node.set_ptr_key(2, &key(6)).unwrap();
        let found = (0..node.entries()).map(|slot| node.child_ptr(slot, 5).unwrap());
        let found = found.map(|ptr| (ptr.first_key.unwrap().objectid, ptr.bytenr, ptr.generation));
        assert!(found.eq([(1, 4096, 1), (3, 5 * 4096, 9), (6, 4 * 4096, 4)]));
    }

    #[test]
    fn shared_children_are_those_that_are_the_same_in_all() {
        let node = |children: &[(u64, u64)]| {
            let mut node = buf(1);
            for (slot, (n, generation)) in children.iter().enumerate() {
                let key = Key::new(*n, 1, 0);
                node.insert_ptr(slot, &key, n * 4096, *generation).unwrap();
            }
            node
        };
        let all: Vec<(u64, u64)> = (1..=100).map(|n| (n, 7)).collect();
        let one = node(&all);
        for changed in 0..100 {
            let mut children = all.clone();
            children[changed].1 = 8;
            let other = node(&children);
            for slot in 0..100 {
                let end = if slot > changed { 100 } else { changed };
                assert_eq!(one.shared_children(slot, &other, slot), end - slot);
            }
        }
        let after = node(&all[40..70]);
        assert_eq!(one.shared_children(40, &after, 0), 30);
        assert_eq!(after.shared_children(10, &one, 50), 20);
        assert_eq!(after.shared_children(10, &one, 49), 0);
        assert_eq!(after.shared_children(30, &one, 70), 0);
        assert_eq!(after.shared_children(31, &one, 70), 0);
        assert_eq!(buf(0).shared_children(0, &one, 0), 0);
    }

    #[test]
    fn node_holds_as_many_as_fit() {
        let mut node = buf(3);
        let mut count = 0;
        while node.has_room_for_ptr() {
            node.insert_ptr(count, &Key::new(count as u64, 0, 0), 4096, 1)
                .unwrap();
            count += 1;
        }
        assert_eq!(count, (4096 - 101) / 33);
        assert_eq!(node.insert_ptr(0, &Key::MIN, 4096, 1), Err(EOVERFLOW));
        assert_eq!(node.remove_ptr(count), Err(EINVAL));
        assert_eq!(node.set_child(count, 4096, 1), Err(EUCLEAN));
        assert_eq!(buf(0).insert_ptr(0, &Key::MIN, 4096, 1), Err(EINVAL));
    }
}
