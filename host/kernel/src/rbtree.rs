// SPDX-License-Identifier: GPL-2.0
//! The kernel's red-black tree, by its names, on a `BTreeMap`.
//!
//! Nodes are allocated by the caller's leave and one by one, as in the kernel; the map orders
//! pointers to them by their keys, so that cursors need no copy of a key.

use crate::alloc::Flags;
use crate::error::Result;
use core::cmp::Ordering;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::Bound;
use core::ptr::NonNull;
use std::boxed::Box as StdBox;
use std::collections::BTreeMap;

struct Pair<K, V> {
    key: K,
    value: V,
}

/// Points to the key of a node in the tree, or of a lookup in progress.
struct KeyRef<K>(NonNull<K>);

impl<K> Clone for KeyRef<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for KeyRef<K> {}

impl<K> KeyRef<K> {
    fn get(&self) -> &K {
        // SAFETY: Nodes outlive their place in the map, and lookups their key.
        unsafe { self.0.as_ref() }
    }
}

impl<K: Ord> PartialEq for KeyRef<K> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<K: Ord> Eq for KeyRef<K> {}

impl<K: Ord> PartialOrd for KeyRef<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord> Ord for KeyRef<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.get().cmp(other.get())
    }
}

/// A map in the order of its keys.
pub struct RBTree<K, V> {
    map: BTreeMap<KeyRef<K>, NonNull<Pair<K, V>>>,
    owns: PhantomData<Pair<K, V>>,
}

// SAFETY: The tree owns its nodes.
unsafe impl<K: Send, V: Send> Send for RBTree<K, V> {}
// SAFETY: A shared tree gives shared references out.
unsafe impl<K: Sync, V: Sync> Sync for RBTree<K, V> {}

fn key_of<K, V>(pair: NonNull<Pair<K, V>>) -> KeyRef<K> {
    // SAFETY: The pair is alive; only the address of its key is taken.
    KeyRef(unsafe { NonNull::new_unchecked(core::ptr::addr_of_mut!((*pair.as_ptr()).key)) })
}

/// # Safety
///
/// The pair must be alive and not borrowed mutably for `'a`.
unsafe fn pair_ref<'a, K, V>(pair: NonNull<Pair<K, V>>) -> (&'a K, &'a V) {
    // SAFETY: By the caller.
    unsafe { (&(*pair.as_ptr()).key, &(*pair.as_ptr()).value) }
}

/// # Safety
///
/// The pair must be alive, and its value not borrowed for `'a`.
unsafe fn pair_mut<'a, K, V>(pair: NonNull<Pair<K, V>>) -> (&'a K, &'a mut V) {
    // SAFETY: By the caller.
    unsafe { (&(*pair.as_ptr()).key, &mut (*pair.as_ptr()).value) }
}

impl<K, V> RBTree<K, V> {
    /// An empty tree.
    pub fn new() -> Self {
        Self {
            map: BTreeMap::new(),
            owns: PhantomData,
        }
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// All keys and values in order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter(self.map.values(), PhantomData)
    }

    /// All keys and values in order, the values to change.
    pub fn iter_mut(&mut self) -> IterMut<'_, K, V> {
        IterMut(self.map.values(), PhantomData)
    }

    /// All keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &'_ K> {
        self.iter().map(|(k, _)| k)
    }

    /// All values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &'_ V> {
        self.iter().map(|(_, v)| v)
    }

    /// All values in the order of their keys, to change.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &'_ mut V> {
        self.iter_mut().map(|(_, v)| v)
    }
}

// The kernel's cursors need no `Ord`, those of a `BTreeMap` do; keys always have it.
impl<K: Ord, V> RBTree<K, V> {
    /// Allocates a node and puts it in, in place of one of the same key, which is returned.
    pub fn try_create_and_insert(
        &mut self,
        key: K,
        value: V,
        flags: Flags,
    ) -> Result<Option<RBTreeNode<K, V>>> {
        Ok(self.insert(RBTreeNode::new(key, value, flags)?))
    }

    /// Puts a node in, in place of one of the same key, which is returned.
    pub fn insert(&mut self, node: RBTreeNode<K, V>) -> Option<RBTreeNode<K, V>> {
        let pair = node.into_pair();
        let key = key_of(pair);
        // A plain insert would leave the map with the address of the old node's key.
        let old = self.map.remove(&key);
        self.map.insert(key, pair);
        old.map(RBTreeNode)
    }

    fn find(&self, key: &K) -> Option<NonNull<Pair<K, V>>> {
        self.map.get(&KeyRef(NonNull::from(key))).copied()
    }

    fn take(&mut self, key: &K) -> Option<NonNull<Pair<K, V>>> {
        self.map.remove(&KeyRef(NonNull::from(key)))
    }

    fn neighbour(&self, of: NonNull<Pair<K, V>>, next: bool) -> Option<NonNull<Pair<K, V>>> {
        let bound = Bound::Excluded(key_of(of));
        if next {
            self.map.range((bound, Bound::Unbounded)).next()
        } else {
            self.map.range((Bound::Unbounded, bound)).next_back()
        }
        .map(|(_, pair)| *pair)
    }

    /// The place of a key, taken or vacant.
    pub fn entry(&mut self, key: K) -> Entry<'_, K, V> {
        match self.find(&key) {
            Some(pair) => Entry::Occupied(OccupiedEntry { tree: self, pair }),
            None => Entry::Vacant(VacantEntry { tree: self, key }),
        }
    }

    /// The place of a key that is there.
    pub fn find_mut(&mut self, key: &K) -> Option<OccupiedEntry<'_, K, V>> {
        self.find(key)
            .map(|pair| OccupiedEntry { tree: self, pair })
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        // SAFETY: The tree is borrowed as long as the value.
        self.find(key).map(|pair| unsafe { pair_ref(pair) }.1)
    }

    /// The value of a key, to change.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        // SAFETY: The tree is borrowed mutably as long as the value.
        self.find(key).map(|pair| unsafe { pair_mut(pair) }.1)
    }

    /// Takes the node of a key out.
    pub fn remove_node(&mut self, key: &K) -> Option<RBTreeNode<K, V>> {
        self.take(key).map(RBTreeNode)
    }

    /// Takes the value of a key out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.remove_node(key).map(|node| node.to_key_value().1)
    }

    fn cursor(&self, pair: Option<NonNull<Pair<K, V>>>) -> Option<Cursor<'_, K, V>> {
        pair.map(|pair| Cursor { tree: self, pair })
    }

    fn cursor_mut(&mut self, pair: Option<NonNull<Pair<K, V>>>) -> Option<CursorMut<'_, K, V>> {
        pair.map(|pair| CursorMut { tree: self, pair })
    }

    fn lower_bound(&self, key: &K) -> Option<NonNull<Pair<K, V>>> {
        self.map
            .range(KeyRef(NonNull::from(key))..)
            .next()
            .map(|(_, pair)| *pair)
    }

    /// A cursor at the first node.
    pub fn cursor_front(&self) -> Option<Cursor<'_, K, V>> {
        self.cursor(self.map.values().next().copied())
    }

    /// A cursor at the last node.
    pub fn cursor_back(&self) -> Option<Cursor<'_, K, V>> {
        self.cursor(self.map.values().next_back().copied())
    }

    /// A cursor at the first node.
    pub fn cursor_front_mut(&mut self) -> Option<CursorMut<'_, K, V>> {
        let pair = self.map.values().next().copied();
        self.cursor_mut(pair)
    }

    /// A cursor at the last node.
    pub fn cursor_back_mut(&mut self) -> Option<CursorMut<'_, K, V>> {
        let pair = self.map.values().next_back().copied();
        self.cursor_mut(pair)
    }

    /// A cursor at the first node whose key is not below `key`.
    pub fn cursor_lower_bound(&self, key: &K) -> Option<Cursor<'_, K, V>> {
        self.cursor(self.lower_bound(key))
    }

    /// A cursor at the first node whose key is not below `key`.
    pub fn cursor_lower_bound_mut(&mut self, key: &K) -> Option<CursorMut<'_, K, V>> {
        let pair = self.lower_bound(key);
        self.cursor_mut(pair)
    }
}

impl<K, V> Default for RBTree<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Drop for RBTree<K, V> {
    fn drop(&mut self) {
        for pair in self.map.values() {
            drop(RBTreeNode(*pair));
        }
    }
}

/// A place in a tree.
pub struct Cursor<'a, K, V> {
    tree: &'a RBTree<K, V>,
    pair: NonNull<Pair<K, V>>,
}

impl<K: Ord, V> Cursor<'_, K, V> {
    /// The key and value here.
    pub fn current(&self) -> (&K, &V) {
        // SAFETY: The tree is borrowed, so its nodes live and do not change.
        unsafe { pair_ref(self.pair) }
    }

    /// The key and value before.
    pub fn peek_prev(&self) -> Option<(&K, &V)> {
        // SAFETY: As above.
        self.tree
            .neighbour(self.pair, false)
            .map(|pair| unsafe { pair_ref(pair) })
    }

    /// The key and value after.
    pub fn peek_next(&self) -> Option<(&K, &V)> {
        // SAFETY: As above.
        self.tree
            .neighbour(self.pair, true)
            .map(|pair| unsafe { pair_ref(pair) })
    }
}

/// A place in a tree that may be changed there.
pub struct CursorMut<'a, K, V> {
    tree: &'a mut RBTree<K, V>,
    pair: NonNull<Pair<K, V>>,
}

impl<K: Ord, V> CursorMut<'_, K, V> {
    /// The key and value here.
    pub fn current(&self) -> (&K, &V) {
        // SAFETY: The cursor borrows the tree, and is borrowed as long as the result.
        unsafe { pair_ref(self.pair) }
    }

    /// The key and value here, the value to change.
    pub fn current_mut(&mut self) -> (&K, &mut V) {
        // SAFETY: As above, mutably.
        unsafe { pair_mut(self.pair) }
    }

    /// Takes the node here out, and moves on to the next one or else to the one before.
    pub fn remove_current(self) -> (Option<Self>, RBTreeNode<K, V>) {
        let next = self
            .tree
            .neighbour(self.pair, true)
            .or_else(|| self.tree.neighbour(self.pair, false));
        self.tree.map.remove(&key_of(self.pair));
        let node = RBTreeNode(self.pair);
        let tree = self.tree;
        (next.map(|pair| Self { tree, pair }), node)
    }

    fn remove_neighbour(&mut self, next: bool) -> Option<RBTreeNode<K, V>> {
        let pair = self.tree.neighbour(self.pair, next)?;
        self.tree.map.remove(&key_of(pair));
        Some(RBTreeNode(pair))
    }

    /// Takes the node before out.
    pub fn remove_prev(&mut self) -> Option<RBTreeNode<K, V>> {
        self.remove_neighbour(false)
    }

    /// Takes the node after out.
    pub fn remove_next(&mut self) -> Option<RBTreeNode<K, V>> {
        self.remove_neighbour(true)
    }

    /// The cursor one node back.
    pub fn move_prev(self) -> Option<Self> {
        let pair = self.tree.neighbour(self.pair, false)?;
        Some(Self {
            tree: self.tree,
            pair,
        })
    }

    /// The cursor one node on.
    pub fn move_next(self) -> Option<Self> {
        let pair = self.tree.neighbour(self.pair, true)?;
        Some(Self {
            tree: self.tree,
            pair,
        })
    }

    /// The key and value before.
    pub fn peek_prev(&self) -> Option<(&K, &V)> {
        // SAFETY: The cursor borrows the tree, and is borrowed as long as the result.
        self.tree
            .neighbour(self.pair, false)
            .map(|pair| unsafe { pair_ref(pair) })
    }

    /// The key and value after.
    pub fn peek_next(&self) -> Option<(&K, &V)> {
        // SAFETY: As above.
        self.tree
            .neighbour(self.pair, true)
            .map(|pair| unsafe { pair_ref(pair) })
    }

    /// The key and value before, the value to change.
    pub fn peek_prev_mut(&mut self) -> Option<(&K, &mut V)> {
        // SAFETY: As above, mutably.
        self.tree
            .neighbour(self.pair, false)
            .map(|pair| unsafe { pair_mut(pair) })
    }

    /// The key and value after, the value to change.
    pub fn peek_next_mut(&mut self) -> Option<(&K, &mut V)> {
        // SAFETY: As above, mutably.
        self.tree
            .neighbour(self.pair, true)
            .map(|pair| unsafe { pair_mut(pair) })
    }
}

/// Iterates over a tree.
pub struct Iter<'a, K, V>(
    std::collections::btree_map::Values<'a, KeyRef<K>, NonNull<Pair<K, V>>>,
    PhantomData<&'a Pair<K, V>>,
);

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: The tree is borrowed for `'a`.
        self.0.next().map(|pair| unsafe { pair_ref(*pair) })
    }
}

/// Iterates over a tree whose values may change.
pub struct IterMut<'a, K, V>(
    std::collections::btree_map::Values<'a, KeyRef<K>, NonNull<Pair<K, V>>>,
    PhantomData<&'a mut Pair<K, V>>,
);

impl<'a, K, V> Iterator for IterMut<'a, K, V> {
    type Item = (&'a K, &'a mut V);

    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: The tree is borrowed mutably for `'a`, and each node comes once.
        self.0.next().map(|pair| unsafe { pair_mut(*pair) })
    }
}

impl<'a, K, V> IntoIterator for &'a RBTree<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, K, V> IntoIterator for &'a mut RBTree<K, V> {
    type Item = (&'a K, &'a mut V);
    type IntoIter = IterMut<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

/// Memory for a node.
pub struct RBTreeNodeReservation<K, V>(StdBox<MaybeUninit<Pair<K, V>>>);

impl<K, V> RBTreeNodeReservation<K, V> {
    /// Allocates it.
    pub fn new(_flags: Flags) -> Result<Self> {
        crate::fault::check()?;
        Ok(Self(StdBox::new_uninit()))
    }

    /// Makes it a node.
    pub fn into_node(self, key: K, value: V) -> RBTreeNode<K, V> {
        let mut pair = self.0;
        pair.write(Pair { key, value });
        // SAFETY: It was just written.
        let pair = unsafe { pair.assume_init() };
        RBTreeNode(NonNull::from(StdBox::leak(pair)))
    }
}

/// A node that is in no tree.
pub struct RBTreeNode<K, V>(NonNull<Pair<K, V>>);

// SAFETY: The node owns its pair.
unsafe impl<K: Send, V: Send> Send for RBTreeNode<K, V> {}
// SAFETY: As above.
unsafe impl<K: Sync, V: Sync> Sync for RBTreeNode<K, V> {}

impl<K, V> RBTreeNode<K, V> {
    /// Allocates a node.
    pub fn new(key: K, value: V, flags: Flags) -> Result<Self> {
        Ok(RBTreeNodeReservation::new(flags)?.into_node(key, value))
    }

    fn into_pair(self) -> NonNull<Pair<K, V>> {
        core::mem::ManuallyDrop::new(self).0
    }

    fn into_box(self) -> StdBox<Pair<K, V>> {
        // SAFETY: The pair came from a box, and this node was its only owner.
        unsafe { StdBox::from_raw(self.into_pair().as_ptr()) }
    }

    /// The key and value; the memory is freed.
    pub fn to_key_value(self) -> (K, V) {
        let pair = *self.into_box();
        (pair.key, pair.value)
    }

    /// The memory; key and value are dropped.
    pub fn into_reservation(self) -> RBTreeNodeReservation<K, V> {
        let raw = self.into_pair().as_ptr();
        // SAFETY: The pair is alive and owned; afterwards only its memory is.
        unsafe {
            raw.drop_in_place();
            RBTreeNodeReservation(StdBox::from_raw(raw.cast()))
        }
    }
}

impl<K, V> Drop for RBTreeNode<K, V> {
    fn drop(&mut self) {
        // SAFETY: The pair came from a box that this node owns.
        drop(unsafe { StdBox::from_raw(self.0.as_ptr()) });
    }
}

/// The place of a key.
pub enum Entry<'a, K, V> {
    /// The key is not there.
    Vacant(VacantEntry<'a, K, V>),
    /// The key is there.
    Occupied(OccupiedEntry<'a, K, V>),
}

/// The place for a key that is not there.
pub struct VacantEntry<'a, K, V> {
    tree: &'a mut RBTree<K, V>,
    key: K,
}

impl<'a, K: Ord, V> VacantEntry<'a, K, V> {
    /// Puts the key in with a value.
    pub fn insert(self, value: V, reservation: RBTreeNodeReservation<K, V>) -> &'a mut V {
        let pair = reservation.into_node(self.key, value).into_pair();
        self.tree.map.insert(key_of(pair), pair);
        // SAFETY: The tree is borrowed mutably for `'a`.
        unsafe { pair_mut(pair) }.1
    }
}

/// The place of a key that is there.
pub struct OccupiedEntry<'a, K, V> {
    tree: &'a mut RBTree<K, V>,
    pair: NonNull<Pair<K, V>>,
}

impl<'a, K: Ord, V> OccupiedEntry<'a, K, V> {
    /// The value.
    pub fn get(&self) -> &V {
        // SAFETY: The entry borrows the tree, and is borrowed as long as the result.
        unsafe { pair_ref(self.pair) }.1
    }

    /// The value, to change.
    pub fn get_mut(&mut self) -> &mut V {
        // SAFETY: As above, mutably.
        unsafe { pair_mut(self.pair) }.1
    }

    /// The value, to change as long as the tree is borrowed.
    pub fn into_mut(self) -> &'a mut V {
        // SAFETY: The tree is borrowed mutably for `'a`.
        unsafe { pair_mut(self.pair) }.1
    }

    /// Takes the node out.
    pub fn remove_node(self) -> RBTreeNode<K, V> {
        self.tree.map.remove(&key_of(self.pair));
        RBTreeNode(self.pair)
    }

    /// Takes the value out.
    pub fn remove(self) -> V {
        self.remove_node().to_key_value().1
    }
}

impl<K, V> core::fmt::Debug for RBTree<K, V>
where
    K: core::fmt::Debug,
    V: core::fmt::Debug,
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alloc::flags::GFP_KERNEL;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn tree(keys: &[u32]) -> RBTree<u32, String> {
        let mut t = RBTree::new();
        for k in keys {
            t.try_create_and_insert(*k, k.to_string(), GFP_KERNEL)
                .unwrap();
        }
        t
    }

    #[test]
    fn inserts_replaces_and_removes() {
        let mut t = tree(&[5, 1, 3]);
        assert_eq!(t.keys().copied().collect::<Vec<_>>(), [1, 3, 5]);
        let old = t.try_create_and_insert(3, "x".into(), GFP_KERNEL).unwrap();
        assert_eq!(old.unwrap().to_key_value(), (3, "3".to_string()));
        assert_eq!(t.get(&3).unwrap(), "x");
        t.get_mut(&3).unwrap().push('y');
        assert_eq!(t.remove(&3).unwrap(), "xy");
        assert!(t.get(&3).is_none());
        for v in t.values_mut() {
            v.push('!');
        }
        assert_eq!(t.values().cloned().collect::<Vec<_>>(), ["1!", "5!"]);
    }

    #[test]
    fn cursors_move_and_remove() {
        let mut t = tree(&[10, 20, 30]);
        let c = t.cursor_lower_bound(&15).unwrap();
        assert_eq!(c.current().0, &20);
        assert_eq!(c.peek_prev().unwrap().0, &10);
        assert_eq!(c.peek_next().unwrap().0, &30);
        assert!(t.cursor_lower_bound(&31).is_none());
        let c = t.cursor_lower_bound_mut(&20).unwrap();
        let (c, node) = c.remove_current();
        assert_eq!(node.to_key_value().0, 20);
        let mut c = c.unwrap();
        assert_eq!(c.current().0, &30);
        assert_eq!(c.remove_prev().unwrap().to_key_value().0, 10);
        assert!(c.move_next().is_none());
    }

    #[test]
    fn entries_fill_and_empty_places() {
        let mut t = tree(&[]);
        let r = RBTreeNodeReservation::new(GFP_KERNEL).unwrap();
        match t.entry(4) {
            Entry::Vacant(e) => e.insert("four".into(), r).push('!'),
            Entry::Occupied(_) => unreachable!(),
        }
        match t.entry(4) {
            Entry::Vacant(_) => unreachable!(),
            Entry::Occupied(e) => assert_eq!(e.remove(), "four!"),
        }
        assert!(t.is_empty());
    }
}
