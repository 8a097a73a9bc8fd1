// SPDX-License-Identifier: GPL-2.0
//! Changes to trees against a model, over blocks in memory.
//!
//! Block sizes far below btrfs's make trees high with few items.

mod tree_memory;

use kernel::error::code::*;
use kernel::error::{Error, Result};
use kernel::fault;
use proptest::prelude::*;
use rbtrfs_engine::format::Key;
use rbtrfs_engine::tree::check::{check_tree, Summary};
use rbtrfs_engine::tree::edit::{self, EditContext};
use std::cell::Cell;
use std::collections::btree_map::{BTreeMap, Entry};
use tree_memory::{Memory, TREE};

fn key(number: u64) -> Key {
    // Types of which no rule asks anything.
    Key::new(number / 100, 240 + (number / 10 % 10) as u8, number % 10)
}

fn data(number: u64, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (number.wrapping_mul(31).wrapping_add(i as u64) % 251) as u8)
        .collect()
}

/// Random numbers for the long runs, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u64, usize),
    InsertMany(u64, u64, usize),
    Replace(u64, usize),
    Update(u64),
    Delete(u64),
    SetKey(u64, u64),
    CowTo(u64, u8),
    Commit,
    Abort,
}

/// Applies `op` to the tree and to the model, and compares what they answer.
fn apply(
    memory: &mut Memory,
    model: &mut BTreeMap<Key, Vec<u8>>,
    committed: &mut BTreeMap<Key, Vec<u8>>,
    op: &Op,
) {
    match *op {
        Op::Insert(number, len) => {
            let data = data(number ^ len as u64, len);
            let expected = match model.entry(key(number)) {
                Entry::Occupied(_) => Err(EEXIST),
                Entry::Vacant(vacant) => {
                    vacant.insert(data.clone());
                    Ok(())
                }
            };
            assert_eq!(edit::insert(memory, TREE, &key(number), &data), expected);
        }
        Op::InsertMany(first, count, len) => {
            let items: Vec<_> = (first..first + count)
                .filter(|&number| !model.contains_key(&key(number)))
                .map(|number| (key(number), data(number, len)))
                .collect();
            let slices = items.iter().map(|(key, data)| (*key, data.as_slice()));
            assert_eq!(edit::insert_many(memory, TREE, slices), Ok(()));
            model.extend(items);
        }
        Op::Replace(number, len) => {
            let data = data(number.wrapping_add(len as u64), len);
            let expected = match model.get_mut(&key(number)) {
                None => Err(ENOENT),
                Some(old) => {
                    old.clone_from(&data);
                    Ok(())
                }
            };
            assert_eq!(edit::replace(memory, TREE, &key(number), &data), expected);
        }
        Op::Update(number) => {
            let expected = match model.get_mut(&key(number)) {
                None => Err(ENOENT),
                Some(old) => {
                    old.reverse();
                    Ok(())
                }
            };
            let result = edit::update_in_place(memory, TREE, &key(number), |data| {
                data.reverse();
                Ok(())
            });
            assert_eq!(result, expected);
        }
        Op::Delete(number) => {
            let expected = model.remove(&key(number)).map(|_| ()).ok_or(ENOENT);
            assert_eq!(edit::delete(memory, TREE, &key(number)), expected);
        }
        Op::SetKey(from, to) => {
            let (old, new) = (key(from), key(to));
            let between = (old.min(new), old.max(new));
            let others = model
                .range(between.0..=between.1)
                .filter(|(key, _)| **key != old)
                .count();
            let expected = if !model.contains_key(&old) {
                Err(ENOENT)
            } else if others > 0 {
                Err(EINVAL)
            } else {
                let data = model.remove(&old).unwrap();
                model.insert(new, data);
                Ok(())
            };
            assert_eq!(edit::set_key(memory, TREE, &old, &new), expected);
        }
        Op::CowTo(number, level) => {
            let result = edit::cow_to(memory, TREE, &key(number), level);
            if level > memory.root.level {
                assert_eq!(result, Err(EINVAL));
            } else {
                let node = memory.dirty_mut(result.unwrap()).unwrap();
                assert_eq!(node.level(), level);
            }
        }
        Op::Commit => {
            memory.commit();
            committed.clone_from(model);
        }
        Op::Abort => {
            memory.abort();
            model.clone_from(committed);
        }
    }
}

fn run(nodesize: u32, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut memory = Memory::new(nodesize);
    let mut model = BTreeMap::new();
    let mut committed = BTreeMap::new();
    for op in ops {
        apply(&mut memory, &mut model, &mut committed, op);
        memory.check();
        prop_assert_eq!(&memory.contents(), &model);
    }
    memory.check_committed();
    for number in 0..1200 {
        let found = edit::get(&memory, TREE, &key(number)).unwrap();
        prop_assert_eq!(
            found.as_deref(),
            model.get(&key(number)).map(|data| &data[..])
        );
    }
    Ok(())
}

/// Sizes up to the largest item: mostly small, some that fill a leaf or nearly so.
fn sizes(max: usize) -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 0..=max / 12,
        3 => 0..=max / 2,
        1 => 0..=max,
        1 => max.saturating_sub(60)..=max,
    ]
}

fn ops(max: usize) -> impl Strategy<Value = Vec<Op>> {
    let number = 0u64..1000;
    let op = prop_oneof![
        12 => (number.clone(), sizes(max)).prop_map(|(n, len)| Op::Insert(n, len)),
        2 => (number.clone(), 1u64..60, sizes(max)).prop_map(|(n, c, len)| Op::InsertMany(n, c, len)),
        4 => (number.clone(), sizes(max)).prop_map(|(n, len)| Op::Replace(n, len)),
        2 => number.clone().prop_map(Op::Update),
        8 => number.clone().prop_map(Op::Delete),
        2 => (number.clone(), number.clone()).prop_map(|(a, b)| Op::SetKey(a, b)),
        4 => (number.clone(), -3i64..4).prop_map(|(a, b)| Op::SetKey(a, a.saturating_add_signed(b))),
        1 => (number, 0u8..5).prop_map(|(n, level)| Op::CowTo(n, level)),
        2 => Just(Op::Commit),
        1 => Just(Op::Abort),
    ];
    proptest::collection::vec(op, 1..250)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn matches_a_map_in_small_blocks(changes in ops(512 - 101 - 25)) {
        run(512, &changes)?;
    }

    #[test]
    fn matches_a_map_in_4k_blocks(changes in ops(4096 - 101 - 25)) {
        run(4096, &changes)?;
    }
}

/// Grows and shrinks high trees, checked now and then.
#[test]
fn long_random_run() {
    for (nodesize, seed) in [(256u32, 1u64), (512, 2), (4096, 3)] {
        let max = nodesize as usize - 101 - 25;
        let mut random = Random(seed);
        let mut memory = Memory::new(nodesize);
        let mut model = BTreeMap::new();
        let mut committed = BTreeMap::new();
        let mut highest = 0;
        for round in 0..12 {
            // Even rounds grow the tree, odd ones shrink it, the last ones to nothing.
            let deletes = if round % 2 == 0 { 2 } else { 8 };
            for _ in 0..2500 {
                let number = random.below(1000);
                let len = match random.below(10) {
                    0 => random.below(max as u64 + 1),
                    1..=3 => random.below(max as u64 / 2),
                    _ => random.below(max as u64 / 10),
                } as usize;
                let op = match random.below(12) {
                    choice if choice < deletes => Op::Delete(number),
                    8 => Op::Replace(number, len),
                    9 => Op::SetKey(number, number + 1),
                    _ => Op::Insert(number, len),
                };
                apply(&mut memory, &mut model, &mut committed, &op);
            }
            highest = highest.max(memory.root.level);
            memory.check();
            assert_eq!(memory.contents(), model);
            memory.check_committed();
            apply(&mut memory, &mut model, &mut committed, &Op::Commit);
        }
        assert!(
            highest >= if nodesize == 4096 { 1 } else { 3 },
            "{nodesize}: {highest}"
        );

        let keys: Vec<Key> = model.keys().copied().collect();
        for key in keys {
            edit::delete(&mut memory, TREE, &key).unwrap();
        }
        let summary = memory.check();
        let empty = Summary {
            leaves: 1,
            ..Summary::default()
        };
        assert_eq!(summary, empty);
        assert_eq!(memory.root.level, 0);
        memory.check_committed();
    }
}

#[test]
fn ascending_keys_fill_leaves() {
    let mut one_by_one = Memory::new(4096);
    let mut at_once = Memory::new(4096);
    let data = [1u8; 75];
    for number in 0..8000 {
        edit::insert(&mut one_by_one, TREE, &key(number), &data).unwrap();
    }
    let items = (0..8000).map(|number| (key(number), &data[..]));
    edit::insert_many(&mut at_once, TREE, items).unwrap();
    let summary = one_by_one.check();
    assert_eq!(summary, at_once.check());
    assert_eq!(summary.items, 8000);
    // 39 items of 100 bytes with their heads fit into a leaf.
    assert_eq!(summary.leaves, 8000u64.div_ceil(39));
    assert!(
        one_by_one.root.level == 2 && summary.nodes <= 4,
        "{summary:?}"
    );
    assert_eq!(one_by_one.contents(), at_once.contents());
}

#[test]
fn deleting_most_shrinks_the_tree() {
    let mut memory = Memory::new(4096);
    for number in 0..8000 {
        edit::insert(&mut memory, TREE, &key(number), &[1; 75]).unwrap();
    }
    memory.commit();
    for number in (0..8000).filter(|number| number % 100 != 0) {
        edit::delete(&mut memory, TREE, &key(number)).unwrap();
    }
    // 80 items of 100 bytes fill three leaves at best, and leaves below a third are merged.
    let summary = memory.check();
    assert_eq!((summary.items, memory.root.level), (80, 1));
    assert!(summary.leaves <= 6, "{summary:?}");
    memory.check_committed();
}

/// Three full leaves, each of 39 items of 100 bytes with their heads.
fn three_leaves() -> Memory {
    let mut memory = Memory::new(4096);
    for number in 0..117 {
        edit::insert(&mut memory, TREE, &key(number), &[1; 75]).unwrap();
    }
    assert_eq!(memory.check().leaves, 3);
    memory.commit();
    memory
}

#[test]
fn small_leaf_is_spread_over_both_neighbours() {
    let mut memory = three_leaves();
    // Either neighbour then has space for 8 items, and 13 are below a third.
    for number in (0..8).chain(109..117).chain(39..65) {
        assert_eq!(memory.check().leaves, 3);
        edit::delete(&mut memory, TREE, &key(number)).unwrap();
    }
    let summary = memory.check();
    assert_eq!((summary.leaves, summary.items), (2, 31 + 13 + 31));
    memory.check_committed();
}

#[test]
fn insert_many_sees_the_first_key_of_the_next_leaf() {
    let mut memory = three_leaves();
    edit::delete(&mut memory, TREE, &key(38)).unwrap();
    let items = [38, 39].map(|number| (key(number), &[2u8; 75][..]));
    assert_eq!(edit::insert_many(&mut memory, TREE, items), Err(EEXIST));
    assert_eq!(memory.check().items, 117);
}

#[test]
fn largest_item_between_two_others_gets_its_own_leaf() {
    let mut memory = Memory::new(4096);
    let max = edit::max_item_size(&memory.geometry);
    edit::insert(&mut memory, TREE, &key(1), &[1; 1900]).unwrap();
    edit::insert(&mut memory, TREE, &key(3), &[3; 1900]).unwrap();
    edit::insert(&mut memory, TREE, &key(2), &data(2, max)).unwrap();
    assert_eq!(memory.check().leaves, 3);
    let too_long = vec![0; max + 1];
    let before = memory.contents();
    assert_eq!(
        edit::insert(&mut memory, TREE, &key(4), &too_long),
        Err(EOVERFLOW)
    );
    assert_eq!(
        edit::replace(&mut memory, TREE, &key(1), &too_long),
        Err(EOVERFLOW)
    );
    assert_eq!(memory.contents(), before);
}

#[test]
fn insert_many_stops_at_the_first_bad_key() {
    let mut memory = Memory::new(512);
    edit::insert(&mut memory, TREE, &key(5), b"old").unwrap();
    let data = [0u8; 10];
    let items = [3, 4, 5, 6].map(|number| (key(number), &data[..]));
    assert_eq!(edit::insert_many(&mut memory, TREE, items), Err(EEXIST));
    let items = [8, 7].map(|number| (key(number), &data[..]));
    assert_eq!(edit::insert_many(&mut memory, TREE, items), Err(EINVAL));
    memory.check();
    let keys: Vec<Key> = memory.contents().into_keys().collect();
    assert_eq!(keys, [3, 4, 5, 8].map(key));
}

#[test]
fn highest_tree_refuses_to_grow() {
    // Four pointers per node, one item per leaf.
    let mut memory = Memory::new(256);
    let max = edit::max_item_size(&memory.geometry);
    let mut number = 0;
    let error = loop {
        match edit::insert(&mut memory, TREE, &key(number), &data(number, max)) {
            Ok(()) => number += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, ENOSPC);
    assert_eq!(memory.root.level, 7);
    // Where keys ascend, nodes are left with three of four pointers.
    assert!(number >= 3u64.pow(7), "{number}");
}

/// Nodes with one child, which other implementations leave behind, go with the last item.
#[test]
fn chain_of_single_children_becomes_an_empty_leaf() {
    let mut memory = Memory::new(4096);
    let old = edit::cow_to(&mut memory, TREE, &key(0), 0).unwrap();
    memory.free_node(TREE, old).unwrap();
    let mut bytenr = memory.alloc_node(TREE, 0).unwrap();
    let leaf = memory.dirty_mut(bytenr).unwrap();
    leaf.insert_item(0, &key(1), 5).unwrap();
    for level in 1..4 {
        let (child, generation) = (bytenr, memory.transid);
        bytenr = memory.alloc_node(TREE, level).unwrap();
        let node = memory.dirty_mut(bytenr).unwrap();
        node.insert_ptr(0, &key(1), child, generation).unwrap();
    }
    memory.root.bytenr = bytenr;
    memory.root.level = 3;
    memory.check();
    memory.commit();

    edit::delete(&mut memory, TREE, &key(1)).unwrap();
    let empty = Summary {
        leaves: 1,
        ..Summary::default()
    };
    assert_eq!(memory.check(), empty);
    memory.abort();
    edit::insert(&mut memory, TREE, &key(0), &[]).unwrap();
    edit::delete(&mut memory, TREE, &key(1)).unwrap();
    let keys: Vec<Key> = memory.contents().into_keys().collect();
    assert_eq!(keys, [key(0)]);
    memory.check();
    memory.check_committed();
}

#[test]
fn stale_pointer_into_a_reused_block_is_found() {
    let mut memory = Memory::new(512);
    for number in 0..40 {
        edit::insert(&mut memory, TREE, &key(number), &[0; 20]).unwrap();
    }
    memory.commit();
    let stale = edit::cow_to(&mut memory, TREE, &key(0), 0).unwrap();
    let parent = edit::cow_to(&mut memory, TREE, &key(0), 1).unwrap();
    let generation = memory.transid - 1;
    memory
        .dirty_mut(parent)
        .unwrap()
        .set_child(0, stale, generation)
        .unwrap();
    assert_eq!(edit::delete(&mut memory, TREE, &key(0)), Err(EUCLEAN));
    let mut problems = Vec::new();
    let transid = memory.transid;
    memory
        .dirty_mut(stale)
        .unwrap()
        .set_item_key(0, &key(1))
        .unwrap();
    memory
        .dirty_mut(parent)
        .unwrap()
        .set_child(0, stale, transid)
        .unwrap();
    let summary = check_tree(&memory, memory.root, transid, &mut |problem| {
        problems.push(problem.to_string());
    })
    .unwrap();
    assert_eq!(summary.problems, 1);
    assert!(
        problems[0].contains("bad first key, expected (0 240 0) found (0 240 1)"),
        "{problems:?}"
    );
}

/// A tree of some height, and changes that split, merge, grow and shrink it.
fn scenario() -> (Memory, impl Fn(&mut Memory) -> Result) {
    let mut memory = Memory::new(512);
    for number in (0..600).step_by(2) {
        edit::insert(&mut memory, TREE, &key(number), &data(number, 40)).unwrap();
    }
    memory.commit();
    let change = |memory: &mut Memory| -> Result {
        for number in (1..80).step_by(2) {
            edit::insert(memory, TREE, &key(number), &[2; 60])?;
        }
        edit::insert(memory, TREE, &key(301), &[3; 380])?;
        edit::replace(memory, TREE, &key(400), &[4; 300])?;
        let long = [5u8; 100];
        edit::insert_many(
            memory,
            TREE,
            (700..730).map(|number| (key(number), &long[..])),
        )?;
        edit::set_key(memory, TREE, &key(500), &key(501))?;
        for number in (0..560).step_by(2).filter(|number| *number != 500) {
            edit::get(memory, TREE, &key(number))?.ok_or(ENOENT)?;
            edit::delete(memory, TREE, &key(number))?;
        }
        Ok(())
    };
    (memory, change)
}

/// Runs the scenario with the n-th of something failing, for every n, and checks that aborting
/// undoes it.
fn every_failure(error: Error, arm: impl Fn(&Memory, u64), disarm: impl Fn(&Memory) -> bool) {
    let (base, change) = scenario();
    let before = base.contents();
    let mut failures = 0;
    for n in 0.. {
        let mut memory = base.fork();
        arm(&memory, n);
        let result = change(&mut memory);
        let struck = disarm(&memory);
        memory.check_committed();
        match result {
            Ok(()) => {
                memory.check();
                assert_ne!(memory.contents(), before);
                assert!(!struck, "a failure was swallowed");
                break;
            }
            Err(found) => assert_eq!(found, error),
        }
        failures += 1;
        memory.abort();
        memory.check();
        assert_eq!(memory.contents(), before);
        // The transaction that follows an abort succeeds.
        if n % 16 == 0 {
            change(&mut memory).unwrap();
            memory.check();
        }
    }
    assert!(failures > 20, "only {failures} places can fail");
}

#[test]
fn every_memory_allocation_may_fail() {
    let armed = Cell::new(0);
    every_failure(
        ENOMEM,
        |_, n| {
            armed.set(n);
            fault::fail_alloc_after(n);
        },
        |_| {
            let struck = fault::count() > armed.get();
            fault::clear();
            struck
        },
    );
}

#[test]
fn every_block_allocation_may_fail() {
    every_failure(
        ENOSPC,
        |memory, n| memory.fail_block.set(Some(n)),
        |memory| memory.fail_block.take().is_none(),
    );
}

#[test]
fn every_read_may_fail() {
    every_failure(
        EIO,
        |memory, n| memory.fail_read.set(Some(n)),
        |memory| memory.fail_read.take().is_none(),
    );
}
