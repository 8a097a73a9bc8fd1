// SPDX-License-Identifier: GPL-2.0
//! Sorting in place. The sorts of `core` are faster, but keep up to several kilobytes on the stack,
//! which in the kernel has 16.

use core::cmp::Ordering;

/// Sorts in ascending order. Equal items may change places.
pub fn sort<T: Ord>(items: &mut [T]) {
    sort_by(items, T::cmp);
}

/// As [`sort`], by a key of the items.
pub fn sort_by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    sort_by(items, |a, b| key(a).cmp(&key(b)));
}

/// As [`sort`], in the order that `compare` gives: a heap sort, whatever the items.
pub fn sort_by<T>(items: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    if items.is_sorted_by(|a, b| compare(a, b).is_le()) {
        return;
    }
    for root in (0..items.len() / 2).rev() {
        sift_down(items, root, &compare);
    }
    // The largest item of the heap goes after it.
    let mut heap = items;
    while let Some(last) = heap.len().checked_sub(1) {
        heap.swap(0, last);
        heap = heap.get_mut(..last).unwrap_or_default();
        sift_down(heap, 0, &compare);
    }
}

/// Makes a heap of the items under `root` whose children are heaps already.
fn sift_down<T>(heap: &mut [T], mut root: usize, compare: &impl Fn(&T, &T) -> Ordering) {
    loop {
        let left = root.saturating_mul(2).saturating_add(1);
        let right = left.saturating_add(1);
        let child = match (heap.get(left), heap.get(right)) {
            (None, _) => return,
            (Some(a), Some(b)) if compare(a, b).is_lt() => right,
            _ => left,
        };
        match (heap.get(root), heap.get(child)) {
            (Some(parent), Some(largest)) if compare(parent, largest).is_lt() => {
                heap.swap(root, child);
            }
            _ => return,
        }
        root = child;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn short_ones() {
        for len in 0..8u8 {
            let mut items: Vec<u8> = (0..len).rev().collect();
            sort(&mut items);
            assert_eq!(items, (0..len).collect::<Vec<_>>());
        }
    }

    #[test]
    fn large_items_by_key() {
        let mut items: Vec<(u32, [u8; 300])> = (0..100u32)
            .map(|i| (i * 37 % 100, [i as u8; 300]))
            .collect();
        sort_by_key(&mut items, |item| item.0);
        for (i, item) in items.iter().enumerate() {
            assert_eq!(item.0, i as u32);
            assert_eq!(u32::from(item.1[0]) * 37 % 100, item.0);
        }
    }

    proptest! {
        #[test]
        fn like_the_one_of_core(mut items: Vec<u16>) {
            let mut wanted = items.clone();
            wanted.sort_unstable();
            sort(&mut items);
            prop_assert_eq!(&items, &wanted);
            wanted.reverse();
            sort_by(&mut items, |a, b| b.cmp(a));
            prop_assert_eq!(&items, &wanted);
        }
    }
}
